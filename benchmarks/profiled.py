"""What our training step spends its time on, from XLA's profiler: prints parts and their shares.

XLA's CPU backend runs convolutions where its profiler does not see them: they are the time that the
rest leaves.
"""

import collections
import glob
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from benchmarks.spec import Spec

REST = "convolutions: forward, input and kernel gradients"
PARTS = {
    REST: r"convolution|conv_general_dilated",
    "transpositions for the kernel gradient": r"^transpose_copy_fusion",
    "mask update": r"update_masks",
    "masks applied": r"apply_masks",
    "augmentation": r"augment",
    "optimiser": r"optimizer",
    "batch normalisation and ReLU": r"norm|relu|select_n|max$",
    "other: residual sums, pooling, head, loss": r"",
}
"""An operation belongs to the first part with a pattern that matches its name or scope."""
ENCLOSING = ("while", "call", "conditional")
"""Operations whose events enclose those of what they call."""
HOPS = 4
"""Over so many users an operation without a scope is looked for one."""


class Event(NamedTuple):
    """An operation that a device has computed."""

    name: str
    milliseconds: float


def main() -> None:
    """Profiles the step of the spec and the repeats in the arguments; prints rows as JSON."""
    spec, repeats = Spec.from_json(sys.argv[1]), int(sys.argv[2])
    jax.config.update("jax_num_cpu_devices", spec.devices)
    from benchmarks.steps import rehearse

    rehearsal = rehearse(spec)
    compiled = rehearsal.program(rehearsal.plan.models_per_program, spec.batch)
    scopes = operation_scopes(compiled.as_text())

    rehearsal.step()
    total_ms = 1e3 * statistics.median(time_steps(rehearsal.step, repeats))
    summed_ms = part_milliseconds(profile_steps(rehearsal.step, repeats), scopes)
    model_ms = {part: ms / repeats / spec.models for part, ms in summed_ms.items()}
    print(json.dumps(rows_of(model_ms, total_ms)))


def time_steps(step: Callable[[], None], repeats: int) -> list[float]:
    """The seconds of each of `repeats` steps."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


def profile_steps(step: Callable[[], None], repeats: int) -> list[Event]:
    """What XLA's profiler records of `repeats` steps, on all devices."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(repeats):
                step()
        (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        profile = jax.profiler.ProfileData.from_file(path)
        return list(_operations(profile))


def _operations(profile: Any) -> Iterator[Event]:  # noqa: ANN401
    for plane in profile.planes:
        for line in plane.lines:
            for event in line.events:
                if "hlo_op" in dict(event.stats):
                    yield Event(event.name, event.duration_ns / 1e6)


def part_milliseconds(events: list[Event], scopes: dict[str, str]) -> dict[str, float]:
    """The time of all events of each part.

    Args:
        events: of steps of one program.
        scopes: of its operations; events of others do not count.
    """
    milliseconds: dict[str, float] = collections.defaultdict(float)
    for event in events:
        if event.name in scopes:
            part = part_of(event.name, scopes[event.name])
            milliseconds[part] += event.milliseconds
    return milliseconds


def part_of(name: str, scope: str) -> str:
    """The part to which an operation belongs.

    Raises:
        ValueError: if it belongs to none.
    """
    for part, pattern in PARTS.items():
        if re.search(pattern, name) or re.search(pattern, scope):
            return part
    raise ValueError(f"no part has the operation {name}")  # the last one has every operation


def rows_of(model_ms: dict[str, float], total_ms: float) -> list[dict[str, Any]]:
    """A row of each part, in order.

    Args:
        model_ms: milliseconds of a step of one model, by part.
        total_ms: of the step; what the other parts leave of it is the convolutions'.
    """
    seen = sum(ms for part, ms in model_ms.items() if part != REST)
    rows = []
    for part in PARTS:
        ms = total_ms - seen if part == REST else model_ms.get(part, 0)
        rows.append({"part": part, "ms a model": round(ms, 1), "share": f"{ms / total_ms:.1%}"})
    return rows


def operation_scopes(text: str) -> dict[str, str]:
    """The scope of each operation of a compiled program, by its name.

    One that XLA made up has the scope of an operation that uses it.

    Args:
        text: the program as XLA prints it.
    """
    scopes: dict[str, str] = {}
    users: dict[str, str] = {}  # the first of each operation
    for line in text.splitlines():
        found = re.match(r"\s*(?:ROOT )?%(\S+) = (?:\(.*?\)|\S+) ([\w-]+)\((.*)", line)
        if not found:
            continue
        name, kind, rest = found.groups()
        if kind in ENCLOSING:
            continue
        scope = re.search(r'op_name="([^"]*)"', rest)
        scopes[name] = scope[1] if scope else ""
        operands, _, _ = rest.partition("metadata=")
        for operand in re.findall(r"%([\w.-]+)", operands):
            users.setdefault(operand, name)
    return {name: _scope_of(name, scopes, users) for name in scopes}


def _scope_of(name: str, scopes: dict[str, str], users: dict[str, str]) -> str:
    """The scope of an operation, or else of its user, or else of that one's; empty if none has."""
    for _ in range(HOPS):
        if scopes.get(name) or name not in users:
            break
        name = users[name]
    return scopes.get(name, "")


if __name__ == "__main__":
    main()
