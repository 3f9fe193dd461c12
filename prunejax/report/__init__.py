"""Package `report`: the measures of a work directory's runs -> tables, figures and one HTML page.

It has no plug-ins: `study` reads from the runs' configurations what they are, so that methods,
ways of pruning and measures of any number and name appear in every table and figure. `make_tables`
and `make_figures` are functions of a study, `write` makes the page, `collect.collect` finds the
runs of a work directory.
"""

from typing import TYPE_CHECKING, Any

from prunejax.report.all_tables import make_tables
from prunejax.report.published import Published
from prunejax.report.study import Study
from prunejax.report.table import Cell, Table

if TYPE_CHECKING:
    from prunejax.report.figures import make_figures
    from prunejax.report.page import write

__all__ = [
    "Cell",
    "Published",
    "Study",
    "Table",
    "make_figures",
    "make_tables",
    "write",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Imports what draws figures on first use: Matplotlib takes a second."""
    if name == "make_figures":
        from prunejax.report.figures import make_figures

        return make_figures
    if name == "write":
        from prunejax.report.page import write

        return write
    raise AttributeError(f"module 'prunejax.report' has no attribute {name!r}")
