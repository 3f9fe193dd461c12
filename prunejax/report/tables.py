"""The tables of every study: a row for each sparsity, columns for each experiment.

Table numbers are those of the paper; its values are next to ours if they are given.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from prunejax.config.counts import counted
from prunejax.measures import RunMeasures
from prunejax.report.noise import FLOOR, NO_FLOOR, floors_of
from prunejax.report.published import Published, number, other_depth
from prunejax.report.study import (
    Shown,
    Study,
    at,
    dense_and_pruned,
    experiment,
    is_dense,
    levels,
    measured_models,
    method_of,
    methods,
    of_all_models,
    percent,
    pruned_experiments,
    pruned_levels,
    scope,
    shown_experiments,
    title,
    trained,
    why_not,
)
from prunejax.report.table import NOTHING, Cell, Table

Make = Callable[[str, float, RunMeasures], Cell]
"""`(experiment, sparsity, models of that cell) -> the cell of a column`."""

QUALITY_NUMBERS = {"supcon": 4, "cross_entropy": 5}
"""The paper's tables of Q-Scores, by method."""


def grid(
    table: Table,
    study: Study,
    names: Sequence[str],
    columns: Mapping[str, Make],
    published: Published | None = None,
) -> Table:
    """Fills an empty table: a row for each sparsity, and for each experiment its columns.

    Next to a value are the number of missing models, and the paper's value.

    Args:
        table: a table with a name and a title.
        study: the measures.
        names: the experiments, in order.
        columns: the function that fills each column, by its header.
        published: the paper's numbers.
    """
    header = ["Sparsity [%]"]
    rows = [[sparsity_cell(study, level)] for level in levels(study)]
    for name in names:
        for column, make in columns.items():
            header.append(f"{title(study, name)} {column}")
            for row in rows:
                sparsity = row[0].value
                cell = _grid_cell(study, name, sparsity, make)
                theirs = number(published, study, column, name, sparsity)
                if theirs is not None:
                    cell = _also_beside(cell, f"paper {theirs}")
                row.append(cell)
    return dataclasses.replace(table, header=header, rows=rows)


def _grid_cell(study: Study, name: str, sparsity: float, make: Make) -> Cell:
    # A dense experiment without a pruned one has a column; its rows of pruned models are empty.
    if sparsity and is_dense(study, name):
        return NOTHING
    models = at(study, name, sparsity)
    if models is None:
        return Cell(why_not(study, name, sparsity))
    # Models that diverged or collapsed are in no mean, but their number is shown.
    cell = make(name, sparsity, models)
    total = trained(study, name, sparsity)
    if len(models.seeds) < total:
        cell = _also_beside(cell, f"{len(models.seeds)} of {counted(total, 'model')}")
    return cell


def _also_beside(cell: Cell, text: str) -> Cell:
    return cell._replace(beside=f"{cell.beside}; {text}" if cell.beside else text)


def sparsity_cell(study: Study, sparsity: float) -> Cell:
    """A sparsity in %."""
    return Cell(percent(study, sparsity), sparsity)


def mean_and_deviation(values: np.ndarray) -> Cell:
    """Mean ± population standard deviation of `values`."""
    mean = float(values.mean())
    deviation = float(values.std())
    return Cell(f"{mean:.2f} ± {deviation:.2f}", mean)


def pies_and_accuracy(study: Study) -> dict[str, Make]:
    """The columns of Table 1."""
    floors = floors_of(study)

    def pies(name: str, sparsity: float, models: RunMeasures) -> Cell:
        if not sparsity:
            return NOTHING
        both = dense_and_pruned(study, name, sparsity)
        if isinstance(both, str):
            return Cell(both)
        found = float(both.pies.sum())
        # The range of the floor is in the table of all cells.
        floor = floors[name]
        mean = NO_FLOOR if floor is None else f"{floor.mean:.0f}"
        return Cell(f"{found:.0f}", found, f"floor {mean}")

    def accuracy(name: str, sparsity: float, models: RunMeasures) -> Cell:
        return mean_and_deviation(100 * models.accuracy)

    return {"PIE": pies, "Acc [%]": accuracy}


def table_1(study: Study, published: Published | None = None) -> Table:
    """PIEs, their noise floor, and test accuracy (mean ± standard deviation over models)."""
    heading = f"Table 1. PIEs among {scope(study)}, and test accuracy (mean ± std over models)"
    note = f"{FLOOR} Shown: its mean."
    if published is not None:
        note += " Paper: among 10,000, of 30 WRN-16-2 models (Δ GMP at 90%: 25)."
    table = Table("table_1", heading, note=note)
    return grid(table, study, shown_experiments(study), pies_and_accuracy(study), published)


def quality_tables(study: Study, published: Published | None = None) -> list[Table]:
    """Q-Score, Z-Score and l1 norm, a table for each method (the paper's Tables 4 and 5).

    Means over models, then mean ± standard deviation over images.
    """
    if not any(run.has("q") for run in study.values()):
        return []
    in_papers_order = sorted(methods(study), key=lambda method: QUALITY_NUMBERS.get(method.name, 9))
    return [_quality_table(study, method, published) for method in in_papers_order]


