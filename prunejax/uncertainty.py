"""Measures -> the tables that the paper lacks: intervals, the noise floor, tests; each a function of a study."""

from collections.abc import Iterator

import numpy as np

from prunejax import metrics
from prunejax.evaluate import Measures
from prunejax.tables import (
    METHODS,
    NAMES,
    PAIRS,
    Cell,
    Study,
    Table,
    at,
    cell_title,
    levels,
    percent,
    probed,
    scope,
    splits,
    why_not,
)

INTERVALS = "bootstrap intervals over seeds, widened by Student's t for few; wide for PIEs of few seeds"


class Resamples:
    """Bootstrap replicates of a study: all cells are resampled by the same draws of seeds, so that pairs stay pairs."""

    def __init__(self, study: Study) -> None:
        self.seeds = np.unique(np.concatenate([run.seeds for run in study.values()]))
        self.weights = metrics.bootstrap_weights(len(self.seeds))

    def of(self, models: Measures) -> np.ndarray:
        """Each model's weight in each resample, `[resamples, models]`."""
        return self.weights[:, np.searchsorted(self.seeds, models.seeds)]

    def mean(self, models: Measures, values: np.ndarray) -> np.ndarray:
        """Replicates of the mean of `values [models]`; NaN where a resample drew none of these models."""
        weights = self.of(models)
        total = weights.sum(1)
        return np.where(total > 0, weights @ values / np.maximum(total, 1), np.nan)

    def pies(self, dense: Measures, pruned: Measures) -> np.ndarray:
        """Replicates of the number of PIEs; NaN as in `mean`."""
        weights, classes = (self.of(dense), self.of(pruned)), len(dense.class_names)
        counts = metrics.pie_counts(dense.predictions, pruned.predictions, *weights, classes)
        return np.where(weights[0].any(1) & weights[1].any(1), counts, np.nan)


def _with_interval(estimate: float, replicates: np.ndarray, digits: int, models: int, least: float = -np.inf) -> Cell:
    text = f"{estimate:.{digits}f}"
    if models < 2:
        return Cell(text, estimate, "an interval needs 2 models")
    low, high = (max(end, least) for end in metrics.interval(estimate, replicates[np.isfinite(replicates)], models))
    return Cell(f"{text} [{low:.{digits}f}, {high:.{digits}f}]", estimate, interval=(low, high))


def intervals(study: Study) -> Table:
    """Accuracy, PIEs, Q-Score, depth and k-NN purity of every cell, with 95% bootstrap intervals over seeds."""
    resamples, rows = Resamples(study), []
    titles = {f"{kind}_dense": f"{name}, dense" for kind, name in NAMES.items()} | METHODS
    floors = {kind: _floor(at(study, f"{kind}_dense", 0.0)) for kind in NAMES}
    cells = [(name, level) for name in titles if name in study for level in study[name].levels]
    for run, sparsity in cells:
        if not sparsity and run in METHODS:
            continue  # sparsity 0 is the dense run's
        models = at(study, run, sparsity)
        if models is None:
            rows.append([Cell(titles[run]), percent(sparsity), *[why_not(study, run, sparsity)] * 7])
            continue

        def mean(part: Measures, values: np.ndarray, digits: int) -> Cell:
            if not len(values):
                return Cell("not probed")
            return _with_interval(float(values.mean()), resamples.mean(part, values), digits, len(values))

        trained, probes = study[run].trained(sparsity), models.probed
        excluded = f"of {trained}; the others diverged or collapsed" if len(models.seeds) < trained else ""
        accuracy, q = mean(models, 100 * models.accuracy, 2), mean(models, models.q.mean(1), 3)
        depth, purity = mean(probes, probes.depth.mean(1), 2), mean(probes, 100 * probes.purity, 1)
        count = Cell(str(len(models.seeds)), len(models.seeds), excluded)
        row = [Cell(titles[run]), percent(sparsity), count, accuracy, _pies(resamples, at(study, run, 0.0), models)]
        rows.append([*row, floors[run[:3]], q, depth, purity])
    header = ["Models", "Sparsity [%]", "n", "Accuracy [%]", "PIEs", "Noise floor [range]", "Q-Score", "Depth"]
    title = (
        f"Every cell, over {scope(study)}, with 95% {INTERVALS}. Noise floor: PIEs between disjoint "
        f"halves of the dense models, mean and range of 100 splits. Depth and purity: over {probed(study)}"
    )
    return Table("intervals", title, [*header, "k-NN purity [%]"], rows)


def _floor(dense: Measures | None) -> Cell:
    counts = splits(dense) if dense is not None else np.empty(0)
    if not counts.size:
        return Cell("needs 2 dense models")
    return Cell(f"{counts.mean():.0f} [{counts.min()}, {counts.max()}]", float(counts.mean()))


def _pies(resamples: Resamples, dense: Measures | None, models: Measures) -> Cell:
    if dense is None or not models.sparsities.any():
        return Cell("no dense run" if dense is None else "-")
    found, few = float(models.pies(dense).sum()), min(len(dense.seeds), len(models.seeds))
    return _with_interval(found, resamples.pies(dense, models), 0, few, least=0.0)


def _pairs(study: Study) -> Iterator[tuple[list[Cell], list[tuple[Measures, Measures]]]]:
    """Yields each comparison's first cells, and (dense, pruned) of Sup and SCL; where one lacks, a row and none."""
    for name, pair in PAIRS.items():
        for sparsity in filter(None, levels(study)):
            row = [Cell(name), percent(sparsity)]
            cells = {(method, level): at(study, method, level) for method in pair for level in (0.0, sparsity)}
            lacking = [cell for cell, models in cells.items() if models is None]
            found = [models for models in cells.values() if models is not None]
            if lacking:
                why = "; ".join(f"{cell_title(*cell)}: {why_not(study, *cell).text}" for cell in lacking)
                yield [*row, Cell(why), *[Cell("-")] * 5], []
            else:
                yield row, [(found[0], found[1]), (found[2], found[3])]


