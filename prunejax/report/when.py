"""When to prune: the cost of pruning by its start step."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from prunejax.report.comparison import (
    DIGITS,
    POWER,
    difference_cell,
    effect,
    effect_cell,
    p_value,
    power_text,
)
from prunejax.report.noise import FLOOR, noise_floors
from prunejax.report.resamples import INTERVALS, Resamples, mean_with_interval
from prunejax.report.statistics import seeds_for_trend, trend
from prunejax.report.study import (
    DenseAndPruned,
    Study,
    Sweep,
    compared_methods,
    dense_and_pruned,
    experiment,
    percent,
    pruned_levels,
    scope,
    sweep_label,
    sweeps,
)
from prunejax.report.table import NOTHING, Cell, Table
from prunejax.report.tables import sparsity_cell

SIGNIFICANT = 0.025
"""The level of either direction of a trend: 5% of both."""


class Point(NamedTuple):
    """A sweep at one start and one sparsity."""

    sweep: Sweep
    sparsity: float
    start: float
    """The start of pruning, as a fraction of the first stage."""
    models: DenseAndPruned | str
    """The models, or the reason why there are none."""

    @property
    def experiment(self) -> str:
        """The name of its experiment."""
        return self.sweep.runs[self.start]


def points(study: Study) -> list[Point]:
    """Every sweep at every sparsity above 0 and every start, both ascending."""
    found = []
    for sweep in sweeps(study):
        for sparsity in pruned_levels({name: study[name] for name in sweep.runs.values()}):
            for start, name in sweep.runs.items():
                models = dense_and_pruned(study, name, sparsity)
                found.append(Point(sweep, sparsity, start, models))
    return found


class Quantity(NamedTuple):
    """A value at a point, and a reference value."""

    value: Cell
    beside: float
    """The reference value; NaN if there is none."""


QUANTITIES = {
    "accuracy": "accuracy lost [points]",
    "pies": "PIEs",
    "q": "Q-Score",
    "depth": "depth of PIEs [layers]",
}
"""The quantities at each point, by name, and their labels."""
BESIDE = {
    "accuracy": "none lost",
    "pies": "noise floor",
    "q": "dense models",
    "depth": "other images",
}
"""The reference value of each quantity, as text."""


def quantities(resamples: Resamples, models: DenseAndPruned, floor: float) -> dict[str, Quantity]:
    """All of `QUANTITIES`, over seeds.

    Args:
        resamples: of the study.
        models: dense and pruned.
        floor: the PIEs by training noise alone.
    """
    found = {}
    for name, beside in (("accuracy", 0.0), ("pies", floor)):
        found[name] = Quantity(effect_cell(name, effect(name, resamples, models)), beside)
    found["q"] = _q(resamples, models)
    found["depth"] = _depth(resamples, models)
    return found


def _q(resamples: Resamples, models: DenseAndPruned) -> Quantity:
    dense = models.dense.only_measured("mean_q")
    pruned = models.pruned.only_measured("mean_q")
    of_dense = np.nan if dense is None else float(dense.values("mean_q").mean())
    if pruned is None:
        return Quantity(Cell("not measured"), of_dense)
    resamples = resamples.of_measured("mean_q")
    cell = mean_with_interval(resamples, pruned, pruned.values("mean_q"), DIGITS["q"])
    return Quantity(cell, of_dense)


def _depth(resamples: Resamples, models: DenseAndPruned) -> Quantity:
    """The depth of PIEs over the probed models; the set of PIEs is fixed."""
    pies = models.pies
    probed = models.pruned.only_measured("depth")
    if probed is None:
        return Quantity(Cell("not measured"), np.nan)
    depth = probed.values("depth")
    others = float(depth[:, ~pies].mean()) if not pies.all() else np.nan
    if not pies.any():
        return Quantity(Cell("no PIEs"), others)
    of_pies = depth[:, pies].mean(1)
    resamples = resamples.of_measured("depth")
    return Quantity(mean_with_interval(resamples, probed, of_pies, DIGITS["depth"]), others)


def when_table(study: Study) -> Table:
    """A row for each start: the cost of pruning, and its difference from the baseline."""
    resamples = Resamples(study)
    floors = noise_floors(study)
    known = points(study)
    by_experiment = {(point.experiment, point.sparsity): point.models for point in known}
    differences = [_difference(study, resamples, by_experiment, point) for point in known]
    # Sweeps without a baseline have no column for the difference.
    compared = any(difference is not NOTHING for difference in differences)
    rows = []
    for point, difference in zip(known, differences, strict=True):
        start = [
            Cell(point.sweep.label),
            sparsity_cell(study, point.sparsity),
            Cell(f"{100 * point.start:.3g}", point.start),
        ]
        if isinstance(point.models, str):
            rows.append([*start, Cell(point.models), *[NOTHING] * (5 + compared)])
            continue
        floor = floors[point.experiment]
        found = quantities(resamples, point.models, floor.value)
        count = len(point.models.pruned.seeds)
        rows.append(
            [
                *start,
                Cell(str(count), count),
                found["accuracy"].value,
                *[difference] * compared,
                found["pies"].value,
                floor,
                found["q"].value,
                _beside_others(found["depth"]),
            ]
        )
    methods = compared_methods(study)
    between = f"{methods[0]} − {methods[1]}: lost" if methods else "Lost more than its baseline"
    header = ["Models", "Sparsity [%]", "Start [% of the stage]", "n", "Accuracy lost [points]"]
    header += [f"{between} [points]"] * compared
    header += ["PIEs", "Noise floor [range]", "Q-Score", "Depth of PIEs [layers]"]
    heading = f"When to prune: by the start of pruning, over {scope(study)}"
    return Table("when", heading, header, rows, f"95% {INTERVALS}. {FLOOR} Shown: mean and range.")


def _beside_others(depth: Quantity) -> Cell:
    """The depth of PIEs, with that of other images."""
    if np.isnan(depth.beside):
        return depth.value
    others = f"others {depth.beside:.{DIGITS['depth']}f}"
    beside = ", ".join(filter(None, [depth.value.beside, others]))
    return depth.value._replace(beside=beside)


def _difference(
    study: Study,
    resamples: Resamples,
    known: Mapping[tuple[str, float], DenseAndPruned | str],
    point: Point,
) -> Cell:
    """The accuracy lost, minus that of the baseline.

    Args:
        study: the measures.
        resamples: of the study.
        known: the models of each point, by its experiment and sparsity.
        point: the point.
    """
    baseline = experiment(study, point.experiment).baseline
    others = known.get((baseline, point.sparsity)) if baseline is not None else None
    if not isinstance(others, DenseAndPruned) or not isinstance(point.models, DenseAndPruned):
        return NOTHING
    lost = effect("accuracy", resamples, point.models)
    return difference_cell("accuracy", lost.less(effect("accuracy", resamples, others)))


class Trend(NamedTuple):
    """Whether a sweep loses more accuracy with earlier pruning."""

    sweep: Sweep
    sparsity: float
    found: str
    """`yes`, `no` if later pruning costs more, or `undecided`."""
    p: float
    """The p-value of the direction found, or the smaller one of both."""
    seeds: int
    """The number of seeds with a model at every start."""
    starts: int
    """The number of starts."""
    lost: dict[float, float]
    """The mean of accuracy points lost over these seeds, by start."""
    power: str
    """The text of the seeds for 50% power; empty if the trend is decided or not tested."""

    @property
    def cheapest(self) -> float:
        """The start at which pruning costs least; NaN if no seed has all starts."""
        known = [start for start, lost in self.lost.items() if not np.isnan(lost)]
        return min(known, key=self.lost.__getitem__) if known else np.nan


def trends(study: Study) -> list[Trend]:
    """Page's test over the starts of each sweep, a block for each seed."""
    curves: dict[tuple[str, float], list[Point]] = {}
    for point in points(study):
        curves.setdefault((point.sweep.first, point.sparsity), []).append(point)
    return [_trend(by_start) for by_start in curves.values()]


