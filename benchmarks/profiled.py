"""What our training step spends its time on, from XLA's profiler: prints parts and their shares as JSON.

XLA's CPU backend runs convolutions where its profiler does not see them: they are the time that the rest leaves.
"""

import collections
import glob
import json
import re
import statistics
import sys
import tempfile
import time

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
"""The first whose pattern is found in an operation's name or scope has the operation."""


def main() -> None:
    """Profiles the step that the argument describes."""
    spec = json.loads(sys.argv[1])
    import jax

    jax.config.update("jax_num_cpu_devices", spec["devices"])
    from benchmarks.contestants import make_config, random_dataset
    from prunejax import population, programs

    config, dataset, stage = make_config(spec), random_dataset(spec), spec["stage"]
    who, program = population.members(config), programs.make_programs(config, stage, dataset)
    plan = programs.plan(config, stage, len(who), dataset, program)
    calls = population.rehearse(config, stage, who, dataset, plan, program, 1)

    def step() -> None:
        jax.block_until_ready(next(calls))

    scopes = operation_scopes(program(len(who), spec["batch"]).as_text())
    step()
    seconds = []
    for _ in range(spec["repeats"]):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(spec["repeats"]):
                step()
        (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        profile = jax.profiler.ProfileData.from_file(path)
    milliseconds = collections.Counter()
    for event in (event for plane in profile.planes for line in plane.lines for event in line.events):
        if "hlo_op" in dict(event.stats) and event.name in scopes:
            names = (event.name, scopes[event.name])
            part = next(part for part, pattern in PARTS.items() if any(re.search(pattern, name) for name in names))
            milliseconds[part] += event.duration_ns / 1e6 / spec["repeats"] / len(who)
    total = 1e3 * statistics.median(seconds)
    milliseconds[REST] = total - sum(ms for part, ms in milliseconds.items() if part != REST)
    rows = [
        {"part": part, "ms a model": round(milliseconds[part], 1), "share": f"{milliseconds[part] / total:.1%}"}
        for part in PARTS
    ]
    print(json.dumps(rows))


def operation_scopes(text: str) -> dict[str, str]:
    """Each operation's scope in a compiled program; one that XLA made up has the scope of an operation that uses it."""
    scopes, users = {}, {}
    for line in text.splitlines():
        if found := re.match(r"\s*(?:ROOT )?%(\S+) = (?:\(.*?\)|\S+) ([\w-]+)\((.*)", line):
            name, kind, rest = found.groups()
            if kind in ("while", "call", "conditional"):
                continue  # their events enclose those of what they call
            scope = re.search(r'op_name="([^"]*)"', rest)
            scopes[name] = scope[1] if scope else ""
            for operand in re.findall(r"%([\w.-]+)", rest.split("metadata=")[0]):
                users.setdefault(operand, name)

    def scope_of(name: str, hops: int = 4) -> str:
        return scopes.get(name, "") or (scope_of(users[name], hops - 1) if hops and name in users else "")

    return {name: scope_of(name) for name in scopes}


if __name__ == "__main__":
    main()
