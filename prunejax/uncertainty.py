"""Measures -> the tables that the paper lacks: intervals, the noise floor, tests; each a function of a study."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from prunejax import metrics
from prunejax.evaluate import Measures
from prunejax.tables import (
    METHODS,
    NAMES,
    PAIRS,
    Cell,
    Published,
    Study,
    Table,
    at,
    cell_title,
    headline,
    levels,
    noise_floor,
    percent,
    probed,
    scope,
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
    floors = {kind: noise_floor(study, kind) for kind in NAMES}
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


def _pies(resamples: Resamples, dense: Measures | None, models: Measures) -> Cell:
    if dense is None or not models.sparsities.any():
        return Cell("no dense run" if dense is None else "-")
    found, few = float(models.pies(dense).sum()), min(len(dense.seeds), len(models.seeds))
    return _with_interval(found, resamples.pies(dense, models), 0, few, least=0.0)


def _dense_and_pruned(
    study: Study, methods: Sequence[str], sparsity: float
) -> tuple[list[tuple[Measures, Measures]], str]:
    """The two cells of each method, or why one of them lacks."""
    cells = {(method, level): at(study, method, level) for method in methods for level in (0.0, sparsity)}
    lacking = [f"{cell_title(*cell)}: {why_not(study, *cell).text}" for cell, models in cells.items() if models is None]
    lacking = lacking if sparsity else ["nothing is pruned"]
    found = [models for models in cells.values() if models is not None]
    return [] if lacking else list(zip(found[::2], found[1::2], strict=True)), "; ".join(lacking)


def _pairs(study: Study) -> Iterator[tuple[list[Cell], list[tuple[Measures, Measures]]]]:
    """Yields each comparison's first cells, and (dense, pruned) of Sup and SCL; where one lacks, a row and none."""
    for (name, pair), sparsity in itertools.product(PAIRS.items(), filter(None, levels(study))):
        pairs, why = _dense_and_pruned(study, pair, sparsity)
        row = [Cell(name), percent(sparsity)]
        yield [*row, Cell(why), *[Cell("-")] * 5] if why else row, pairs


DIGITS = {"accuracy": 2, "pies": 0, "q": 3, "depth": 2}
"""Of each effect, after the point."""


def _effect(name: str, resamples: Resamples, dense: Measures, pruned: Measures) -> tuple[float, np.ndarray, int]:
    """What pruning does: `accuracy` [points] or `q` lost, `pies`, or by how many layers of `depth` PIEs exceed others.

    With its replicates, and the number of models behind it. PIEs' depth is that of the PIEs as they are.
    """
    fewest = min(len(dense.seeds), len(pruned.seeds))
    if name == "pies":
        return float(pruned.pies(dense).sum()), resamples.pies(dense, pruned), fewest
    if name == "depth":
        pies, probes = pruned.pies(dense), pruned.probed
        if not pies.any() or pies.all() or not len(probes.seeds):
            return np.nan, np.empty(0), 0
        deeper = probes.depth[:, pies].mean(1) - probes.depth[:, ~pies].mean(1)
        return float(deeper.mean()), resamples.mean(probes, deeper), len(deeper)
    before, after = (100 * models.accuracy if name == "accuracy" else models.q.mean(1) for models in (dense, pruned))
    again = resamples.mean(dense, before) - resamples.mean(pruned, after)
    return float(before.mean() - after.mean()), again, fewest


def comparison(study: Study) -> Table:
    """What pruning costs Sup and SCL, and the difference with 95% bootstrap intervals: the study's question."""
    resamples, rows = Resamples(study), []
    for row, pairs in _pairs(study):
        if not pairs:
            rows.append(row)
            continue
        for effect in ("accuracy", "pies"):
            digits = DIGITS[effect]
            (sup, sup_again, n_sup), (scl, scl_again, n_scl) = (_effect(effect, resamples, *pair) for pair in pairs)
            row += [Cell(f"{value:.{digits}f}", value) for value in (sup, scl)]
            row.append(_with_interval(scl - sup, scl_again - sup_again, digits, min(n_sup, n_scl)))
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
            verdict = _verdict(more) + (", SCL loses less" if _verdict(more) == "no" else "")
            sentences.append(
                f"{name.text} at {sparsity.text}%: {verdict}. Accuracy lost: SCL {scl.text}, Sup {sup.text} points, "
                f"difference {more.all}. PIEs: SCL {scl_pies.text}, Sup {sup_pies.text}, "
                f"difference {more_pies.all}."
            )
    return sentences


