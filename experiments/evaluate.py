"""Measures every finished run of a work directory, one file a measure.

Predictions, Q-Score, prediction depth, k-NN purity, UMAP, calibration, and what a study adds. Run
again, it measures what is missing or outdated.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from absl import flags

from experiments import flags as cli
from experiments.display import bar
from prunejax.config import Config, Data, UserError, load_config, override, validate
from prunejax.config.counts import counted
from prunejax.config.errors import in_one_line
from prunejax.config.levels import percent

if TYPE_CHECKING:
    from prunejax.data import Dataset
    from prunejax.measures import RunMeasures
    from prunejax.types import Path

FLAGS = flags.FLAGS


def main() -> None:
    """All runs under --workdir."""
    from prunejax.report.collect import run_directories

    cli.study()  # the study's module may add plug-ins
    workdir = cli.workdir()
    runs = run_directories(workdir)
    if not runs:
        raise UserError(f"{workdir} holds no run; train one first")
    if any(not assignment.startswith("measure.") for assignment in FLAGS.set):
        raise UserError(
            "--set: only fields of measure can change after training, "
            "for instance measure.probe_models=3"
        )
    evaluate(runs)


def evaluate(runs: "Sequence[Path]") -> None:
    """Brings the measures of each run up to date, and prints a line for each cell.

    A run that cannot be measured is named in one line, as is a measure that fails, and the others
    are measured; an error if none can.

    Args:
        runs: their directories.
    """
    plans, skipped = _plans(runs)
    found = _measured(plans, skipped)
    study = {run_dir.name: found[run_dir.name] for run_dir in runs if run_dir.name in found}
    if not study:
        raise next(iter(skipped.values()))
    for name, measures in study.items():
        for level in measures.levels:
            print(_summary(study, name, measures, level))
    for name, error in skipped.items():
        print(f"skipped {name}: {error}", file=sys.stderr)
    for name, measures in study.items():
        for measure, why in measures.failures.items():
            print(f"{name} has no {measure}: {why}", file=sys.stderr)


def _plans(runs: "Sequence[Path]") -> "tuple[dict[Path, Plan], dict[str, Exception]]":
    """The plan of each run, and by name why a run cannot be measured."""
    plans, skipped = {}, {}
    for run_dir in runs:
        try:
            plans[run_dir] = _plan(run_dir)
        except (UserError, OSError) as error:
            skipped[run_dir.name] = error
            continue
        if plans[run_dir].left:
            left = ", ".join(plans[run_dir].left)
            print(f"{run_dir.name}: no models are here to measure; as before: {left}")
    return plans, skipped


def _measured(
    plans: "Mapping[Path, Plan]", skipped: dict[str, Exception]
) -> "dict[str, RunMeasures]":
    """All measures of each run by its name; one that cannot be measured is added to `skipped`."""
    load = functools.cache(cli.load_data)
    found = {}
    for run_dir in plans:
        try:
            found[run_dir.name] = _measure(run_dir, load)
        except (UserError, OSError) as error:
            skipped[run_dir.name] = error
    return found


def _summary(study: "dict[str, RunMeasures]", name: str, run: "RunMeasures", level: float) -> str:
    """Models, accuracy and PIEs of one cell of a run."""
    from prunejax.report.collect import trained_otherwise

    cell, trained = run.at(level), run.trained(level)
    levels = [other for measures in study.values() for other in measures.levels]
    shown = percent(level, levels)
    line = f"{name:16} {shown:>5}% pruned: {len(cell.seeds)} of {counted(trained, 'model')}"
    if not len(cell.seeds):
        return line
    accuracy = 100 * cell.accuracy
    line += f", accuracy {accuracy.mean():.2f} ± {accuracy.std():.2f}%"
    dense = study.get(run.config.experiment.dense_parent or "")
    if dense is None or not len(dense.at(0.0).seeds):
        return line
    if different := trained_otherwise(run, dense):
        return f"{line}, no PIEs: {dense.name} is of other settings ({'; '.join(different)})"
    pies = cell.pies(dense.at(0.0))
    per_class = np.bincount(cell.labels[pies], minlength=len(cell.class_names))
    return f"{line}, {counted(int(per_class.sum()), 'PIE')}, per class {per_class.tolist()}"


class Plan(NamedTuple):
    """What to measure of a run."""

    config: Config
    """Its settings, with those requested now."""
    pending: list[str]
    """The measures that are missing or outdated, if there are models to measure."""
    left: list[str]
    """Those of a run that was joined, or has lost its models."""


def _plan(run_dir: "Path") -> Plan:
    """Returns what to measure of a run.

    Raises:
        UserError: if its settings or files cannot be read.
    """
    from prunejax.measures.evaluation import outdated
    from prunejax.measures.store import REQUIRED
    from prunejax.training import hosts

    def find() -> Plan:
        config = override(load_config(run_dir), FLAGS.set)
        validate(config)
        names = outdated(run_dir, config)
        # Without predictions there is nothing to keep: the error says that the models are missing.
        measurable = REQUIRED in names or (run_dir / "checkpoints").exists()
        return Plan(config, names, []) if measurable else Plan(config, [], names)

    plan = hosts.on_all_processes(find)
    hosts.require_same(f"the list of measures to compute in {run_dir}", str(plan.pending))
    return plan


def _measure(run_dir: "Path", load: "Callable[[Data], Dataset]") -> "RunMeasures":
    """Measures what is pending of one run; returns all its measures.

    Raises:
        UserError: also of what JAX raises, for instance when there is no memory left.
    """
    from prunejax.measures import load_measures
    from prunejax.measures.evaluation import evaluate as measure
    from prunejax.runs import load_population
    from prunejax.training import hosts

    plan = _plan(run_dir)
    if not plan.pending:
        if not plan.left:
            with contextlib.suppress(UserError):  # where only reading is allowed
                _note_settings(run_dir, plan.config)
        return hosts.on_all_processes(lambda: load_measures(run_dir))
    trained = hosts.on_all_processes(lambda: load_population(run_dir))
    dataset = load(plan.config.data)

    @contextlib.contextmanager
    def track(unit: str, total: int) -> Iterator[Callable[[float], object]]:
        part = "test set" if unit == "images" else "probes"
        with bar(f"{run_dir.name} {part}", total, unit=unit) as shown:
            yield shown.update

    try:
        found = measure(trained, dataset, run_dir, plan.config.measure, track)
    except (UserError, OSError):
        raise
    except Exception as error:  # for instance XLA's
        if not hosts.alone():  # the others would wait for this one
            raise
        raise UserError(f"{run_dir}: {in_one_line(error)}") from error
    _note_settings(run_dir, plan.config)
    return found


def _note_settings(run_dir: "Path", wanted: Config) -> None:
    """Writes the settings of the measures into `config.json`, so that later commands keep them."""
    from prunejax.runs.directory import rewrite_config
    from prunejax.training import hosts

    def note() -> None:
        config = load_config(run_dir)
        if hosts.is_first() and config.measure != wanted.measure:
            rewrite_config(run_dir, dataclasses.replace(config, measure=wanted.measure))

    hosts.on_all_processes(note)


if __name__ == "__main__":
    EXAMPLE = "python -m experiments.evaluate --workdir=runs/digits"
    cli.run(main, __doc__, EXAMPLE, ("workdir", "data_dir", "study", "set", *cli.HOSTS))
