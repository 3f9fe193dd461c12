"""The style of figures, independent of the user's matplotlibrc, and the layout of their panels."""

import contextlib
import functools
import json
import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import is_color_like, to_hex
from matplotlib.figure import Figure

from prunejax.report.study import (
    Study,
    experiment,
    holder_of,
    method_of,
    methods,
    pruning_label,
    title,
)

STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "font.size": 9,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # class names are no formulas
    "svg.hashsalt": "prunejax",
}
FONT = "DejaVu Sans"
"""The default font, which comes with Matplotlib."""
GREY = "#666666"
FALLBACK_COLOURS = ("#CC79A7", "#56B4E9", "#E69F00", "#009E73", "#0072B2", "#D55E00", "#000000")
"""Okabe & Ito's palette, safe for the colour-blind: for methods without a valid, unused colour."""

MARKERS = "osD^vP*X"
LINES = ("-", "--", ":", "-.")
"""The line styles of the ways of pruning, in order of first use, as are the markers."""
DISTANCE = 0.6
"""The distance between points of one position, in percent, at which bars do not overlap."""
MOST_SPREAD = 0.5
"""The most that all points of one position span, as a fraction of the distance to the next."""
WIDEST = 5
"""The most panels side by side."""
LONGEST_NAME = 14
"""The most characters of a class name where many are side by side."""

PanelRow = list[tuple[str, float] | None]
"""The (experiment, sparsity) of the panels side by side; None where one is left empty."""


@contextlib.contextmanager
def in_style(study: Study) -> Iterator[None]:
    """A context in which figures are drawn in this style, with fonts for the study's names."""
    families = font_families(texts_of(study))
    with mpl.rc_context():
        # Without the user's settings: some (a font size, TeX) break the layout.
        mpl.rcdefaults()
        for setting, value in STYLE.items():
            mpl.rcParams[setting] = value
        mpl.rcParams["font.family"] = families
        yield


def texts_of(study: Study) -> list[str]:
    """The texts in figures that depend on the study: titles and class names."""
    run = next(iter(study.values()))
    return [*run.class_names, *(title(study, name) for name in study)]


def font_families(texts: Sequence[str]) -> list[str]:
    """The default font, and installed ones for the characters that it lacks."""
    families = [FONT]
    lacking = missing_characters(texts, families)
    # Matplotlib takes each character from the first of the families that has it.
    for family in _regular_fonts():
        if not lacking:
            break
        if not lacking.isdisjoint(_characters(family)):
            families.append(family)
            lacking -= _characters(family)
    return families


def missing_characters(texts: Sequence[str], families: Sequence[str]) -> set[int]:
    """The code points in `texts` that none of these fonts has."""
    missing = {ord(character) for text in texts for character in text if character.isprintable()}
    for family in families:
        missing -= _characters(family)
    return missing


def _regular_fonts() -> dict[str, str]:
    """The files of the installed fonts, neither bold nor slanted, by family."""
    found: dict[str, str] = {}
    for font in font_manager.fontManager.ttflist:
        if font.style == "normal" and font.weight == 400:
            found.setdefault(font.name, font.fname)
    return found


@functools.cache
def _characters(family: str) -> frozenset[int]:
    """The code points that a font has."""
    try:
        return frozenset(font_manager.get_font(_regular_fonts()[family]).get_charmap())
    except (LookupError, RuntimeError, OSError):
        return frozenset()  # a font that cannot be read has nothing


def colours(study: Study) -> dict[str, str]:
    """The colour of each training method, by its name; no two are equal."""
    used: dict[str, str] = {}
    for method in methods(study):
        own = method.colour
        usable = is_color_like(own)
        colour = to_hex(own) if usable else GREY
        if not usable or colour in used.values():
            fallback = [to_hex(colour) for colour in FALLBACK_COLOURS]
            free = [colour for colour in fallback if colour not in used.values()]
            # With more methods than colours the last ones share grey.
            colour = free[0] if free else GREY
        used[method.name] = colour
    return used


def shorten(name: str, longest: int = LONGEST_NAME) -> str:
    """A name of at most `longest` characters: its first and last ones, with … between."""
    name = " ".join(name.split())
    if len(name) <= longest:
        return name
    end = (longest - 1) // 2
    return f"{name[: longest - 1 - end]}…{name[len(name) - end :]}"


def blocks(study: Study, names: Sequence[str], widest: int = WIDEST) -> list[list[str]]:
    """Experiments side by side, or, if that is too wide, a block or more for each method.

    The blocks of a method are about equally long.
    """
    if len(names) <= widest:
        return [list(names)] if names else []
    # Names that do not fit side by side are split between methods.
    of_method: dict[str, list[str]] = {}
    for name in names:
        of_method.setdefault(experiment(study, name).method, []).append(name)
    found = []
    for group in of_method.values():
        rows = math.ceil(len(group) / widest)
        columns = math.ceil(len(group) / rows)
        found += [group[start : start + columns] for start in range(0, len(group), columns)]
    return found


