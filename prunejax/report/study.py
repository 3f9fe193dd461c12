"""Queries of a study: its methods and experiments, their titles, and what is compared.

All of it comes from the configurations of its runs; nothing is inferred from a name.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from prunejax.config import Config, Experiment, MeasureSettings
from prunejax.config import levels as config_levels
from prunejax.config.counts import counted
from prunejax.config.files import RUNTIME
from prunejax.measures import RunMeasures

Study = Mapping[str, RunMeasures]
"""The measures of each run by the name of its experiment, in the order of tables and figures."""
STAGE_TITLES = {"head": "linear head", "finetune": "fine-tuning"}
"""The titles of stages after a method's own first one."""


class Shown(NamedTuple):
    """A training method as tables and figures show it."""

    name: str
    """The key in `methods.METHODS`, for instance `supcon`."""
    label: str
    """The label, for instance `SCL`; no two methods of a study have the same."""
    colour: str
    """The colour of its plug-in; see `figures.style.colours`."""


class Pair(NamedTuple):
    """Two pruned experiments that are compared, by name."""

    first: str
    second: str
    """The one that `first` is compared with; it may be missing in the study."""


class Sweep(NamedTuple):
    """Experiments that differ only in the start step of pruning."""

    label: str
    """The title of the experiments without a start, for instance `SCL / GMP by start`."""
    runs: dict[float, str]
    """The name of each experiment by its start, a fraction of the first stage, ascending."""

    @property
    def first(self) -> str:
        """The experiment of the earliest start."""
        return next(iter(self.runs.values()))


def experiment(study: Study, name: str) -> Experiment:
    """The settings that define an experiment of the study."""
    return study[name].config.experiment


def is_dense(study: Study, name: str) -> bool:
    """Whether an experiment prunes nothing."""
    return experiment(study, name).pruning is None


def is_in_sweep(study: Study, name: str) -> bool:
    """Whether an experiment has its own start step of pruning."""
    return study[name].start_fraction is not None


def sweeps(study: Study) -> list[Sweep]:
    """The sweeps over start steps, in the order of their first experiments."""
    groups: dict[Config, dict[float, str]] = {}
    for name, run in study.items():
        start = run.start_fraction
        if start is not None:
            groups.setdefault(_without_start(run.config), {})[start] = name
    found = []
    for runs in groups.values():
        in_order = dict(sorted(runs.items()))
        found.append(Sweep(_sweep_title(study, next(iter(in_order.values()))), in_order))
    # Two of the same title are distinguished by the names of their first experiments.
    titles = Counter(sweep.label for sweep in found)
    return [
        sweep._replace(label=f"{sweep.label} ({sweep.first})") if titles[sweep.label] > 1 else sweep
        for sweep in found
    ]


def _without_start(config: Config) -> Config:
    """The result-defining settings of an experiment without its name and its start step."""
    pruning = config.experiment.pruning
    experiment = dataclasses.replace(
        config.experiment,
        name="",
        baseline=None,
        pruning=pruning and dataclasses.replace(pruning, start=None),
    )
    runtime = {field: getattr(Config(), field) for field in RUNTIME}
    return dataclasses.replace(config, experiment=experiment, **runtime)


def _sweep_title(study: Study, name: str) -> str:
    return f"{method_of(study, name).label} / {experiment(study, name).label}"


def sweep_label(study: Study, sweep: Sweep) -> str:
    """The short name of a sweep: its method, or its full label if two are of one method."""
    label = method_of(study, sweep.first).label
    same = [other for other in sweeps(study) if method_of(study, other.first).label == label]
    return sweep.label if len(same) > 1 else label


def without_sweeps(study: Study) -> Study:
    """The study without the experiments of sweeps."""
    return {name: run for name, run in study.items() if not is_in_sweep(study, name)}


def dense_experiments(study: Study) -> list[str]:
    """Those that prune nothing, in order."""
    return [name for name in study if is_dense(study, name)]


def pruned_experiments(study: Study) -> list[str]:
    """Those that prune, in order."""
    return [name for name in study if not is_dense(study, name)]


def shown_experiments(study: Study) -> list[str]:
    """The experiments with their own column, which starts with the dense models.

    The pruned experiments, and the dense ones of which the study has no pruned one.
    """
    # Dense models are the first row of their pruned experiments' columns.
    parents = {experiment(study, name).dense_parent for name in pruned_experiments(study)}
    alone = [name for name in dense_experiments(study) if name not in parents]
    return [*pruned_experiments(study), *alone]


