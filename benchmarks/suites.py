"""The comparisons: who takes part in each, and what a row of its table shows."""

import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import joblib

from benchmarks.duel import Contestant, duel
from benchmarks.spec import Spec

NETWORKS = {
    "WRN-16-2, 32x32": Spec(depth=16, widen=2, size=32, stage="sup", steps=1),
    "WRN-16-2, 32x32, SCL": Spec(depth=16, widen=2, size=32, stage="scl", steps=1),
    "WRN-10-1, 32x32": Spec(depth=10, widen=1, size=32, stage="sup", steps=1),
    "WRN-10-1, 32x32, SCL": Spec(depth=10, widen=1, size=32, stage="scl", steps=1),
    "WRN-10-1, 8x8": Spec(depth=10, widen=1, size=8, stage="sup", steps=10),
}
"""A network, the images' size, the loss, and the steps in a round."""
CORES = joblib.cpu_count()
LAUNCHED = {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "")}
"""What ./launch.sh bench sets, for contestants that are run as the scripts are."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What the flags of `benchmarks.run` say."""

    models: tuple[int, ...]
    """In the population, for `population` and `scale`."""
    networks: str
    """A regular expression that picks from `NETWORKS`."""
    contestants: str
    """A regular expression that picks contestants of `population`."""
    batch: int
    dtype: Literal["float32", "bfloat16"]
    repeats: int
    """Timed rounds of each contestant."""
    limit_s: float
    """The time limit of one round."""
    images: str | None = None
    """The dataset of `accelerator`'s population, a value of `data.name`; None: noise."""

    def network(self, name: str) -> Spec:
        """The network of that name at this batch and dtype."""
        return replace(NETWORKS[name], batch=self.batch, dtype=self.dtype)

    def chosen_networks(self) -> dict[str, Spec]:
        """The networks that are picked."""
        names = [name for name in NETWORKS if re.search(self.networks, name)]
        return {name: self.network(name) for name in names}


# ------------------------------------------------------------------------ rows


def rated(contestant: Contestant, count: int, unit: str, columns: Row) -> Row:
    """A row: the contestant's median rate and its spread, or its trouble.

    Args:
        contestant: after its duel.
        count: what it does in a round.
        unit: the heading of the rates.
        columns: the first columns of the row.
    """
    row = dict(columns)
    row["contestant"] = contestant.name
    row["seconds"] = [round(seconds, 4) for seconds in contestant.seconds]
    if contestant.trouble:
        row[unit] = contestant.trouble
        return row
    rate = count / statistics.median(contestant.seconds)
    slowest = count / max(contestant.seconds)
    fastest = count / min(contestant.seconds)
    row[unit] = float(f"{rate:.4g}")
    row["slowest to fastest"] = f"{slowest:.4g} to {fastest:.4g}"
    return row


def compare(
    contestants: list[Contestant],
    options: Options,
    count: int,
    unit: str,
    base: str,
    columns: Row,
) -> list[Row]:
    """A duel's rows, each with its ratio to the contestant called `base`; prints them too.

    Args:
        contestants: what is compared.
        options: rounds and their time limit.
        count: what a contestant does in a round.
        unit: the heading of the rates.
        base: the name of the contestant in the denominator.
        columns: the first columns of each row.
    """
    duel(contestants, options.repeats, options.limit_s)
    rows = [rated(contestant, count, unit, columns) for contestant in contestants]
    reference = None
    for row in rows:
        if row["contestant"] == base:
            reference = row[unit]
    for row in rows:
        if isinstance(row[unit], float) and isinstance(reference, float):
            row[f"to {base}"] = f"{row[unit] / reference:.2f}x"
        shown = [str(value) for name, value in row.items() if name != "seconds"]
        print(" | ".join(shown), file=sys.stderr, flush=True)
    return rows


# ----------------------------------------------------------------- contestants


def launched(name: str, spec: Spec, devices: int = CORES) -> Contestant:
    """A contestant in JAX with the devices and the environment of the scripts."""
    return Contestant(name, [replace(spec, devices=devices)], LAUNCHED)


def as_jax_comes(name: str, spec: Spec) -> Contestant:
    """A contestant in JAX with nothing set."""
    return Contestant(name, [spec])


def training_in_jax(spec: Spec) -> list[Contestant]:
    """Ours, in other chunks too, and what one would write without it."""
    serial = replace(spec, contestant="steps.serial")
    one_by_one = replace(spec, models_per_program=1)
    in_one = replace(spec, models_per_program=spec.models)
    im2col = replace(in_one, convolution="im2col")
    onednn = replace(spec, convolution="onednn")
    naive = replace(spec, contestant="steps.naive")
    lax_map = replace(spec, contestant="steps.lax_map")
    return [
        as_jax_comes("one after another", serial),
        launched("one after another, launch.sh's memory", serial, devices=1),
        launched("one after another, our program", one_by_one, devices=1),
        launched("ours", spec),
        launched("ours, oneDNN", onednn),
        launched("in one program, unrolled", in_one),
        launched("in one program, im2col", im2col),
        as_jax_comes("naive vmap", naive),
        as_jax_comes("lax.map", lax_map),
    ]


