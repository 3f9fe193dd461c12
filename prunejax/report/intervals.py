"""The table of every cell: accuracy, PIEs and what the measures want shown, with 95% intervals."""

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
            # Sparsity 0 of a pruned experiment is its dense one's, which has a row of its own.
            if holder_of(study, name, sparsity) != name:
                continue
            start = [Cell(title(study, name)), sparsity_cell(study, sparsity)]
            # A cell without models gives the reason in each of its columns.
            models = at(study, name, sparsity)
            if models is None:
                why = Cell(why_not(study, name, sparsity))
                rows.append([*start, *[why] * (4 + len(columns))])
                continue
            # What every study has, then whatever its measures bring along.
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
    """What the measures of all runs want shown of each model, in order of appearance."""
    found: dict[tuple[str, str], Column] = {}
    for run in study.values():
        for column in run.columns:
            # An array of one row a sparsity has no value of each model to average.
            if run.has(column.array) and run.dims[column.array][0] == "models":
                found.setdefault((column.array, column.header), column)
    return list(found.values())


def _count(study: Study, name: str, sparsity: float, models: RunMeasures) -> Cell:
    wanted = trained(study, name, sparsity)
    lost = f"of {wanted}; the others diverged or collapsed" if len(models.seeds) < wanted else ""
    return Cell(str(len(models.seeds)), len(models.seeds), lost)


def _pies(resamples: Resamples, study: Study, name: str, sparsity: float) -> Cell:
    if not sparsity:
        return NOTHING
    models = dense_and_pruned(study, name, sparsity)
    if isinstance(models, str):
        return Cell(models)
    return effect_cell("pies", effect("pies", resamples, models))


def _measured(resamples: Resamples, models: RunMeasures, column: Column) -> Cell:
    """What stands in a column: the mean over those of a cell's models that were measured."""
    measured = models.only_measured(column.array)
    if measured is None:
        return Cell("not measured")
    values = measured.values(column.array)
    # A model's value is its mean over whatever else the array has: images, classes.
    if values.ndim > 1:
        values = values.mean(axis=tuple(range(1, values.ndim)))
    resamples = resamples.of_measured(column.array)
    return mean_with_interval(resamples, measured, column.scale * values, column.digits)


def _measured_of_fewer(study: Study, columns: list[Column]) -> str:
    """Which columns are of fewer models than there are, as the end of a note."""
    text = ""
    for column in columns:
        if not of_all_models(study, column.array):
            models = measured_models(study, column.array)
            text += f" {column.header.split(' [')[0]}: over {models}."
    return text
