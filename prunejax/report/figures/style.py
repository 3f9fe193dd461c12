"""How figures look, whatever the user's matplotlibrc, and how their panels are laid out."""

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
"""Comes with Matplotlib."""
GREY = "#666666"
SPARE_COLOURS = ("#CC79A7", "#56B4E9", "#E69F00", "#009E73", "#0072B2", "#D55E00", "#000000")
"""Okabe & Ito's, safe for the colour-blind: for methods whose own colour is taken or unknown."""

MARKERS = "osD^vP*X"
LINES = ("-", "--", ":", "-.")
"""Of the ways of pruning, in order of appearance."""
APART = 0.6
"""Points of one place stand so far apart, in percent, that their bars can be told apart,"""
MOST_APART = 0.5
"""and all together at most this part of the way to the next place."""
WIDEST = 5
"""Panels side by side, at most."""
LONGEST_NAME = 14
"""Characters of a class name, at most, where many stand side by side."""

PanelRow = list[tuple[str, float] | None]
"""The (experiment, sparsity) of the panels side by side; None where one is left empty."""


@contextlib.contextmanager
def in_style(study: Study) -> Iterator[None]:
    """While it lasts, figures are drawn in this style, with fonts for the study's names."""
    families = font_families(texts_of(study))
    with mpl.rc_context():
        # Not the user's settings, of which one (a font size, TeX) can undo the layout.
        mpl.rcdefaults()
        for setting, value in STYLE.items():
            mpl.rcParams[setting] = value
        mpl.rcParams["font.family"] = families
        yield


def texts_of(study: Study) -> list[str]:
    """The texts in figures that are not ours: titles and class names."""
    run = next(iter(study.values()))
    return [*run.class_names, *(title(study, name) for name in study)]


def font_families(texts: Sequence[str]) -> list[str]:
    """The usual font, and installed ones for the characters that it lacks."""
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
    wanted = {ord(character) for text in texts for character in text if character.isprintable()}
    for family in families:
        wanted -= _characters(family)
    return wanted


def _regular_fonts() -> dict[str, str]:
    """The files of the installed fonts, neither bold nor slanted, by family."""
    found: dict[str, str] = {}
    for entry in font_manager.fontManager.ttflist:
        if entry.style == "normal" and entry.weight == 400:
            found.setdefault(entry.name, entry.fname)
    return found


@functools.cache
def _characters(family: str) -> frozenset[int]:
    """The code points that a font has."""
    try:
        return frozenset(font_manager.get_font(_regular_fonts()[family]).get_charmap())
    except (LookupError, RuntimeError, OSError):
        return frozenset()  # a font that cannot be read has nothing


def colours(study: Study) -> dict[str, str]:
    """The colour of each training method, by its name; no two alike."""
    taken: dict[str, str] = {}
    for method in methods(study):
        own = method.colour
        usable = is_color_like(own)
        colour = to_hex(own) if usable else GREY
        if not usable or colour in taken.values():
            spare = [to_hex(colour) for colour in SPARE_COLOURS]
            free = [colour for colour in spare if colour not in taken.values()]
            # With more methods than colours the last ones share grey.
            colour = free[0] if free else GREY
        taken[method.name] = colour
    return taken


def shorten(name: str, longest: int = LONGEST_NAME) -> str:
    """A name of at most so many characters: its beginning and its end."""
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
    # What does not fit side by side is broken where it means something: between methods.
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
    """A column for each experiment and a row for each sparsity; many experiments block by block."""
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
    """A figure of panels so wide and high, in inches, and its axes `[rows, columns]`."""
    figure = Figure(figsize=(width * columns, height * rows + 0.4))
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def nothing_pruned(study: Study) -> Figure:
    """What a figure of pruned models is, if there are none."""
    with in_style(study):
        figure = Figure(figsize=(4, 1))
        figure.text(0.5, 0.5, "nothing is pruned", ha="center", va="center", color=GREY)
        return figure


def add_legend(
    figure: Figure, handles: Sequence[Artist], labels: Sequence[str], heading: str | None = None
) -> None:
    """A legend below all panels, in as many columns as the figure is wide for."""
    # In inches: the handle and the space around it, and each character.
    widest = 0.5 + 0.075 * max(len(label) for label in labels)
    columns = max(1, int(figure.get_figwidth() / widest))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=heading)


def bar_lengths(value: float, interval: tuple[float, float] | None) -> tuple[float, float]:
    """How far an interval reaches below and above its value; 0 without an interval."""
    if interval is None:
        return 0.0, 0.0
    # Of very few PIEs the interval may leave out the value.
    return max(0.0, value - interval[0]), max(0.0, interval[1] - value)


def looks_of(study: Study, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """How pruned experiments are drawn: the colour tells the method, the rest how it prunes."""
    found: dict[str, dict[str, Any]] = {}
    ways: dict[tuple[str, int], int] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for name in names:
        method = method_of(study, name).name
        label = pruning_label(study, name)
        # Two experiments of a method may call their ways of pruning alike.
        way = (label, seen[method, label])
        seen[method, label] += 1
        place = ways.setdefault(way, len(ways))
        found[name] = {
            "color": colours(study)[method],
            "marker": MARKERS[place % len(MARKERS)],
            "linestyle": LINES[place % len(LINES)],
        }
    return found


def side_by_side(places: Sequence[float], count: int) -> list[float]:
    """By how much each of `count` series is shifted, so that their bars can be told apart.

    Args:
        places: in percent, at which the series have points; these stay nearer to their own place
            than to the next.
        count: of the series.
    """
    nearest = min(np.diff(sorted(set(places))), default=100.0)
    apart = min(APART, MOST_APART * nearest / count)
    return [apart * (place - (count - 1) / 2) for place in range(count)]


def set_title(axis: Axes, text: str, width: float) -> None:
    """Titles a panel, in lines that are no longer than the panel is wide, in inches."""
    characters = round(12.5 * width)  # of the titles' size that an inch has room for
    lines = [textwrap.fill(line, characters) for line in text.splitlines()]
    axis.set_title("\n".join(lines))


def say_missing(axis: Axes, text: str, width: float, why: str) -> None:
    """Titles a panel that has nothing to show, with the reason."""
    set_title(axis, text, width)
    axis.set_axis_off()
    axis.text(0.5, 0.5, why, ha="center", va="center", transform=axis.transAxes, color=GREY)


def point_to(study: Study, *cells: tuple[str, float]) -> str:
    """The `gid` of axes whose points are test images.

    It names the (experiment, sparsity) of the models whose predictions are shown beside them.
    """
    return json.dumps([[holder_of(study, *cell), cell[1]] for cell in cells])
