"""When to prune: what pruning costs by the step at which it begins."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from prunejax.measures.statistics import seeds_for_trend, trend
from prunejax.report.comparison import (
    DIGITS,
    POWER,
    DenseAndPruned,
    dense_and_pruned,
    effect,
    even_chance,
    p_value,
)
from prunejax.report.noise import FLOOR, noise_floors
from prunejax.report.resamples import INTERVALS, Resamples, with_interval
from prunejax.report.study import (
    Study,
    compared_methods,
    experiment,
    method_of,
    percent,
    scope,
    sweeps,
    title,
)
from prunejax.report.table import NOTHING, Cell, Table
from prunejax.report.tables import sparsity_cell

SIGNIFICANT = 0.025
"""Of either direction of a trend: 5% of both."""


class Point(NamedTuple):
    """A sweep at one begin and one sparsity."""

    sweep: str
    sparsity: float
    begin: float
    """Of pruning, as a fraction of the first stage."""
    models: DenseAndPruned | str
    """Or why there are none."""


def points(study: Study) -> list[Point]:
    """Every sweep at every sparsity and begin, in ascending order of these."""
    found = []
    for name in sweeps(study):
        run = study[name]
        begins = run.begin_fractions
        for sparsity in run.levels:
            for place in np.argsort(begins, kind="stable").tolist():
                one_begin = {**study, name: run.begun(place)}
                models = dense_and_pruned(one_begin, name, sparsity)
                found.append(Point(name, sparsity, begins[place], models))
    return found


class Quantity(NamedTuple):
    """What is shown of a point: a value, and one to see it beside."""

    value: Cell
    beside: float
    """NaN if there is none."""


QUANTITIES = {
    "accuracy": "accuracy lost [points]",
    "pies": "PIEs",
    "q": "Q-Score",
    "depth": "prediction depth of PIEs [layers]",
}
"""What is shown of each point, by name, and how it is called."""
BESIDE = {
    "accuracy": "none lost",
    "pies": "noise floor",
    "q": "dense models",
    "depth": "other images",
}
"""What each of them is seen beside."""


def quantities(resamples: Resamples, models: DenseAndPruned, floor: float) -> dict[str, Quantity]:
    """All of `QUANTITIES`, over seeds.

    Args:
        resamples: of the study.
        models: dense and pruned.
        floor: PIEs by training noise alone.
    """
    found = {}
    for name, beside in (("accuracy", 0.0), ("pies", floor)):
        value, replicates, count = effect(name, resamples, models)
        cell = with_interval(value, replicates, DIGITS[name], count, -np.inf if beside == 0 else 0)
        found[name] = Quantity(cell, beside)
    found["q"] = _q(resamples, models)
    found["depth"] = _depth(resamples, models)
    return found


def _q(resamples: Resamples, models: DenseAndPruned) -> Quantity:
    dense, pruned = models
    if not (dense.has("mean_q") and pruned.has("mean_q")):
        return Quantity(Cell("not measured"), np.nan)
    values = pruned.values("mean_q")
    cell = with_interval(
        float(values.mean()), resamples.mean(pruned, values), DIGITS["q"], len(values)
    )
    return Quantity(cell, float(dense.values("mean_q").mean()))


def _depth(resamples: Resamples, models: DenseAndPruned) -> Quantity:
    """Over the probed models; the PIEs are held as they are."""
    pies = models.pruned.pies(models.dense)
    probed = models.pruned.only_measured("depth") if models.pruned.has("depth") else None
    if probed is None or not len(probed.seeds):
        return Quantity(Cell("not measured"), np.nan)
    depth = probed.values("depth")
    others = float(depth[:, ~pies].mean()) if not pies.all() else np.nan
    if not pies.any():
        return Quantity(Cell("no PIEs"), others)
    of_pies = depth[:, pies].mean(1)
    replicates = resamples.mean(probed, of_pies)
    cell = with_interval(float(of_pies.mean()), replicates, DIGITS["depth"], len(of_pies))
    return Quantity(cell, others)


def when_table(study: Study) -> Table:
    """A row for each begin: what pruning from there on costs, and against whom it is compared."""
    resamples = Resamples(study)
    floors = noise_floors(study)
    known = points(study)
    rows = []
    for point in known:
        start = [
            Cell(title(study, point.sweep)),
            sparsity_cell(study, point.sparsity),
            Cell(f"{100 * point.begin:.3g}", point.begin),
        ]
        if isinstance(point.models, str):
            rows.append([*start, Cell(point.models), *[NOTHING] * 6])
            continue
        floor = floors[point.sweep]
        found = quantities(resamples, point.models, floor.value)
        count = len(point.models.pruned.seeds)
        rows.append(
            [
                *start,
                Cell(str(count), count),
                found["accuracy"].value,
                _difference(study, resamples, known, point),
                found["pies"].value,
                floor,
                found["q"].value,
                _beside_others(found["depth"]),
            ]
        )
    a, b = compared_methods(study) or ("A", "B")
    header = ["Models", "Sparsity [%]", "Begin [% of the stage]", "n", "Accuracy lost [points]"]
    header += [f"{a} − {b}: lost [points]", "PIEs", "Noise floor [range]", "Q-Score"]
    header += ["Depth of PIEs [layers]"]
    heading = f"When to prune: by the begin of pruning, over {scope(study)}"
    return Table("when", heading, header, rows, f"95% {INTERVALS}. {FLOOR}; mean and range.")


def _beside_others(depth: Quantity) -> Cell:
    """The depth of PIEs, with that of other images."""
    if np.isnan(depth.beside):
        return depth.value
    others = f"others {depth.beside:.{DIGITS['depth']}f}"
    beside = ", ".join(filter(None, [depth.value.beside, others]))
    return depth.value._replace(beside=beside)


def _difference(study: Study, resamples: Resamples, known: list[Point], point: Point) -> Cell:
    """By how much more accuracy is lost than by the sweep that this is compared with."""
    against = experiment(study, point.sweep).against
    for other in known:
        same = (other.sweep, other.sparsity, other.begin) == (
            against,
            point.sparsity,
            point.begin,
        )
        if same and not isinstance(other.models, str) and not isinstance(point.models, str):
            value, replicates, count = effect("accuracy", resamples, point.models)
            less, less_replicates, less_count = effect("accuracy", resamples, other.models)
            return with_interval(
                value - less, replicates - less_replicates, 2, min(count, less_count)
            )
    return NOTHING


class Trend(NamedTuple):
    """Whether a sweep loses more accuracy the earlier its pruning begins."""

    sweep: str
    sparsity: float
    found: str
    """`yes`, `no` if it is the later that costs more, or `undecided`."""
    p: float
    """That of the direction that is found, or the smaller of both."""
    seeds: int
    """With a model at every begin."""
    begins: int
    lost: dict[float, float]
    """Accuracy points lost by the begin, over these seeds."""
    power: str
    """How many seeds may decide it; empty if it is decided, or there is no test."""


def trends(study: Study) -> list[Trend]:
    """Page's test over the begins of each sweep, a block for each seed."""
    found = []
    for name, sparsity, by_begin in _curves(study):
        seeds, lost = _lost_by_seed(by_begin)
        falls, rises = np.nan, np.nan
        if len(seeds):
            rises, falls = trend(lost)
        verdict = "undecided"
        if min(falls, rises) < SIGNIFICANT:
            verdict = "yes" if falls < rises else "no"
        power = ""
        if verdict == "undecided" and np.isfinite(falls):
            power = even_chance(seeds_for_trend(lost, SIGNIFICANT))
        means = lost.mean(0).tolist() if len(seeds) else [np.nan] * len(by_begin)
        found.append(
            Trend(
                sweep=name,
                sparsity=sparsity,
                found=verdict,
                p=float(min(falls, rises)),
                seeds=len(seeds),
                begins=len(by_begin),
                lost=dict(zip([point.begin for point in by_begin], means, strict=True)),
                power=power,
            )
        )
    return found


