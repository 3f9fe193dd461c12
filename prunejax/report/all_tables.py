"""Every table of a study, in the order of the page."""

from prunejax.report.cells import intervals
from prunejax.report.comparison import comparison, overlap
from prunejax.report.hyperparameters import table_2
from prunejax.report.paper_tables import can_ask_findings, findings, table_3
from prunejax.report.published import Published, is_papers
from prunejax.report.recall import recall_change
from prunejax.report.study import Study, pairs, prunes
from prunejax.report.table import Table
from prunejax.report.tables import experiments_table, quality_tables, table_1, table_6


def make_tables(study: Study, published: Published | None = None) -> list[Table]:
    """Every table that the study's experiments and measures allow, in the order of the page.

    Args:
        study: the measures of each experiment, all of the same test images.
        published: the paper's numbers, if they are for this data.
    """
    compares = bool(pairs(study))
    tables = []
    if compares:
        tables.append(comparison(study))
    if can_ask_findings(study):
        tables.append(findings(study, published))
    tables.append(table_1(study, published))
    tables.append(table_2(study, published))
    if is_papers(study, "sup_gmp"):
        tables.append(table_3(study, published))
    tables.extend(quality_tables(study, published))
    if prunes(study) and any(run.has("depth") for run in study.values()):
        tables.append(table_6(study, published))
    tables.append(intervals(study))
    if compares:
        tables.append(overlap(study))
    if prunes(study):
        tables.append(recall_change(study))
    tables.append(experiments_table(study))
    return tables
