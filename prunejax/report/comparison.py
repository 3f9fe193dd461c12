"""The study's question: what pruning costs one experiment more than another."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from prunejax.report.resamples import INTERVALS, Resamples, with_interval
from prunejax.report.statistics import jaccard, seeds_to_decide
from prunejax.report.study import (
    DenseAndPruned,
    Pair,
    Study,
    compared_methods,
    dense_and_pruned,
    pairs,
    pruned_levels,
    prunes,
    pruning_label,
    scope,
    title,
)
from prunejax.report.table import NOTHING, Cell, Table
from prunejax.report.tables import sparsity_cell

DIGITS = {"accuracy": 2, "pies": 0, "q": 3, "depth": 2}
"""The digits of each effect after the point."""
LEAST = {"pies": 0.0}
"""The least value of an effect, which bounds its interval; a difference has no such bound."""
POWER = (
    "Next to undecided results: the total number of seeds for 50% power to decide them, if the "
    "effect is as large as observed."
)
"""The note about undecided results."""


class Effect(NamedTuple):
    """The effect of pruning on a population, or the difference of two such effects."""

    value: float
    replicates: np.ndarray
    """`[resamples]`."""
    models: int
    """The number of models that it is computed from."""

    def less(self, other: "Effect") -> "Effect":
        """Returns the difference, with the number of models of the smaller population."""
        return Effect(
            self.value - other.value,
            self.replicates - other.replicates,
            min(self.models, other.models),
        )


UNKNOWN = Effect(np.nan, np.full(1, np.nan), 0)
"""The effect where nothing was measured; its one NaN broadcasts to any number of replicates."""


def effect(name: str, resamples: Resamples, models: DenseAndPruned) -> Effect:
    """The effect of pruning on a population.

    Args:
        name: `accuracy` (points lost), `q` (Q-Score lost), `pies` (their number) or `depth` (by
            how many layers a fixed set of PIEs is deeper than other images).
        resamples: of the study.
        models: dense and pruned.
    """
    dense, pruned = models
    if name == "pies":
        count = float(models.pies.sum())
        return Effect(count, resamples.pies(dense, pruned), models.fewest)
    if name == "depth":
        return _deeper(resamples, models)
    if name == "q":
        dense = dense.only_measured("mean_q")
        pruned = pruned.only_measured("mean_q")
        if dense is None or pruned is None:
            return UNKNOWN
        resamples = resamples.of_measured("mean_q")
        before = dense.values("mean_q")
        after = pruned.values("mean_q")
    else:
        before = 100 * dense.accuracy
        after = 100 * pruned.accuracy
    # Dense and pruned models of one seed are drawn together, so that shared variation cancels.
    replicates = resamples.mean(dense, before) - resamples.mean(pruned, after)
    value = float(before.mean() - after.mean())
    return Effect(value, replicates, DenseAndPruned(dense, pruned).fewest)


def effect_cell(name: str, found: Effect) -> Cell:
    """An effect of that name, with its 95% interval."""
    least = LEAST.get(name, -np.inf)
    return with_interval(found.value, found.replicates, DIGITS[name], found.models, least)


def difference_cell(name: str, found: Effect) -> Cell:
    """A difference of two effects of that name, with its 95% interval."""
    return with_interval(found.value, found.replicates, DIGITS[name], found.models)


def _deeper(resamples: Resamples, models: DenseAndPruned) -> Effect:
    """How much deeper PIEs are than other images, over the probed pruned models."""
    pies = models.pies
    probed = models.pruned.only_measured("depth")
    if probed is None or not pies.any() or pies.all():
        return UNKNOWN
    # The set of PIEs is fixed: only the probed models are resampled.
    depth = probed.values("depth")
    deeper = depth[:, pies].mean(1) - depth[:, ~pies].mean(1)
    replicates = resamples.of_measured("depth").mean(probed, deeper)
    return Effect(float(deeper.mean()), replicates, len(deeper))


class Compared(NamedTuple):
    """A row of `comparison`: what pruning costs two experiments at one sparsity."""

    pruning: Cell
    first: Cell
    second: Cell
    sparsity: Cell
    first_lost: Cell = NOTHING
    second_lost: Cell = NOTHING
    lost_difference: Cell = NOTHING
    first_pies: Cell = NOTHING
    second_pies: Cell = NOTHING
    pies_difference: Cell = NOTHING


def comparison(study: Study) -> Table:
    """What pruning costs the experiments that are compared, and the difference."""
    resamples = Resamples(study)
    rows = []
    for pair, sparsity, found in _compared_cells(study):
        start = _start(study, pair, sparsity)
        if isinstance(found, str):
            rows.append(Compared(*start, first_lost=Cell(found)))
            continue
        cells = []
        for name in ("accuracy", "pies"):
            first, second = (effect(name, resamples, models) for models in found)
            for each in (first, second):
                cells.append(Cell(f"{each.value:.{DIGITS[name]}f}", each.value))
            between = first.less(second)
            difference = difference_cell(name, between)
            power = power_of(difference, between.models)
            if power:
                difference = difference._replace(beside=f"undecided: {power}")
            cells.append(difference)
        rows.append(Compared(*start, *cells))

    # If all comparisons are between the same two methods, the headings name them.
    a, b = compared_methods(study) or ("A", "B")
    header = ["Pruning", a, b, "Sparsity [%]"]
    header += [f"{a}: accuracy lost [points]", f"{b}: accuracy lost [points]"]
    header += [f"{a} − {b}: accuracy lost [95%]"]
    header += [f"{a}: PIEs", f"{b}: PIEs", f"{a} − {b}: PIEs [95%]"]
    heading = f"What pruning costs {a}, against {b}"
    return Table("comparison", heading, header, rows, f"95% {INTERVALS}. {POWER}")


def _compared_cells(
    study: Study,
) -> Iterator[tuple[Pair, float, tuple[DenseAndPruned, DenseAndPruned] | str]]:
    """Each comparison at each sparsity: the populations of both, or why one is missing."""
    for pair in pairs(study):
        for sparsity in pruned_levels(study):
            first = dense_and_pruned(study, pair.first, sparsity)
            second = dense_and_pruned(study, pair.second, sparsity)
            lacking = [found for found in (first, second) if isinstance(found, str)]
            if isinstance(first, str) or isinstance(second, str):
                yield pair, sparsity, "; ".join(dict.fromkeys(lacking))
            else:
                yield pair, sparsity, (first, second)


def _start(study: Study, pair: Pair, sparsity: float) -> list[Cell]:
    """The first cells of a row: the ways of pruning, the titles of both, and the sparsity."""
    label = pruning_label(study, pair.first)
    second = pair.second
    if pair.second in study:
        second = title(study, pair.second)
        other_label = pruning_label(study, pair.second)
        # Sentences about two methods start with this label; others start with both titles.
        if compared_methods(study) is not None and other_label != label:
            label = f"{label} against {other_label}"
    return [
        Cell(label),
        Cell(title(study, pair.first)),
        Cell(second),
        sparsity_cell(study, sparsity),
    ]


def answer(study: Study, compared: Table) -> list[str]:
    """The answer to the study's question: a sentence for each comparison at one sparsity.

    Args:
        study: the measures.
        compared: its `comparison`; the sentences are about its sparsity nearest to 90%.
    """
    if not prunes(study):
        return ["Nothing is pruned here: the tables describe the dense models."]
    if not pairs(study):
        return [
            "Nothing is compared here: no experiment has a baseline. "
            "The tables show what pruning costs each."
        ]
    rows = answered(compared)
    if not rows:
        return ["Not answered here: no comparison has all its models; see the table below."]

    methods = compared_methods(study)
    sentences = []
    for row in rows:
        if methods is None:
            sentences.append(_generic_sentence(row))
        else:
            sentences.append(_sentence(row, *methods))
    return sentences


def answered(compared: Table) -> list[Compared]:
    """The rows of a `comparison` that have a difference, at their sparsity nearest to 90%."""
    # Rows of cells that lack models have no difference.
    rows = [row for row in compared.rows if isinstance(row, Compared)]
    rows = [row for row in rows if not np.isnan(row.lost_difference.value)]
    if not rows:
        return []
    level = min((row.sparsity.value for row in rows), key=lambda sparsity: abs(sparsity - 0.9))
    return [row for row in rows if row.sparsity.value == level]


def _sentence(row: Compared, first: str, second: str) -> str:
    """The result of a comparison, if all are between the same two methods."""
    found = verdict(row.lost_difference)
    if found == "no":
        found = f"no, {first} loses less"
    return (
        f"{row.pruning.text} at {row.sparsity.text}%: {found}. "
        f"Accuracy lost: {first} {row.first_lost.text}, {second} {row.second_lost.text} points, "
        f"difference {row.lost_difference.all}. "
        f"PIEs: {first} {row.first_pies.text}, {second} {row.second_pies.text}, "
        f"difference {row.pies_difference.all}."
    )


def _generic_sentence(row: Compared) -> str:
    first, second = row.first.text, row.second.text
    words = {
        "yes": f"{first} loses more than {second}",
        "no": f"{first} loses less than {second}",
        "undecided": f"it is undecided whether {first} or {second} loses more",
    }
    return (
        f"At {row.sparsity.text}% {words[verdict(row.lost_difference)]}. "
        f"Accuracy lost: {row.first_lost.text} against {row.second_lost.text} points, "
        f"difference {row.lost_difference.all}. "
        f"PIEs: {row.first_pies.text} against {row.second_pies.text}, "
        f"difference {row.pies_difference.all}."
    )


def verdict(cell: Cell, sign: int = 1) -> str:
    """Returns whether the value has this sign, by its interval: `yes`, `no` or `undecided`."""
    # A value without an interval decides nothing.
    low, high = cell.interval or (0.0, 0.0)
    if low <= 0 <= high:
        return "undecided"
    return "yes" if sign * cell.value > 0 else "no"


def power_of(cell: Cell, models: int, unit: str = "seeds") -> str:
    """Returns the text of how many seeds give 50% power to decide a sign; empty if it is decided.

    Args:
        cell: the value with its interval; without an interval the text is empty.
        models: the number of models that the value is computed from.
        unit: the noun for the number.
    """
    if cell.interval is None or verdict(cell) != "undecided":
        return ""
    return power_text(seeds_to_decide(cell.value, cell.interval, models), unit)


def power_text(seeds: int | None, unit: str = "seeds") -> str:
    """Returns the text of a number of seeds for 50% power; None is more than 1,000."""
    if seeds is None:
        return f"less than 50% power with 1,000 {unit}"
    return f"{seeds} {unit} for 50% power"


def overlap(study: Study) -> Table:
    """The PIEs that compared experiments share, as Jaccard index, and that by chance."""
    rows = []
    for pair, sparsity, found in _compared_cells(study):
        start = _start(study, pair, sparsity)
        if isinstance(found, str):
            rows.append([*start, Cell(found), *[NOTHING] * 5])
            continue
        first, second = (models.pies for models in found)
        # Symmetric except for the last bits of its sums: the order is that of committed tables.
        index, chance, p = jaccard(second, first)
        counts = [Cell(str(pies.sum()), float(pies.sum())) for pies in (first, second)]
        both = Cell(str((first & second).sum()), float((first & second).sum()))
        indices = [_index(value) for value in (index, chance)]
        rows.append([*start, *counts, both, *indices, p_value(p)])

    a, b = compared_methods(study) or ("A", "B")
    header = ["Pruning", a, b, "Sparsity [%]", f"{a} PIEs", f"{b} PIEs", "both"]
    header += ["Jaccard", "Jaccard by chance", "p (as many shared by chance)"]
    heading = f"PIEs that {a} and {b} share, among {scope(study)}"
    note = "By chance: what random sets of these sizes would share. p of each row by itself."
    return Table("overlap", heading, header, rows, note)


def _index(value: float) -> Cell:
    return Cell("no PIEs" if np.isnan(value) else f"{value:.2g}", value)


def p_value(p: float) -> Cell:
    """A p-value to three digits; `-` if there is none."""
    if np.isnan(p):
        return Cell("-", p)
    return Cell("< 0.001" if p < 0.001 else f"{p:.3f}", p)