def _verdict(cell: Cell, sign: int = 1) -> str:
    """Whether the value has this sign, by its interval."""
    low, high = cell.interval or (0.0, 0.0)
    return "undecided" if low <= 0 <= high else "yes" if sign * cell.value > 0 else "no"


FINDINGS = {
    "GMP costs SCL more accuracy than Sup [points]": ("accuracy", +1, "scl_gmp", "sup_gmp"),
    "One-Shot costs SCL more accuracy than Sup [points]": ("accuracy", +1, "scl_one_shot", "sup_one_shot"),
    "GMP gives SCL more PIEs than Sup": ("pies", +1, "scl_gmp", "sup_gmp"),
    "One-Shot gives SCL more PIEs than Sup": ("pies", +1, "scl_one_shot", "sup_one_shot"),
    "Δ GMP costs SCL less accuracy than GMP [points]": ("accuracy", -1, "scl_delayed_gmp", "scl_gmp"),
    "Δ GMP gives SCL fewer PIEs than GMP": ("pies", -1, "scl_delayed_gmp", "scl_gmp"),
    "GMP costs SCL Q-Score": ("q", +1, "scl_gmp"),
    "GMP costs SCL more Q-Score than Sup": ("q", +1, "scl_gmp", "sup_gmp"),
    "PIEs of SCL / GMP are deeper than other images [layers]": ("depth", +1, "scl_gmp"),
    "PIEs of Sup / GMP are deeper than other images [layers]": ("depth", +1, "sup_gmp"),
}
"""What the paper finds: an effect, its sign, and the method that has it, or has it more than a second one."""


def _published_effect(name: str, published: Published, method: str, sparsity: float) -> float:
    """As `_effect`, by the paper's means; NaN where it has none."""

    def mean(column: str, level: float = sparsity) -> float:
        return float(published.get(column, {}).get(method, {}).get(level, "nan").split()[0])

    if name == "pies":
        return mean("PIE")
    if name == "depth":
        return mean("depth of PIEs") - mean("of non-PIEs")
    column = {"accuracy": "Acc [%]", "q": "Q"}[name]
    return mean(column, 0.0) - mean(column)


def findings(study: Study, published: Published | None = None) -> Table:
    """What the paper finds at its highest sparsity, one by one: ours with its 95% interval, and whether it holds."""
    resamples, sparsity, rows = Resamples(study), headline(study), []
    floors = {kind: noise_floor(study, kind).text for kind in NAMES}
    header = ["Finding", "Ours [95%]", "Holds here", "Noise floor of each [range]", *(["Paper"] if published else [])]
    for text, (effect, sign, *methods) in FINDINGS.items():
        digits = DIGITS[effect]
        pairs, why = _dense_and_pruned(study, methods, sparsity)
        if why:
            row = [Cell(why), Cell("-"), Cell("-")]
        else:
            values, replicates, models = zip(*(_effect(effect, resamples, *pair) for pair in pairs), strict=True)
            value, again = (x[0] - sum(x[1:]) for x in (values, replicates))
            ours = _with_interval(value, again, digits, min(models)) if min(models) else Cell("not probed, or no PIEs")
            noise = "; ".join(floors[method[:3]] for method in methods) if effect == "pies" else "-"
            row = [ours, Cell(_verdict(ours, sign)), Cell(noise)]
        paper = [_published_effect(effect, published or {}, method, sparsity) for method in methods]
        theirs = paper[0] - sum(paper[1:])
        row.append(Cell("-" if np.isnan(theirs) else f"{theirs:.{digits}f}", theirs))
        rows.append([Cell(text), *row][: len(header)])
    paper = ". Paper: PIEs among 10,000, of 30 WRN-16-2 models" if published else ""
    title = f"What the paper finds at {100 * sparsity:.3g}%, PIEs among {scope(study)}. 95% {INTERVALS}{paper}"
    return Table("findings", title, header, rows)


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
