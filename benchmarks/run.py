"""Compares prunejax with other ways to compute the same thing; writes a JSON file and a Markdown table of each suite.

    ./launch.sh bench --suite=population

Contestants take turns, so that a slow minute of a shared machine hits them alike: what counts are the ratios of their
medians. PyTorch takes part where it is installed: pip install -e '.[bench]'.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks.duel import Contestant, duel

FLAGS = flags.FLAGS
SUITES: dict[str, Callable[[], list[dict[str, Any]]]] = {}
Row = dict[str, Any]

SETTINGS = {
    "WRN-16-2, 32x32": {"depth": 16, "widen": 2, "size": 32, "stage": "sup", "steps": 1},
    "WRN-16-2, 32x32, SCL": {"depth": 16, "widen": 2, "size": 32, "stage": "scl", "steps": 1},
    "WRN-10-1, 32x32": {"depth": 10, "widen": 1, "size": 32, "stage": "sup", "steps": 1},
    "WRN-10-1, 32x32, SCL": {"depth": 10, "widen": 1, "size": 32, "stage": "scl", "steps": 1},
    "WRN-10-1, 8x8": {"depth": 10, "widen": 1, "size": 8, "stage": "sup", "steps": 10},
}
"""A network, the images' size, the loss, and the steps in a round."""
LAUNCHED = {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "")}
"""What ./launch.sh bench sets, for contestants that are run as the scripts are."""


def suite(function: Callable[[], list[Row]]) -> Callable[[], list[Row]]:
    """Makes a function that returns rows a suite of its name."""
    SUITES[function.__name__] = function
    return function


def rated(contestant: Contestant, count: int, unit: str, **columns: object) -> Row:
    """A row: the contestant's median rate and its spread."""
    row = {**columns, "contestant": contestant.name, "seconds": [round(second, 4) for second in contestant.seconds]}
    if contestant.trouble:
        return row | {unit: contestant.trouble}
    middle = statistics.median(contestant.seconds)
    spread = f"{count / max(contestant.seconds):.4g} to {count / min(contestant.seconds):.4g}"
    return row | {unit: float(f"{count / middle:.4g}"), "slowest to fastest": spread}


def compare(contestants: list[Contestant], count: int, unit: str, base: str, **columns: object) -> list[Row]:
    """A duel's rows, each with its ratio to the contestant called `base`; printed as they come."""
    duel(contestants, FLAGS.repeats, FLAGS.limit_s)
    rows = [rated(contestant, count, unit, **columns) for contestant in contestants]
    reference = next((row[unit] for row in rows if row["contestant"] == base), None)
    for row in rows:
        if isinstance(row[unit], float) and isinstance(reference, float):
            row[f"to {base}"] = f"{row[unit] / reference:.2f}x"
        print(*(value for name, value in row.items() if name != "seconds"), sep=" | ", file=sys.stderr, flush=True)
    return rows


def jax_contestant(name: str, contestant: str, setting: Row, launched: bool = True, **spec: object) -> Contestant:
    """A contestant in JAX; `launched` with the devices and the environment of the scripts, else as JAX comes."""
    base = {"contestant": contestant, "batch": FLAGS.batch, "dtype": FLAGS.dtype, **setting}
    if launched:
        return Contestant(name, [base | {"devices": os.cpu_count()} | spec], LAUNCHED)
    return Contestant(name, [base | spec])


