"""A titled table, and its text in Markdown, CSV and LaTeX."""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from typing import NamedTuple


class Cell(NamedTuple):
    """A cell of a table."""

    text: str
    value: float = float("nan")
    """The value that rows are sorted by, if the cell has one."""
    beside: str = ""
    """Small text after the main text."""
    interval: tuple[float, float] | None = None
    """The 95% interval of the value, if it has one."""

    @property
    def all(self) -> str:
        """The text with the small text after it."""
        return f"{self.text} ({self.beside})" if self.beside else self.text


NOTHING = Cell("-")


@dataclasses.dataclass(frozen=True)
class Table:
    """A titled table."""

    name: str
    """The name of the table, of its files and of links to it."""
    title: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    note: str = ""
    """Sentences that explain the table."""

    @property
    def text(self) -> list[list[str]]:
        """The header and the rows as plain text."""
        lines = [list(self.header)]
        for row in self.rows:
            lines.append([cell.all for cell in row])
        return lines

    @property
    def is_text(self) -> list[bool]:
        """Whether each column is text: none of its cells has a value."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.header)
        return [all(math.isnan(cell.value) for cell in column) for column in columns]

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        lines = [_markdown_line(line) for line in self.text]
        rule = _markdown_line(["---"] * len(self.header))
        caption = f"**{self.title}.** {self.note}".rstrip()
        return "\n".join([caption, "", lines[0], rule, *lines[1:]]) + "\n"

    def csv(self) -> str:
        """The table as comma-separated values."""
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(self.text)
        return buffer.getvalue()

    def latex(self) -> str:
        """The table for LaTeX with the packages `booktabs` and `graphicx`."""
        header, *rows = [_latex_line(line) for line in self.text]
        columns = "".join("l" if is_text else "r" for is_text in self.is_text)
        caption = f"{self.title}. {self.note}".rstrip()
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(caption)}}}",
            rf"\label{{tab:{self.name}}}",
            rf"\resizebox{{\linewidth}}{{!}}{{\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            header,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def _markdown_line(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return "| " + " | ".join(escaped) + " |"


_MATHEMATICS = {
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "−": "$-$",
    "×": r"$\times$",
    "<": "$<$",
    ">": "$>$",
}
_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_ESCAPED = {sign: "\\" + sign for sign in "#$%&_{}"}
_LATEX = str.maketrans(_MATHEMATICS | _SPECIAL | _ESCAPED)


def _latex(text: str) -> str:
    return text.translate(_LATEX)


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(_latex(cell) for cell in cells) + r" \\"