def panel_rows(
    study: Study, names: Sequence[str], sparsities: Sequence[float], widest: int = WIDEST
) -> list[PanelRow]:
    """A column for each experiment and a row for each sparsity; many experiments block by block.

    Args:
        study: the measures.
        names: the experiments.
        sparsities: the sparsities, fractions.
        widest: the most panels side by side.
    """
    in_blocks = blocks(study, names, widest)
    columns = max((len(block) for block in in_blocks), default=0)
    rows: list[PanelRow] = []
    for block in in_blocks:
        for sparsity in sparsities:
            row: PanelRow = [(name, sparsity) for name in block]
            # All rows of a figure have the same number of panels.
            row += [None] * (columns - len(block))
            rows.append(row)
    return rows


def subplots(
    rows: int,
    columns: int,
    width: float,
    height: float,
    **shared: Any,  # noqa: ANN401
) -> tuple[Figure, np.ndarray]:
    """Returns a figure of panels, and its axes `[rows, columns]`.

    Args:
        rows: the number of rows.
        columns: the number of columns.
        width: the width of a panel, in inches.
        height: the height of a panel, in inches.
        **shared: `sharex` and `sharey` of Matplotlib's `subplots`.
    """
    figure = Figure(figsize=(width * columns, height * rows + 0.4))
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def nothing_pruned(study: Study) -> Figure:
    """The figure that replaces one of pruned models, if nothing is pruned."""
    with in_style(study):
        figure = Figure(figsize=(4, 1))
        figure.text(0.5, 0.5, "nothing is pruned", ha="center", va="center", color=GREY)
        return figure


def add_legend(
    figure: Figure, handles: Sequence[Artist], labels: Sequence[str], heading: str | None = None
) -> None:
    """Adds a legend below all panels, in as many columns as fit.

    Args:
        figure: the figure.
        handles: an artist for each label.
        labels: the labels.
        heading: the title of the legend, if it has one.
    """
    # In inches: the handle and the space around it, and each character.
    widest = 0.5 + 0.075 * max(len(label) for label in labels)
    columns = max(1, int(figure.get_figwidth() / widest))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=heading)


def bar_lengths(value: float, interval: tuple[float, float] | None) -> tuple[float, float]:
    """The lengths of an interval below and above its value; 0 without an interval."""
    if interval is None:
        return 0.0, 0.0
    # With very few PIEs the interval may not include the value.
    return max(0.0, value - interval[0]), max(0.0, interval[1] - value)


def plot_styles(study: Study, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The plot style of pruned experiments: the colour shows the method, the rest its pruning."""
    found: dict[str, dict[str, Any]] = {}
    ways: dict[tuple[str, int], int] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for name in names:
        method = method_of(study, name).name
        label = pruning_label(study, name)
        # Two experiments of a method may have the same label of pruning.
        way = (label, seen[method, label])
        seen[method, label] += 1
        index = ways.setdefault(way, len(ways))
        found[name] = {
            "color": colours(study)[method],
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": LINES[index % len(LINES)],
        }
    return found


def side_by_side(positions: Sequence[float], count: int) -> list[float]:
    """Returns the shift of each of `count` series, so that their bars do not overlap.

    Args:
        positions: in percent, at which the series have points; these stay nearer to their own
            position than to the next.
        count: of the series.
    """
    nearest = min(np.diff(sorted(set(positions))), default=100.0)
    distance = min(DISTANCE, MOST_SPREAD * nearest / count)
    return [distance * (index - (count - 1) / 2) for index in range(count)]


def set_title(axis: Axes, text: str, width: float) -> None:
    """Sets the title of a panel, in lines that fit its `width` in inches."""
    characters = round(12.5 * width)  # of the titles' size that fit into an inch
    lines = [textwrap.fill(line, characters) for line in text.splitlines()]
    axis.set_title("\n".join(lines))


def mark_missing(axis: Axes, text: str, width: float, why: str) -> None:
    """Sets the title of a panel without data, and shows the reason in it.

    Args:
        axis: the panel.
        text: the title.
        width: the width of the panel, in inches.
        why: the reason.
    """
    set_title(axis, text, width)
    axis.set_axis_off()
    axis.text(0.5, 0.5, why, ha="center", va="center", transform=axis.transAxes, color=GREY)


def point_to(study: Study, *cells: tuple[str, float]) -> str:
    """The `gid` of axes with test images as points.

    It names the (experiment, sparsity) of the models with predictions that are shown at them.
    """
    return json.dumps([[holder_of(study, *cell), cell[1]] for cell in cells])