def _trend(by_start: list[Point]) -> Trend:
    seeds, lost = _lost_by_seed(by_start)
    sweep, sparsity = by_start[0].sweep, by_start[0].sparsity
    starts = [point.start for point in by_start]
    if not len(seeds):
        nothing = dict.fromkeys(starts, np.nan)
        return Trend(sweep, sparsity, "undecided", np.nan, 0, len(starts), nothing, power="")
    rises, falls = trend(lost)
    found, power = "undecided", ""
    if min(falls, rises) < SIGNIFICANT:
        found = "yes" if falls < rises else "no"
    elif np.isfinite(falls):
        power = power_text(seeds_for_trend(lost, SIGNIFICANT))
    means = dict(zip(starts, lost.mean(0).tolist(), strict=True))
    p = float(min(falls, rises))
    return Trend(sweep, sparsity, found, p, len(seeds), len(starts), means, power)


def _lost_by_seed(by_start: list[Point]) -> tuple[np.ndarray, np.ndarray]:
    """The seeds with a dense model and a pruned one at every start, and their loss of accuracy.

    Returns:
        `[seeds]`, and accuracy points `[seeds, starts]`.
    """
    cells = [point.models for point in by_start if not isinstance(point.models, str)]
    if len(cells) < len(by_start) or not cells:
        return np.zeros(0, int), np.zeros((0, len(by_start)))
    seeds = cells[0].dense.seeds
    for models in cells:
        seeds = np.intersect1d(seeds, models.pruned.seeds)
    columns = []
    for dense, pruned in cells:
        before = dense.accuracy[np.searchsorted(dense.seeds, seeds)]
        after = pruned.accuracy[np.searchsorted(pruned.seeds, seeds)]
        columns.append(100 * (before - after))
    return seeds, np.stack(columns, 1)