def training_in_pytorch(spec: Spec) -> list[Contestant]:
    """All threads in one process and, if there are models for all, one process per core."""
    spec = replace(spec, contestant="pytorch.training")
    together = replace(spec, threads=CORES)
    compiled = replace(together, compiled=True)
    contestants = [
        Contestant("PyTorch, one process", [together], LAUNCHED),
        Contestant("PyTorch, one process, compiled", [compiled], LAUNCHED),
    ]
    if CORES > 1 and spec.models % CORES == 0:
        share = replace(spec, models=spec.models // CORES, threads=1)
        apart = Contestant("PyTorch, a process per core", [share] * CORES, LAUNCHED)
        contestants.append(apart)
    for contestant in contestants:
        if not has_pytorch():
            contestant.trouble = "not installed"
    return contestants


def has_pytorch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


# ---------------------------------------------------------------------- suites


def population(options: Options) -> Iterator[list[Row]]:
    """A population's training step.

    Ours, its members one after another, what JAX offers for it, and PyTorch.
    """
    rows = []
    for network, setting in options.chosen_networks().items():
        for models in options.models:
            steps = setting.steps * max(1, 8 // models)  # so that no round is too short
            spec = replace(setting, models=models, steps=steps)
            contestants = []
            for contestant in training_in_jax(spec) + training_in_pytorch(spec):
                if re.search(options.contestants, contestant.name):
                    contestants.append(contestant)
            count = models * options.batch * steps
            columns = {"network": network, "models": models}
            rows += compare(contestants, options, count, "images/s", "one after another", columns)
    yield rows


def scale(options: Options) -> Iterator[list[Row]]:
    """Images per second and the process's peak memory, from one model to many.

    The rounds of all have as many images.
    """
    network, setting = next(iter(options.chosen_networks().items()))
    most = max(options.models)
    contestants = []
    for models in options.models:
        steps = setting.steps * most // models
        spec = replace(setting, models=models, steps=steps)
        contestants.append(launched(f"{models} models", spec))
    duel(contestants, options.repeats, options.limit_s * max(1, most / 8))
    rows = []
    for contestant in contestants:
        (spec,) = contestant.specs
        images = spec.models * spec.batch * spec.steps
        columns = {"network": network, "models": spec.models}
        row = rated(contestant, images, "images/s", columns)
        row["peak memory, GiB"] = round(contestant.peak_bytes / 2**30, 2)
        rows.append(row)
    yield rows


def prune(options: Options) -> Iterator[list[Row]]:
    """One update of the masks of WRN-16-2: ours, by sorting, and by PyTorch's pruning utility."""
    setting = NETWORKS["WRN-16-2, 32x32"]
    spec = replace(setting, models=4, steps=5, batch=options.batch)
    ours = replace(spec, contestant="parts.masks")
    by_sorting = replace(spec, contestant="parts.masks_sorted")
    by_pytorch = replace(spec, contestant="pytorch.masks")
    contestants = [
        Contestant("ours", [ours]),
        Contestant("ranks by sorting", [by_sorting]),
        Contestant("PyTorch, l1_unstructured", [by_pytorch]),
    ]
    if not has_pytorch():
        contestants[-1].trouble = "not installed"
    count = spec.models * spec.steps
    yield compare(contestants, options, count, "models/s", "ours", {"network": "WRN-16-2"})


def augment(options: Options) -> Iterator[list[Row]]:
    """A step's augmentation of WRN-16-2 relative to the whole step."""
    rows = []
    for network in ("WRN-16-2, 32x32", "WRN-16-2, 32x32, SCL"):
        whole = replace(options.network(network), models=CORES)
        drawn = replace(whole, contestant="parts.augmentation", steps=5)
        contestants = [launched("whole step", whole), launched("augmentation", drawn)]
        duel(contestants, options.repeats, options.limit_s)

        seconds = []  # of one step
        for contestant in contestants:
            (spec,) = contestant.specs
            images = spec.models * spec.batch * spec.steps
            rows.append(rated(contestant, images, "images/s", {"network": network}))
            if not contestant.trouble:
                seconds.append(statistics.median(contestant.seconds) / spec.steps)
        if len(seconds) == 2:
            of_whole, of_augmentation = seconds
            rows[-1]["share of the step"] = f"{of_augmentation / of_whole:.1%}"
    yield rows


def neighbors(options: Options) -> Iterator[list[Row]]:
    """The k-NN probe, 2,000 queries among 50,000 rows of 64.

    Ours (on CPU scikit-learn's), scikit-learn, and `lax.top_k`.
    """
    contestants = [
        Contestant("ours", [Spec("parts.knn")]),
        Contestant("scikit-learn, brute force", [Spec("parts.knn_sklearn")]),
        Contestant("lax.top_k", [Spec("parts.knn_top_k")]),
    ]
    yield compare(contestants, options, 2000, "queries/s", "ours", {})


def step(options: Options) -> Iterator[list[Row]]:
    """What a training step of one model a device spends its time on, from XLA's profiler."""
    rows = []
    env = dict(os.environ)
    env.update(LAUNCHED)
    for network, setting in options.chosen_networks().items():
        spec = replace(setting, models=CORES, devices=CORES)
        profiled = [sys.executable, "-m", "benchmarks.profiled"]
        command = [*profiled, spec.to_json(), str(options.repeats)]
        done = subprocess.run(command, stdout=subprocess.PIPE, env=env, check=True)
        for part in json.loads(done.stdout):
            rows.append({"network": network} | part)
    yield rows


Suite = Callable[[Options], Iterator[list[Row]]]
"""Yields its rows part by part, so that finished parts can be written."""
SUITES: dict[str, Suite] = {
    "population": population,
    "scale": scale,
    "prune": prune,
    "augment": augment,
    "neighbors": neighbors,
    "step": step,
}
"""By the name that --suite gives them; the docstring of each stands above its table."""
