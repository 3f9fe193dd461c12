"""Suite `accelerator`: a GPU or TPU measured by one command in under nine minutes.

Its parts follow each other by importance, and each is written as it ends: what does not fit into
the time is left out, and named. Programs are compiled ahead, as many at a time as there are cores.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from benchmarks.duel import Contestant, duel
from benchmarks.spec import Spec
from benchmarks.suites import CORES, LAUNCHED, Options, Row, has_pytorch, rated
from prunejax.config.errors import in_one_line

MINUTES = 8.5
"""The limit of all parts together."""
ROUND_S = 1.0
"""The approximate duration of a round of one setting."""
SIDE = 8192
"""Rows and columns of the matrices in the timed product."""
COPIED_BYTES = 2**30
EPOCHS = 3
"""The epochs of the population that is trained on images."""
GPU_MEMORY = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""JAX leaves memory for PyTorch's process."""


def accelerator(options: Options) -> Iterator[list[Row]]:
    """Rates of all strategies and of PyTorch against the roofline, determinism, and a population.

    The matrix rate and the bandwidth are measured on the same device. A step's share of the
    roofline is the time that its floating-point operations or its bytes take at these rates,
    whichever is more, as XLA counts them, to the time that it took.
    """
    os.environ.update(GPU_MEMORY)
    deadline = time.monotonic() + 60 * MINUTES
    device = measure_device(options)
    yield [device]
    settings = settings_of(options)
    pool = ThreadPoolExecutor(max(1, CORES - 1))
    try:
        compiled = {name: pool.submit(_rehearsal, spec) for name, spec in settings.items()}
        for place, (name, spec) in enumerate(settings.items()):
            yield [_timed(name, spec, compiled[name], options, device, deadline)]
            if place == 0:
                yield from _beside_pytorch(spec, options, deadline)
                yield [_unless_late("determinism", _determinism, options, deadline)]
                yield [_unless_late("population", _population, options, deadline)]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def settings_of(options: Options) -> dict[str, Spec]:
    """What is timed, by name, the most important first."""
    network = next(iter(options.chosen_networks().values()))
    sup = replace(network, models=max(options.models), dtype="bfloat16", steps=1, steps_per_call=8)
    scl = replace(sup, stage="scl", batch=8 * options.batch)
    middle = options.models[len(options.models) // 2]
    found: dict[str, Spec] = {}

    def add(spec: Spec) -> None:
        name = (
            f"{spec.convolution}, {spec.models} models, {spec.stage} {spec.batch}, {spec.dtype}, "
            f"{spec.steps_per_call} steps a call"
        )
        found.setdefault(name, spec)

    add(sup)
    add(scl)
    for models in options.models:
        add(replace(sup, models=models))
        add(replace(scl, models=models))
    for strategy in ("grouped", "im2col"):
        add(replace(sup, models=middle, convolution=strategy))
    for steps in (1, 32):
        add(replace(sup, models=middle, steps_per_call=steps))
    add(replace(sup, dtype="float32"))
    add(replace(scl, dtype="float32"))
    for strategy in ("grouped", "im2col"):
        for models in options.models:
            add(replace(sup, models=models, convolution=strategy))
        add(replace(scl, models=middle, convolution=strategy))
    return found


# ----------------------------------------------------------------------- the device itself


def measure_device(options: Options) -> Row:
    """Its name, and what it reaches: products of matrices, and copies within its memory."""
    import jax
    import jax.numpy as jnp

    on_cpu = jax.devices()[0].platform == "cpu"
    side = 512 if on_cpu else SIDE
    numbers = (2**24 if on_cpu else COPIED_BYTES) // 4
    row: Row = {"part": "device", "what": f"{jax.device_count()} x {jax.devices()[0].device_kind}"}
    for dtype in ("float32", "bfloat16"):
        matrix = jnp.ones((side, side), dtype)
        seconds = _seconds(jax.jit(jnp.matmul), options.repeats, matrix, matrix)
        row[f"TFLOP/s {dtype}"] = round(2 * side**3 / seconds / 1e12, 3)
    seconds = _seconds(jax.jit(lambda x: x + 1), options.repeats, jnp.ones(numbers, jnp.float32))
    row["GB/s"] = round(2 * 4 * numbers / seconds / 1e9, 1)
    return row


def _seconds(function: Callable[..., Any], repeats: int, *arguments: Any) -> float:  # noqa: ANN401
    """The median time of one call, after two calls that are not counted."""
    import jax

    times = []
    for _ in range(repeats + 2):
        begin = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - begin)
    return statistics.median(times[2:])


# ---------------------------------------------------------------------- steps of training


def _rehearsal(spec: Spec) -> Any:  # noqa: ANN401
    from benchmarks.steps import rehearse

    return rehearse(spec)


