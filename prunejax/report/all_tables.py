"""Every table of a study, in the order of the page."""

from collections.abc import Callable

from prunejax.report.comparison import comparison, overlap
from prunejax.report.hyperparameters import table_2
from prunejax.report.intervals import intervals
from prunejax.report.paper_tables import TABLE_3, findings, has_findings, table_3
from prunejax.report.published import Published, find_papers
from prunejax.report.recall import recall_change
from prunejax.report.study import Study, pairs, prunes, sweeps, without_sweeps
from prunejax.report.table import Table
from prunejax.report.tables import experiments_table, quality_tables, table_1, table_6
from prunejax.report.when import trend_table, when_table

Makers = dict[str, Callable[[], list[Table]]]


def table_makers(study: Study, published: Published | None = None) -> Makers:
    """The functions that make each possible table of the study, in the order of the page.

    Args:
        study: the measures of each experiment, all of the same test images.
        published: the paper's numbers, if they are for this data.
    """
    # A sweep over start steps has its own table: the others have a row for each sparsity.
    everything = study
    study = without_sweeps(study)
    compares, pruned = bool(pairs(study)), prunes(study)
    makers: Makers = {}
    if compares:
        makers["comparison"] = lambda: [comparison(study)]
    if has_findings(study):
        makers["findings"] = lambda: [findings(study, published)]
    if sweeps(everything):
        makers["when"] = lambda: [when_table(everything), trend_table(everything)]
    makers["table_1"] = lambda: [table_1(study, published)]
    makers["table_2"] = lambda: [table_2(study, published)]
    if find_papers(study, TABLE_3) is not None:
        makers["table_3"] = lambda: [table_3(study, published)]
    makers["quality"] = lambda: quality_tables(study, published)
    if pruned and any(run.has("depth") for run in study.values()):
        makers["table_6"] = lambda: [table_6(study, published)]
    makers["intervals"] = lambda: [intervals(study)]
    if compares:
        makers["overlap"] = lambda: [overlap(study)]
    if pruned:
        makers["recall"] = lambda: [recall_change(study)]
    makers["experiments"] = lambda: [experiments_table(everything)]
    return makers


def make_tables(study: Study, published: Published | None = None) -> list[Table]:
    """Makes every table of `table_makers`."""
    tables = []
    for make in table_makers(study, published).values():
        tables += make()
    return tables