def comparison(study: Study) -> Table:
    """What pruning costs Sup and SCL, and the difference with 95% bootstrap intervals: the study's question."""
    resamples, rows = Resamples(study), []
    for row, pairs in _pairs(study):
        if not pairs:
            rows.append(row)
            continue
        models = min(len(cell.seeds) for pair in pairs for cell in pair)
        lost = [float(100 * (dense.accuracy.mean() - pruned.accuracy.mean())) for dense, pruned in pairs]
        means = [[resamples.mean(models, 100 * models.accuracy) for models in pair] for pair in pairs]
        lost_again = [dense - pruned for dense, pruned in means]
        pies = [float(pruned.pies(dense).sum()) for dense, pruned in pairs]
        pies_again = [resamples.pies(dense, pruned) for dense, pruned in pairs]
        for (sup, scl), (sup_again, scl_again), digits in ((lost, lost_again, 2), (pies, pies_again, 0)):
            row += [Cell(f"{value:.{digits}f}", value) for value in (sup, scl)]
            row.append(_with_interval(scl - sup, scl_again - sup_again, digits, models))
        rows.append(row)
    header = ["Pruning", "Sparsity [%]", "Sup: accuracy lost [points]", "SCL: accuracy lost [points]"]
    header += ["SCL − Sup [95%]", "Sup: PIEs", "SCL: PIEs", "SCL − Sup PIEs [95%]"]
    title = f"What pruning costs, SCL against Sup. Δ GMP is compared with Sup / GMP. 95% {INTERVALS}"
    return Table("comparison", title, header, rows)


def answer(comparison: Table) -> list[str]:
    """The study's question answered, a sentence for each pruning method at the compared sparsity nearest to 90%."""
    compared = [row for row in comparison.rows if not np.isnan(row[4].value)]
    if not compared:
        return ["Not answered here: no pruning method has its models for both Sup and SCL; see the table below."]
    level = min((row[1].value for row in compared), key=lambda sparsity: abs(sparsity - 0.9))
    sentences = []
    for name, sparsity, sup, scl, more, sup_pies, scl_pies, more_pies in compared:
        if sparsity.value == level:
            verdict = "undecided"
            if more.interval and not more.interval[0] <= 0 <= more.interval[1]:
                verdict = "yes" if more.value > 0 else "no, SCL loses less"
            sentences.append(
                f"{name.text} at {sparsity.text}%: {verdict}. Accuracy lost: SCL {scl.text}, Sup {sup.text} points, "
                f"difference {more.all}. PIEs: SCL {scl_pies.text}, Sup {sup_pies.text}, "
                f"difference {more_pies.all}."
            )
    return sentences


def overlap(study: Study) -> Table:
    """PIEs that Sup and SCL share, as Jaccard index, against what chance would give."""
    rows = []
    for row, pairs in _pairs(study):
        if not pairs:
            rows.append(row)
            continue
        sup, scl = (pruned.pies(dense) for dense, pruned in pairs)
        index, chance, p = metrics.jaccard(sup, scl)
        row += [Cell(str(found.sum()), float(found.sum())) for found in (sup, scl, sup & scl)]
        row += [Cell("no PIEs" if np.isnan(value) else f"{value:.2g}", value) for value in (index, chance)]
        rows.append([*row, _p_value(p)])
    header = ["Pruning", "Sparsity [%]", "Sup PIEs", "SCL PIEs", "both", "Jaccard", "Jaccard by chance", "p of as many"]
    title = f"PIEs that Sup and SCL share, among {scope(study)}, and what random sets of these sizes would share"
    return Table("overlap", title, header, rows)


def _p_value(p: float) -> Cell:
    return Cell("-" if np.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}", p)


def recall_change(study: Study) -> Table:
    """Change of each class's recall from dense to pruned, in points; * where p < 0.05.

    Welch's t-test over models, Holm's correction over the classes. Source: Hooker et al. 2019.
    """
    names = next(iter(study.values())).class_names.tolist()
    rows = []
    for sparsity in filter(None, levels(study)):
        columns = [_recall_column(study, method, sparsity, len(names)) for method in METHODS]
        rows += [[percent(sparsity), Cell(name), *cells] for name, *cells in zip(names, *columns, strict=True)]
    header = ["Sparsity [%]", "Class", *(f"{title} [points]" for title in METHODS.values())]
    test = "Welch's t-test over models, Holm's correction over classes; * p < 0.05"
    return Table("recall", f"Change of each class's recall from dense to pruned ({test})", header, rows)


def _recall_column(study: Study, method: str, sparsity: float, classes: int) -> list[Cell]:
    dense, pruned = at(study, method, 0.0), at(study, method, sparsity)
    if dense is None or pruned is None:
        return [Cell("no dense run") if dense is None else why_not(study, method, sparsity)] * classes
    recalls = [metrics.recall(models.predictions, models.labels, classes) for models in (pruned, dense)]
    change = np.round(100 * (recalls[0].mean(0) - recalls[1].mean(0)), 1) + 0.0  # no negative zero
    few = min(map(len, recalls)) < 2
    p_values = [np.nan] * classes if few else metrics.compare_means(*recalls)
    return [
        Cell("no such image")
        if np.isnan(points)
        else Cell(
            f"{points:+.1f}{'*' if p < 0.05 else ''}",
            float(points),
            "p needs 2 models" if few else f"p {_p_value(p).text}",
        )
        for points, p in zip(change, p_values, strict=True)
    ]
