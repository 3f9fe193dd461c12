"""The cost of pruning by its start step."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prunejax.report.figures.style import (
    add_legend,
    bar_lengths,
    colours,
    in_style,
    plot_styles,
    set_title,
    side_by_side,
    subplots,
)
from prunejax.report.noise import noise_floors
from prunejax.report.paper_tables import published_level
from prunejax.report.published import ARCHITECTURE, PAPER, Published
from prunejax.report.resamples import Resamples
from prunejax.report.study import Study, experiment, percent, sweep_label, sweeps
from prunejax.report.when import BESIDE, QUANTITIES, Point, Quantity, points, quantities

OF_NETWORK = ("q", "depth")
"""Quantities that are compared with the paper's only for its own network."""
WIDTH = 3.0
"""The width of a panel, in inches."""


def when_to_prune(study: Study, published: Published | None = None) -> Figure:
    """A panel for each quantity, a line for each sweep; a row for each sparsity.

    Bars are 95% bootstrap intervals over seeds. With the paper's numbers its GMP and delayed GMP
    are marked at their starts.
    """
    known = points(study)
    resamples = Resamples(study)
    floors = noise_floors(study)
    shown = []
    for point in known:
        if not isinstance(point.models, str):
            found = quantities(resamples, point.models, floors[point.experiment].value)
            shown.append((point, found))
    levels = sorted({point.sparsity for point in known})
    styles = plot_styles(study, [sweep.first for sweep in sweeps(study)])
    with in_style(study):
        figure, axes = subplots(len(levels), len(QUANTITIES), WIDTH, 2.6)
        for axes_of_row, level in zip(axes, levels, strict=True):
            lines = [(point, found) for point, found in shown if point.sparsity == level]
            for axis, name in zip(axes_of_row, QUANTITIES, strict=True):
                _panel(axis, styles, name, lines)
                if published is not None:
                    _mark_published(axis, study, name, level, published)
                axis.set_ylabel(QUANTITIES[name])
                axis.set_xlabel("start of pruning [% of first stage]")
                axis.set_xlim(-4, 100)
                heading = f"{percent(study, level)}% pruned\ndotted: {BESIDE[name]}"
                set_title(axis, heading, WIDTH)
        handles = []
        labels = []
        for sweep in sweeps(study):
            handles.append(Line2D([], [], ms=4, **styles[sweep.first]))
            labels.append(sweep_label(study, sweep))
        if published is not None:
            handles.append(Line2D([], [], linestyle="", marker="*", color="black", ms=9))
            labels.append("the paper's GMP and Δ GMP (WRN-16-2, PIEs among 10,000)")
        add_legend(figure, handles, labels)
        return figure


def _panel(
    axis: Axes,
    styles: Mapping[str, dict[str, Any]],
    name: str,
    lines: list[tuple[Point, dict[str, Quantity]]],
) -> None:
    """A line for each sweep, in its plot style, and its reference."""
    # The first sweep's: another may have its own starts.
    first = next(iter(styles), None)
    starts = [100 * point.start for point, _ in lines if point.sweep.first == first]
    shifts = side_by_side(starts, len(styles))
    for shift, (sweep, style) in zip(shifts, styles.items(), strict=True):
        x, y, bars, beside = [], [], [], []
        for point, found in lines:
            if point.sweep.first != sweep:
                continue
            value, interval = found[name].value.value, found[name].value.interval
            if np.isnan(value):
                continue
            x.append(100 * point.start + shift)
            y.append(value)
            bars.append(bar_lengths(value, interval))
            beside.append(found[name].beside)
        lengths = np.reshape(bars, (-1, 2)).T
        axis.errorbar(x, y, yerr=lengths, ms=4, lw=1.4, elinewidth=0.8, **style)
        axis.plot(x, beside, color=style["color"], linestyle=":", linewidth=1)


def _mark_published(
    axis: Axes, study: Study, name: str, level: float, published: Published
) -> None:
    """Marks the paper's gradual pruning, at its own starts, in the colours of its methods."""
    # Depth and Q-Score depend on the network: they are comparable only for the paper's.
    ours = next(iter(study.values())).config.display.architecture
    if name in OF_NETWORK and ours != ARCHITECTURE:
        return
    swept = {experiment(study, sweep.first).method for sweep in sweeps(study)}
    for key, theirs in PAPER.items():
        start = published.get("start [%]", {}).get(key, {}).get(level)
        value = published_level(name, published, key, level)
        if theirs.method not in swept or start is None or np.isnan(value):
            continue
        colour = colours(study)[theirs.method]
        axis.plot(float(start), value, marker="*", ms=9, color=colour, mec="black", mew=0.6)
