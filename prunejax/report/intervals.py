"""The table of every cell: accuracy, PIEs and the columns of the measures, with 95% intervals."""

from prunejax.measures import Column, RunMeasures
from prunejax.report.comparison import effect, effect_cell
from prunejax.report.noise import FLOOR, noise_floors
from prunejax.report.resamples import INTERVALS, Resamples, mean_with_interval
from prunejax.report.study import (
    Study,
    at,
    dense_and_pruned,
    dense_experiments,
    holder_of,
    measured_models,
    of_all_models,
    pruned_experiments,
    scope,
    title,
    trained,
    why_not,
)
from prunejax.report.table import NOTHING, Cell, Table
from prunejax.report.tables import sparsity_cell


def intervals(study: Study) -> Table:
    """Every cell, with 95% bootstrap intervals over seeds."""
    resamples = Resamples(study)
    floors = noise_floors(study)
    columns = measure_columns(study)
    rows = []
    for name in [*dense_experiments(study), *pruned_experiments(study)]:
        for sparsity in study[name].levels:
            # Sparsity 0 of a pruned experiment is its dense one's, which has its own row.
            if holder_of(study, name, sparsity) != name:
                continue
            start = [Cell(title(study, name)), sparsity_cell(study, sparsity)]
            # A cell without models gives the reason in each of its columns.
            models = at(study, name, sparsity)
            if models is None:
                why = Cell(why_not(study, name, sparsity))
                rows.append([*start, *[why] * (4 + len(columns))])
                continue
            # First the columns of every study, then those of its measures.
            accuracy = mean_with_interval(resamples, models, 100 * models.accuracy, 2)
            row = [*start, _count(study, name, sparsity, models), accuracy]
            row.append(_pies(resamples, study, name, sparsity))
            row.append(floors[name])
            row.extend(_measured(resamples, models, column) for column in columns)
            rows.append(row)

    header = ["Models", "Sparsity [%]", "n", "Accuracy [%]", "PIEs", "Noise floor [range]"]
    header += [column.header for column in columns]
    note = f"95% {INTERVALS}. {FLOOR} Shown: mean and range.{_measured_of_fewer(study, columns)}"
    return Table("intervals", f"Every cell, over {scope(study)}", header, rows, note)


def measure_columns(study: Study) -> list[Column]:
    """The columns of all runs' measures with a value of each model, in order of first use."""
    found: dict[tuple[str, str], Column] = {}
    for run in study.values():
        for column in run.columns:
            # An array with one row per sparsity has no value of each model to average.
            if run.has(column.array) and run.dims[column.array][0] == "models":
                found.setdefault((column.array, column.header), column)
    return list(found.values())


def _count(study: Study, name: str, sparsity: float, models: RunMeasures) -> Cell:
    count = len(models.seeds)
    total = trained(study, name, sparsity)
    failed = f"of {total}; the others diverged or collapsed" if count < total else ""
    return Cell(str(count), count, failed)


def _pies(resamples: Resamples, study: Study, name: str, sparsity: float) -> Cell:
    if not sparsity:
        return NOTHING
    models = dense_and_pruned(study, name, sparsity)
    if isinstance(models, str):
        return Cell(models)
    return effect_cell("pies", effect("pies", resamples, models))


def _measured(resamples: Resamples, models: RunMeasures, column: Column) -> Cell:
    """The value of a column: the mean over those of a cell's models that were measured."""
    measured = models.only_measured(column.array)
    if measured is None:
        return Cell("not measured")
    values = measured.values(column.array)
    # The value of a model is its mean over the other axes: images, classes.
    if values.ndim > 1:
        values = values.mean(axis=tuple(range(1, values.ndim)))
    resamples = resamples.of_measured(column.array)
    return mean_with_interval(resamples, measured, column.scale * values, column.digits)


def _measured_of_fewer(study: Study, columns: list[Column]) -> str:
    """The columns that were measured for fewer models than trained, as the end of a note."""
    text = ""
    for column in columns:
        if not of_all_models(study, column.array):
            models = measured_models(study, column.array)
            text += f" {column.header.split(' [')[0]}: over {models}."
    return text