def methods(study: Study) -> list[Shown]:
    """The training methods in order of first use."""
    # Runs of one method should have the same display settings; if not, those of the first count.
    first_run: dict[str, RunMeasures] = {}
    for run in study.values():
        first_run.setdefault(run.config.experiment.method, run)

    # Two methods may have the same label: then their names distinguish them.
    labels = {name: run.config.display.label or name for name, run in first_run.items()}
    known = Counter(labels.values())
    found = []
    for name, run in first_run.items():
        label = labels[name]
        if known[label] > 1:
            label = f"{label} ({name})"
        found.append(Shown(name, label, run.config.display.colour))
    return found


def method_of(study: Study, name: str) -> Shown:
    """The method of an experiment."""
    method_name = experiment(study, name).method
    return next(method for method in methods(study) if method.name == method_name)


def pruning_label(study: Study, name: str) -> str:
    """The label of the way of pruning, for instance `GMP`."""
    label = experiment(study, name).label
    # `dense` is the default of the field: a pruned experiment that has it was given no label.
    unnamed = label in ("", Experiment().label)
    if unnamed and not is_dense(study, name):
        return name
    start = study[name].start_fraction
    return label if start is None else f"{label}, from {100 * start:.3g}%"


def title(study: Study, name: str) -> str:
    """The title of an experiment, for instance `SCL / GMP` or `Sup, dense`; no two are equal."""
    # For instance two learning rates of one method: their names distinguish them.
    same = [other for other in study if _plain_title(study, other) == _plain_title(study, name)]
    return _plain_title(study, name) + (f" ({name})" if len(same) > 1 else "")


def _plain_title(study: Study, name: str) -> str:
    between = ", " if is_dense(study, name) else " / "
    return method_of(study, name).label + between + pruning_label(study, name)


def cell_title(study: Study, name: str, sparsity: float) -> str:
    """The title of one cell, for instance `SCL / GMP, 90%`, or `SCL, dense` at sparsity 0."""
    if sparsity:
        return f"{title(study, name)}, {percent(study, sparsity)}%"
    # Dense models that were not run have the title that they would have by default.
    holder = holder_of(study, name, sparsity)
    if holder is not None and holder in study:
        return title(study, holder)
    return f"{method_of(study, name).label}, {Experiment().label}"


def stage_title(stage: str) -> str:
    """The title of a stage after a method's first one."""
    return STAGE_TITLES.get(stage, stage.replace("_", " "))


def levels(study: Study) -> list[float]:
    """All sparsities of a study, ascending."""
    return sorted({level for run in study.values() for level in run.levels})


def pruned_levels(study: Study) -> list[float]:
    """All sparsities of a study but 0, ascending."""
    return [level for level in levels(study) if level]


def prunes(study: Study) -> bool:
    """Whether anything is pruned."""
    return bool(pruned_experiments(study) and pruned_levels(study))


def headline(study: Study) -> float:
    """The sparsity nearest to 90%, at which the paper compares."""
    return min(levels(study), key=lambda level: abs(level - 0.9))


def percent(study: Study, sparsity: float) -> str:
    """A sparsity in %, in the fewest digits, at least 3, that differ from the study's others."""
    return config_levels.percent(sparsity, levels(study))


def holder_of(study: Study, name: str, sparsity: float) -> str | None:
    """The experiment that holds a cell: of sparsity 0 the dense one, which may be missing."""
    if sparsity or is_dense(study, name):
        return name
    return experiment(study, name).dense_parent


def at(study: Study, name: str, sparsity: float) -> RunMeasures | None:
    """The models of one cell, or None if there are none; at sparsity 0 they are the dense ones."""
    run = study.get(holder_of(study, name, sparsity) or "")
    if run is None or sparsity not in run.levels:
        return None
    models = run.at(sparsity)
    return models if len(models.seeds) else None


def why_not(study: Study, name: str, sparsity: float) -> str:
    """Why `at` returns None."""
    run = study.get(holder_of(study, name, sparsity) or "")
    if run is None or sparsity not in run.levels:
        return "not run"
    return f"0 of {counted(run.trained(sparsity), 'model')}"


