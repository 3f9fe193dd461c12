"""The change of each class's recall from dense to pruned."""

import numpy as np

from prunejax.measures.metrics import recall
from prunejax.report.comparison import p_value
from prunejax.report.statistics import compare_means
from prunejax.report.study import Study, dense_and_pruned, pruned_experiments, pruned_levels, title
from prunejax.report.table import Cell, Table
from prunejax.report.tables import sparsity_cell


def recall_change(study: Study) -> Table:
    """Change of each class's recall from dense to pruned, in points; * where p < 0.05.

    Welch's t-test over models, Holm's correction over the classes. Source: Hooker et al. 2019.
    """
    names = next(iter(study.values())).class_names
    rows = []
    for sparsity in pruned_levels(study):
        columns = []
        for name in pruned_experiments(study):
            columns.append(_column(study, name, sparsity, len(names)))
        for index, class_name in enumerate(names):
            cells = [column[index] for column in columns]
            rows.append([sparsity_cell(study, sparsity), Cell(class_name), *cells])
    header = ["Sparsity [%]", "Class"]
    header += [f"{title(study, name)} [points]" for name in pruned_experiments(study)]
    note = "Welch's t-test over models, Holm's correction over classes; * p < 0.05."
    heading = "Change of each class's recall from dense to pruned"
    return Table("recall", heading, header, rows, note)


def _column(study: Study, name: str, sparsity: float, classes: int) -> list[Cell]:
    """One experiment's column, a cell for each class."""
    models = dense_and_pruned(study, name, sparsity)
    if isinstance(models, str):
        return [Cell(models)] * classes
    dense, pruned = models
    before = recall(dense.predictions, dense.labels, classes)
    after = recall(pruned.predictions, pruned.labels, classes)
    # Adding zero turns a negative zero into a positive one.
    change = np.round(100 * (after.mean(0) - before.mean(0)), 1) + 0.0
    # A test needs the variance of both populations.
    few = min(len(before), len(after)) < 2
    p_values = np.full(classes, np.nan) if few else compare_means(after, before)

    cells = []
    for points, p in zip(change, p_values, strict=True):
        if np.isnan(points):
            cells.append(Cell("no such image"))
            continue
        star = "*" if p < 0.05 else ""
        beside = "p needs 2 models" if few else f"p {p_value(p).text}"
        cells.append(Cell(f"{points:+.1f}{star}", float(points), beside))
    return cells
