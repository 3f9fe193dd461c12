"""What pruning costs by sparsity: accuracy lost, and PIEs with the noise floor."""

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from prunejax.report.comparison import effect, effect_cell
from prunejax.report.figures.style import (
    add_legend,
    bar_lengths,
    colours,
    in_style,
    plot_styles,
    side_by_side,
    subplots,
)
from prunejax.report.noise import Floor, floors_of
from prunejax.report.resamples import Resamples
from prunejax.report.study import (
    Study,
    dense_and_pruned,
    holder_of,
    method_of,
    pruned_experiments,
    pruned_levels,
    title,
)

WIDTH = 5.0
"""The width of a panel, in inches."""
PANELS = {"accuracy": "accuracy lost [points]", "pies": "PIEs [test images]"}
"""The effects that are shown, and the labels of their axes."""


def what_pruning_costs(study: Study) -> Figure:
    """Accuracy lost and PIEs by sparsity, a line for each pruned experiment.

    Bars are 95% bootstrap intervals over seeds; bands are the noise floors.
    """
    resamples = Resamples(study)
    styles = plot_styles(study, pruned_experiments(study))
    levels = [100 * level for level in pruned_levels(study)]
    shifts = side_by_side(levels, len(styles))
    with in_style(study):
        figure, axes = subplots(1, len(PANELS), WIDTH, 3.4)
        for axis, (quantity, label) in zip(axes[0], PANELS.items(), strict=True):
            for shift, experiment in zip(shifts, styles, strict=True):
                _draw(axis, study, resamples, quantity, experiment, styles[experiment], shift)
            axis.set_ylabel(label)
            axis.set_xlabel("weights pruned [%]")
            axis.set_xticks(levels)
            axis.margins(x=0.1)
        axes[0, 0].axhline(0, color="black", linewidth=0.6)
        bands = _draw_floors(axes[0, 1], study)
        axes[0, 1].set_ylim(bottom=0)
        handles: list[Artist] = [Line2D([], [], **style) for style in styles.values()]
        labels = [title(study, experiment) for experiment in styles]
        for label, band in bands.items():
            handles.append(band)
            labels.append(label)
        add_legend(figure, handles, labels)
        return figure


def _draw(
    axis: Axes,
    study: Study,
    resamples: Resamples,
    quantity: str,
    experiment: str,
    style: dict[str, Any],
    shift: float,
) -> None:
    """Draws the effect of pruning on a quantity of an experiment, at each of its sparsities."""
    x, y, bars = [], [], []
    for level in pruned_levels(study):
        models = dense_and_pruned(study, experiment, level)
        if isinstance(models, str):
            continue
        cell = effect_cell(quantity, effect(quantity, resamples, models))
        x.append(100 * level + shift)
        y.append(cell.value)
        bars.append(bar_lengths(cell.value, cell.interval))
    lengths = np.reshape(bars, (-1, 2)).T
    axis.errorbar(x, y, yerr=lengths, ms=5, lw=1.4, elinewidth=0.8, capsize=2, **style)


def _draw_floors(axis: Axes, study: Study) -> dict[str, Patch]:
    """Draws a band for each noise floor; returns them by their labels."""
    floors = floors_of(study)
    bands: dict[str, Patch] = {}
    # One for each dense parent, or several if it is compared with populations of several sizes.
    of_parent: dict[str | None, dict[Floor, str]] = {}
    for name in pruned_experiments(study):
        floor = floors[name]
        if floor is not None:
            of_parent.setdefault(holder_of(study, name, 0.0), {}).setdefault(floor, name)
    for named in of_parent.values():
        for floor, name in named.items():
            method = method_of(study, name)
            colour = colours(study)[method.name]
            label = method.label if len(named) == 1 else title(study, name)
            axis.axhspan(floor.low, floor.high, color=colour, alpha=0.15, linewidth=0)
            bands[f"{label}: noise floor"] = Patch(color=colour, alpha=0.15)
    return bands