def _quality_table(study: Study, method: Shown, published: Published | None) -> Table:
    def column(array: str) -> Make:
        def score(name: str, sparsity: float, models: RunMeasures) -> Cell:
            measured = models.only_measured(array)
            if measured is None:
                return Cell("not measured")
            # First over models, then over images: the deviation is over images, as in the paper.
            cell = mean_and_deviation(measured.values(array).mean(0))
            # All-zero representations have a Q-Score of 0 by definition; many would lower the mean.
            zeros = int((measured.values("l1") == 0).sum()) if array == "q" else 0
            return cell._replace(beside=f"{zeros} all-zero, of all models") if zeros else cell

        return score

    # The paper's two methods have the numbers of its tables.
    columns = {"Q": column("q"), "Z": column("z"), "l1": column("l1")}
    in_paper = QUALITY_NUMBERS.get(method.name)
    table_name = f"table_{in_paper}" if in_paper else f"quality_{as_name(method.name)}"
    heading = (
        f"Q-Score, Z-Score and l1 norm of {method.label} models' representations of {scope(study)}"
    )
    if in_paper:
        heading = f"Table {in_paper}. {heading}"
    names = [name for name in shown_experiments(study) if method_of(study, name) == method]
    means = "Mean over models"
    if not of_all_models(study, "q"):
        means = f"Mean over {measured_models(study, 'q')}"
    table = Table(table_name, heading, note=f"{means}, then mean ± std over images.")
    return grid(table, study, names, columns, published)


def as_name(text: str) -> str:
    """Any text as a part of a file name or a link."""
    return re.sub(r"\W+", "_", text)


def table_6(study: Study, published: Published | None = None) -> Table:
    """Prediction depth of PIEs and of the other images, as Table 6.

    Means over models, then mean ± standard deviation over images. The row of sparsity 0 holds the
    dense models' depth, split by the PIEs of any of the experiment's sparsities.
    """

    def column(among_pies: bool) -> Make:
        def depth(name: str, sparsity: float, models: RunMeasures) -> Cell:
            pies = _pies_of_levels(study, name, [sparsity] if sparsity else pruned_levels(study))
            if not pies:
                return Cell("no PIEs known")
            probed = models.only_measured("depth")
            if probed is None:
                return Cell("not probed")
            # The row of one sparsity has one set of PIEs, the row of the dense models several.
            chosen = np.any(pies, axis=0) == among_pies
            if not chosen.any():
                return Cell("none")
            return mean_and_deviation(probed.values("depth").mean(0)[chosen])

        return depth

    heading = (
        f"Table 6. Prediction depth over {measured_models(study, 'depth')} of "
        f"{scope(study)}, mean ± std over images"
    )
    note = "At sparsity 0: the dense models', of the images that are PIEs at any sparsity."
    note += other_depth(study, published)
    table = Table("table_6", heading, note=note)
    # The headers are also keys of the published numbers, as in the other tables.
    columns = {"depth of PIEs": column(True), "of non-PIEs": column(False)}
    return grid(table, study, pruned_experiments(study), columns, published)


def _pies_of_levels(study: Study, name: str, sparsities: Sequence[float]) -> list[np.ndarray]:
    """Which images are PIEs at each of the sparsities that were run."""
    cells = [dense_and_pruned(study, name, sparsity) for sparsity in sparsities]
    return [models.pies for models in cells if not isinstance(models, str)]


def experiments_table(study: Study) -> Table:
    """The experiments: how they are trained and pruned."""
    rows = []
    for name, run in study.items():
        settings = experiment(study, name)
        pruning = settings.pruning
        failed = int(run.failed.sum())
        texts = [
            title(study, name),
            name,
            settings.method,
            _steps_of_pruning(run),
            pruning.score if pruning else "-",
            pruning.allocation if pruning else "-",
            ", ".join(pruning.exclude) if pruning and pruning.exclude else "-",
            settings.dense_parent or "-",
            settings.baseline or "-",
            ", ".join(percent(study, level) for level in run.levels),
        ]
        count = Cell(str(len(run.seeds)), len(run.seeds), f"{failed} failed" if failed else "")
        rows.append([*map(Cell, texts), count])
    header = [
        "Models",
        "Experiment",
        "Method",
        "Pruned at steps",
        "Score",
        "Allocation",
        "Excluded parts",
    ]
    header += ["Dense models", "Baseline", "Sparsities [%]", "Models in all"]
    return Table("experiments", "What was trained and pruned", header, rows)


def _steps_of_pruning(run: RunMeasures) -> str:
    pruning = run.config.experiment.pruning
    if pruning is None:
        return "-"
    if pruning.schedule is None:
        return "once, then fine-tuned"
    steps = getattr(run.config.prune, pruning.schedule)
    if run.start_fraction is None:
        return f"{steps.begin_step} to {steps.end_step}, every {steps.every_steps}"
    start = f"{100 * run.start_fraction:.3g}%"
    span = steps.end_step - steps.begin_step
    at_most = "at most " if pruning.shorten else ""
    return f"from {start} of the first stage, for {at_most}{span} steps, every {steps.every_steps}"