def _timed(
    name: str,
    spec: Spec,
    compiled: "Future[Any]",
    options: Options,
    device: Row,
    deadline: float,
) -> Row:
    """The rate of a setting, and its share of the roofline."""
    from prunejax.training.plan import step_flops

    row: Row = {"part": "step", "what": name}
    left = deadline - time.monotonic()
    if left <= 0:
        return row | {"images/s": "not reached"}
    try:
        rehearsal = compiled.result(timeout=left)
    except TimeoutError:
        return row | {"images/s": "not compiled in time"}
    except Exception as error:  # of XLA, when there is no memory for it
        return row | {"images/s": in_one_line(error)}
    once = _seconds(rehearsal.step, 1)
    rounds = max(1, min(50, round(ROUND_S / once)))

    def many() -> None:
        for _ in range(rounds):
            rehearsal.step()

    seconds = _seconds(many, options.repeats) / rounds / spec.steps_per_call
    plan = rehearsal.plan
    of_program = step_flops(rehearsal.spec, rehearsal.dataset, rehearsal.program, plan)
    # XLA counts the body of a loop over steps once.
    share_of_chunks = spec.models / plan.models_per_program
    flops = of_program * share_of_chunks
    of_flops = flops / (1e12 * device[f"TFLOP/s {spec.dtype}"])
    of_bytes = rehearsal.bytes_accessed * share_of_chunks / (1e9 * device["GB/s"])
    return row | {
        "images/s": float(f"{spec.models * spec.batch / seconds:.4g}"),
        "models a program": plan.models_per_program,
        "TFLOP/s": float(f"{flops / seconds / 1e12:.3g}"),
        "of the roofline": f"{max(of_flops, of_bytes) / seconds:.0%}",
    }


def _beside_pytorch(spec: Spec, options: Options, deadline: float) -> Iterator[list[Row]]:
    """PyTorch's rate at the same work, one model after another, compiled and not."""
    for compiled in (True, False):
        name = f"PyTorch, {'compiled, ' if compiled else ''}{spec.models} models"
        work = replace(spec, contestant="pytorch.training", threads=CORES, compiled=compiled)
        contestant = Contestant(name, [work], LAUNCHED)
        if not has_pytorch():
            contestant.trouble = "not installed"
        left = deadline - time.monotonic()
        duel([contestant], options.repeats, min(options.limit_s, max(left / 4, 1)))
        yield [rated(contestant, spec.models * spec.batch, "images/s", {"part": "PyTorch"})]


# ------------------------------------------------------------- whole runs of a small population


def _unless_late(
    part: str, measure: Callable[[Options], Row], options: Options, deadline: float
) -> Row:
    """A part that is either whole or left out."""
    if time.monotonic() >= deadline:
        return {"part": part, "what": "not reached"}
    return {"part": part} | measure(options)


def _determinism(options: Options) -> Row:
    """Whether the same two epochs end in the same bits."""
    import jax

    states = [_train(options, epochs=2)[0] for _ in range(2)]
    same = all(
        bytes(ours) == bytes(theirs)
        for ours, theirs in zip(*map(jax.tree.leaves, states), strict=True)
    )
    return {"what": "the same bits twice" if same else "other bits"}


def _population(options: Options) -> Row:
    """A population trained on the images of --images, or on noise, with everything that belongs."""
    _, accuracy, images, seconds = _train(options, EPOCHS)
    return {
        "what": f"{max(options.models)} models, {EPOCHS} epochs, {options.images or 'noise'}",
        "images/s": float(f"{images / seconds:.4g}"),
        "training accuracy": f"{accuracy:.1%}",
    }


def _train(options: Options, epochs: int) -> tuple[Any, float, int, float]:
    """The state at the end, the last accuracy, and the images and seconds of it."""
    from benchmarks.problem import make_config, random_dataset
    from prunejax import data
    from prunejax.config import Data
    from prunejax.training import population
    from prunejax.training.members import members_of

    spec = next(iter(settings_of(options).values()))
    config = make_config(spec)
    config = replace(
        config,
        sup=replace(config.sup, epochs=epochs),
        execution=replace(config.execution, steps_per_call=None),
    )
    dataset = random_dataset(spec)
    if options.images:
        config = replace(config, data=Data(options.images, mean=None, std=None))
        dataset = data.load(config.data)
        config = replace(config, data=data.with_statistics(config.data, dataset))
    begin = time.perf_counter()
    *_, last = population.fit(config, members_of(config), dataset)
    seconds = time.perf_counter() - begin
    images = epochs * spec.models * len(dataset.train_labels)
    return last.state, float(last.metrics["accuracy"].mean()), images, seconds