def _curves(study: Study) -> Iterator[tuple[str, float, list[Point]]]:
    """The points of each sweep at each sparsity, by begin."""
    known = points(study)
    for name in sweeps(study):
        for sparsity in study[name].levels:
            chosen = [point for point in known if point[:2] == (name, sparsity)]
            yield name, sparsity, chosen


def _lost_by_seed(by_begin: list[Point]) -> tuple[np.ndarray, np.ndarray]:
    """The seeds that have a dense model and a pruned one at every begin, and what each lost.

    Returns:
        `[seeds]`, and accuracy points `[seeds, begins]`.
    """
    cells = [point.models for point in by_begin if not isinstance(point.models, str)]
    if len(cells) < len(by_begin) or not cells:
        return np.zeros(0, int), np.zeros((0, len(by_begin)))
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
    """Whether each sweep loses more the earlier its pruning begins, and when it loses least."""
    rows = []
    for found in trends(study):
        row = [Cell(title(study, found.sweep)), sparsity_cell(study, found.sparsity)]
        row.append(Cell(found.found, beside=found.power))
        row += [p_value(found.p), Cell(str(found.seeds), found.seeds)]
        if found.seeds:
            cheapest = min(found.lost, key=found.lost.__getitem__)
            row.append(Cell(f"{100 * cheapest:.3g}", cheapest))
            row.append(Cell(f"{found.lost[cheapest]:.2f}", found.lost[cheapest]))
        else:
            row += [Cell("no seed has a model at every begin"), NOTHING]
        rows.append(row)
    header = ["Models", "Sparsity [%]", "Earlier pruning costs more", "p", "Seeds"]
    header += ["Loses least from [% of the stage]", "Accuracy lost then [points]"]
    heading = "Whether pruning costs the more accuracy the earlier it begins"
    note = (
        "Page's test of ordered begins, a block for each seed; p of the direction that is found, "
        f"which counts below {SIGNIFICANT}. `no`: later pruning costs more. {POWER}"
    )
    return Table("trend", heading, header, rows, note)


def when_sentence(study: Study, found: Trend) -> str:
    """Whether earlier pruning costs a method more, with the numbers behind it."""
    label = method_of(study, found.sweep).label
    level = f"at {percent(study, found.sparsity)}%"
    words = {"no": "no, later pruning does"}.get(found.found, found.found)
    text = f"Earlier pruning costs {label} more {level}: {words}. "
    if not found.seeds:
        return f"{text}No seed has a model at every begin."
    cheapest = min(found.lost, key=found.lost.__getitem__)
    told = []
    for begin in sorted({min(found.lost), cheapest, max(found.lost)}):
        told.append(f"{found.lost[begin]:.2f} points if it begins at {100 * begin:.3g}%")
    text += f"Accuracy lost: {', '.join(told)}; "
    if np.isnan(found.p):
        return f"{text}a test of the trend needs 2 seeds and 3 begins."
    p = p_value(found.p).text
    power = f"; {found.power}" if found.power else ""
    return (
        f"{text}Page's test over {found.begins} begins by {found.seeds} seeds: "
        f"p {p if p.startswith('<') else f'= {p}'}{power}."
    )