class DenseAndPruned(NamedTuple):
    """The two populations that are compared to see what pruning does."""

    dense: RunMeasures
    pruned: RunMeasures

    @property
    def pies(self) -> np.ndarray:
        """Which test images are PIEs, bool `[examples]`."""
        return self.pruned.pies(self.dense)

    @property
    def fewest(self) -> int:
        """The number of models of the smaller population, which limits the precision of both."""
        return min(len(self.dense.seeds), len(self.pruned.seeds))


def dense_and_pruned(study: Study, name: str, sparsity: float) -> DenseAndPruned | str:
    """Both cells of an experiment, or why one is missing."""
    if not sparsity:
        return "nothing is pruned"
    if name not in study:
        return f"{name}: not run"
    # Both are named if both are missing.
    missing = []
    for level in (0.0, sparsity):
        if at(study, name, level) is None:
            missing.append(f"{cell_title(study, name, level)}: {why_not(study, name, level)}")
    dense = at(study, name, 0.0)
    pruned = at(study, name, sparsity)
    if dense is None or pruned is None:
        return "; ".join(missing)
    return DenseAndPruned(dense, pruned)


def trained(study: Study, name: str, sparsity: float) -> int:
    """How many models of a cell were trained, including those that failed."""
    holder = holder_of(study, name, sparsity)
    run = study.get(holder or "")
    return run.trained(sparsity) if run is not None else 0


def pairs(study: Study) -> list[Pair]:
    """The comparisons of experiments with their baselines, in order."""
    found = []
    for name in pruned_experiments(study):
        other = experiment(study, name).baseline
        if other is not None:
            found.append(Pair(name, other))
    return found


def partner(study: Study, name: str) -> str | None:
    """The experiment with PIEs that are shown together with this one's.

    It is the baseline of this experiment, or else the first experiment that has this one as its
    baseline, preferably of another method.
    """
    # Another method is preferred: PIEs that methods share are the more interesting ones.
    baseline = experiment(study, name).baseline
    if baseline in study:
        return baseline
    others = [pair.first for pair in pairs(study) if pair.second == name]
    of_other_methods = [
        other for other in others if method_of(study, other) != method_of(study, name)
    ]
    return next(iter([*of_other_methods, *others]), None)


def compared_methods(study: Study) -> tuple[str, str] | None:
    """The labels of the first and the second method, if all comparisons are between these two."""
    found = set()
    for pair in pairs(study):
        # A comparison with a missing experiment makes no claim about methods.
        if pair.second in study:
            found.add((method_of(study, pair.first).label, method_of(study, pair.second).label))
    if len(found) != 1:
        return None
    first, second = found.pop()
    return (first, second) if first != second else None


def question(study: Study) -> str:
    """The question of the study."""
    compared = compared_methods(study)
    if compared is None:
        return "What does pruning destroy?"
    return f"Does pruning hurt {compared[0]} more than {compared[1]}?"


def scope(study: Study) -> str:
    """The test images that counts refer to, for instance `10,000 test images`."""
    return f"{len(next(iter(study.values())).labels):,} test images"


def seeds_a_cell(study: Study) -> str:
    """How many seeds were trained: `5 seeds a cell`; `4 to 5` where runs differ."""
    return _a_cell([run.config.models for run in study.values()], "seed")


def measured_models(study: Study, array: str) -> str:
    """For how many models an array was measured: `2 models a cell`; `1 to 2` where cells differ."""
    counts = [measured for measured, _ in _measured_of_each(study, array)] or [0]
    return _a_cell(counts, "model")


def _a_cell(counts: list[int], noun: str) -> str:
    """How many of something the cells have, as a number or its range."""
    low, high = min(counts), max(counts)
    lowest = "" if low == high else f"{low} to "
    return f"{lowest}{counted(high, noun)} a cell"


def of_all_models(study: Study, array: str) -> bool:
    """Whether no cell for which an array was measured has models for which it was not."""
    return all(measured == total for measured, total in _measured_of_each(study, array))


def _measured_of_each(study: Study, array: str) -> list[tuple[int, int]]:
    """The numbers of measured and of all models, of each cell with models that have an array."""
    found = []
    for run in study.values():
        for level in run.levels:
            cell = run.at(level)
            measured = cell.only_measured(array)
            if measured is not None:
                found.append((len(measured.seeds), len(cell.seeds)))
    return found


def settings_of(study: Study, array: str) -> MeasureSettings:
    """The settings that an array was measured with; those of the first run if none has it."""
    holders = [run for run in study.values() if run.has(array)]
    return next(iter([*holders, *study.values()])).config.measure