def pytorch_contestants(setting: Row) -> list[Contestant]:
    """PyTorch with all threads in one process and, if there are models for all, with one process per core."""
    spec = {"contestant": "pytorch", "batch": FLAGS.batch, "dtype": FLAGS.dtype, **setting}
    models, cores = setting["models"], os.cpu_count() or 1
    together = Contestant("PyTorch, one process", [spec | {"threads": cores}], LAUNCHED)
    share = spec | {"models": models // cores, "threads": 1}
    apart = Contestant("PyTorch, a process per core", [share] * cores, LAUNCHED)
    contestants = [together, apart] if models % cores == 0 and cores > 1 else [together]
    for contestant in contestants:
        if importlib.util.find_spec("torch") is None:
            contestant.trouble = "not installed"
        elif FLAGS.dtype != "float32":
            contestant.trouble = "only float32 is written"
    return contestants


@suite
def population() -> list[Row]:
    """A population's training step: ours, its members one after another, what JAX offers for it, and PyTorch."""
    rows = []
    for network, setting in chosen_settings().items():
        for models in map(int, FLAGS.models):
            one = setting | {"models": models, "steps": setting["steps"] * max(1, 8 // models)}  # no round too short
            contestants = [
                jax_contestant("one after another", "serial", one, launched=False),
                jax_contestant("one after another, launch.sh's memory", "serial", one, devices=1),
                jax_contestant("one after another, our program", "ours", one, devices=1, models_per_program=1),
                jax_contestant("ours", "ours", one),
                jax_contestant("in one program, unrolled", "ours", one, models_per_program=models),
                jax_contestant("in one program, im2col", "ours", one, models_per_program=models, convolution="im2col"),
                jax_contestant("naive vmap", "naive", one, launched=False),
                jax_contestant("lax.map", "lax_map", one, launched=False),
                *pytorch_contestants(one),
            ]
            contestants = [one for one in contestants if re.search(FLAGS.contestants, one.name)]
            count = models * FLAGS.batch * one["steps"]
            rows += compare(contestants, count, "images/s", "one after another", network=network, models=models)
    return rows


def chosen_settings() -> dict[str, Row]:
    """The networks that --networks picks."""
    return {name: setting for name, setting in SETTINGS.items() if re.search(FLAGS.networks, name)}


@suite
def scale() -> list[Row]:
    """Images per second and the process's peak memory, from one model to many; rounds of as many images for all."""
    network, setting = next(iter(chosen_settings().items()))
    counts = list(map(int, FLAGS.models))
    steps = setting["steps"] * max(counts)
    contestants = [
        jax_contestant(f"{count} models", "ours", setting, models=count, steps=steps // count) for count in counts
    ]
    duel(contestants, FLAGS.repeats, FLAGS.limit_s * max(1, max(counts) / 8))
    rows = []
    for contestant, count in zip(contestants, counts, strict=True):
        images = count * FLAGS.batch * contestant.specs[0]["steps"]
        row = rated(contestant, images, "images/s", network=network, models=count)
        rows.append(row | {"peak memory, GiB": round(contestant.peak_bytes / 2**30, 2)})
    return rows


@suite
def prune() -> list[Row]:
    """One update of the masks of WRN-16-2: ours, by sorting, and by PyTorch's pruning utility."""
    spec = {"models": 4, "batch": FLAGS.batch, "dtype": "float32", **SETTINGS["WRN-16-2, 32x32"]} | {"steps": 5}
    names = {"ours": "masks", "ranks by sorting": "masks_sorted", "PyTorch, l1_unstructured": "masks_pytorch"}
    contestants = [Contestant(name, [spec | {"contestant": kind}]) for name, kind in names.items()]
    if importlib.util.find_spec("torch") is None:
        contestants[-1].trouble = "not installed"
    return compare(contestants, 20, "models/s", "ours", network="WRN-16-2")


@suite
def augment() -> list[Row]:
    """A step's augmentation of WRN-16-2 beside the whole step."""
    rows = []
    for network in ("WRN-16-2, 32x32", "WRN-16-2, 32x32, SCL"):
        one = SETTINGS[network] | {"models": os.cpu_count()}
        contestants = [
            jax_contestant("whole step", "ours", one),
            jax_contestant("augmentation", "augmentation", one | {"steps": 5}),
        ]
        duel(contestants, FLAGS.repeats, FLAGS.limit_s)
        images = one["models"] * FLAGS.batch
        rows += [rated(c, images * c.specs[0]["steps"], "images/s", network=network) for c in contestants]
        if not any(contestant.trouble for contestant in contestants):
            step, drawn = (statistics.median(c.seconds) / c.specs[0]["steps"] for c in contestants)
            rows[-1]["share of the step"] = f"{drawn / step:.1%}"
    return rows


@suite
def neighbors() -> list[Row]:
    """The k-NN probe, 2,000 queries among 50,000 rows of 64: ours (on CPU scikit-learn), scikit-learn, `top_k`."""
    names = {"ours": "knn", "scikit-learn, brute force": "knn_sklearn", "lax.top_k": "knn_top_k"}
    contestants = [Contestant(name, [{"contestant": kind, "steps": 1}]) for name, kind in names.items()]
    return compare(contestants, 2000, "queries/s", "ours")


@suite
def step() -> list[Row]:
    """What a training step of one model a device spends its time on, from XLA's profiler."""
    rows = []
    for network, setting in chosen_settings().items():
        spec = jax_contestant("", "ours", setting, models=os.cpu_count()).specs[0]
        command = [sys.executable, "-m", "benchmarks.profiled", json.dumps(spec | {"repeats": FLAGS.repeats})]
        done = subprocess.run(command, stdout=subprocess.PIPE, env=os.environ | LAUNCHED, check=True)
        rows += [{"network": network, **row} for row in json.loads(done.stdout)]
    return rows


def write(name: str, rows: list[Row]) -> None:
    """Writes a suite's JSON and Markdown."""
    modules = {"jax": "jax", "jaxlib": "jaxlib", "torch": "torch", "scikit-learn": "sklearn"}
    found = [package for package, module in modules.items() if importlib.util.find_spec(module)]
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in found)
    info = Path("/proc/cpuinfo")
    cpu = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    machine = f"{cpu[1] if cpu else platform.processor()}, {os.cpu_count()} cores, {versions}"
    machine += f"; {os.environ.get('GLIBC_TUNABLES') or 'without the memory settings of launch.sh'}"
    head = {"suite": name, "machine": machine, "batch": FLAGS.batch, "dtype": FLAGS.dtype, "repeats": FLAGS.repeats}
    out = Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n")
    columns = list(dict.fromkeys(column for row in rows for column in row if column != "seconds"))
    lines = [f"# {name}", "", " ".join(str(SUITES[name].__doc__).split()), ""]
    rounds = f"medians of {FLAGS.repeats} rounds in turns, each after one that is not counted"
    lines += [f"{machine}; batch {FLAGS.batch}, {FLAGS.dtype}; {rounds}.", ""]
    lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
    (out / f"{name}.md").write_text("\n".join(lines) + "\n")
    print(f"wrote {out / name}.md and .json")


def main(_: list[str]) -> None:
    """Runs the suites that the flags name."""
    for name in FLAGS.suite:
        write(name, SUITES[name]())


flags.DEFINE_multi_enum("suite", None, list(SUITES), "Which comparison; repeatable.", required=True)
flags.DEFINE_list("models", ["1", "2", "4", "8", "16"], "Models in the population, for population and scale.")
flags.DEFINE_string("networks", "", "A regular expression that picks networks: " + "; ".join(SETTINGS))
flags.DEFINE_string("contestants", "", "A regular expression that picks contestants of the suite population.")
flags.DEFINE_integer("batch", 128, "Images per model and step.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "What the networks compute in.")
flags.DEFINE_integer("repeats", 5, "Timed rounds of each contestant.", lower_bound=1)
flags.DEFINE_float("limit_s", 60, "A contestant whose round takes longer is out.")
flags.DEFINE_string("out", "benchmarks/results/cpu", "Directory for the results.")

if __name__ == "__main__":
    app.run(main)