def trend_table(study: Study) -> Table:
    """Whether each sweep loses more with earlier pruning, and its best start."""
    rows = []
    for found in trends(study):
        row = [Cell(found.sweep.label), sparsity_cell(study, found.sparsity)]
        row.append(Cell(found.found, beside=found.power))
        row += [p_value(found.p), Cell(str(found.seeds), found.seeds)]
        if found.seeds:
            lost = found.lost[found.cheapest]
            row.append(Cell(f"{100 * found.cheapest:.3g}", found.cheapest))
            row.append(Cell(f"{lost:.2f}", lost))
        else:
            row += [Cell("no seed has a model at every start"), NOTHING]
        rows.append(row)
    header = ["Models", "Sparsity [%]", "Earlier pruning costs more", "p", "Seeds"]
    header += ["Best start [% of the stage]", "Accuracy lost at best start [points]"]
    heading = "Whether earlier pruning costs more accuracy"
    note = (
        "Page's test of ordered starts, a block for each seed; p of the direction found, "
        f"significant below {SIGNIFICANT}. `no`: later pruning costs more. Both describe the "
        f"overall trend: a curve may fall and then rise. {POWER}"
    )
    return Table("trend", heading, header, rows, note)


def when_sentence(study: Study, found: Trend) -> str:
    """The sentence on whether earlier pruning costs a method more, with its numbers."""
    label = sweep_label(study, found.sweep)
    words = {
        "yes": f"earlier pruning costs {label} more",
        "no": f"later pruning costs {label} more",
        "undecided": f"it is undecided whether earlier or later pruning costs {label} more",
    }
    way = words[found.found]
    # A curve may fall and then rise, whatever its overall trend.
    inside = min(found.lost) < found.cheapest < max(found.lost)
    if inside and found.found != "undecided":
        way = f"{way} overall; the best start is {100 * found.cheapest:.3g}%"
    text = f"At {percent(study, found.sparsity)}% {way}. "
    if not found.seeds:
        return f"{text}No seed has a model at every start."
    losses = []
    for start in sorted({min(found.lost), found.cheapest, max(found.lost)}):
        losses.append(f"{found.lost[start]:.2f} points if it starts at {100 * start:.3g}%")
    text += f"Accuracy lost: {', '.join(losses)} of the first stage; "
    if np.isnan(found.p):
        return f"{text}a test of the trend needs 2 seeds and 3 starts."
    p = p_value(found.p).text
    power = f"; {found.power}" if found.power else ""
    return (
        f"{text}Page's test over {found.starts} starts by {found.seeds} seeds: "
        f"p {p if p.startswith('<') else f'= {p}'}{power}."
    )
