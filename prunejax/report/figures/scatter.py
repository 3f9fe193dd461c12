"""A measure of each test image, dense against pruned (the paper's Figures 2 and 3)."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prunejax.measures import RunMeasures
from prunejax.report.figures.style import (
    add_legend,
    in_style,
    mark_missing,
    nothing_pruned,
    panel_rows,
    point_to,
    set_title,
    subplots,
)
from prunejax.report.study import (
    Study,
    cell_title,
    dense_and_pruned,
    headline,
    pruned_experiments,
)

POINTS = {"other test images": ("#808080", 0.4, 5), "PIEs": ("#D55E00", 0.9, 12)}
"""The colour, opacity and size of the points of each kind."""
IDENTITY = {"color": "black", "linewidth": 0.8, "linestyle": "--"}
WIDTH = 2.6
"""The width of a panel, in inches."""


def figure_2(study: Study, sparsity: float | None = None) -> Figure:
    """Q-Score of each test image, dense on x and pruned on y (means over models), as Figure 2."""
    return dense_against_pruned(study, "q", "Q-Score", sparsity)


def figure_3(study: Study, sparsity: float | None = None) -> Figure:
    """Prediction depth of each test image, dense on x and pruned on y, as Figure 3."""
    return dense_against_pruned(study, "depth", "prediction depth [layers]", sparsity)


def dense_against_pruned(
    study: Study, array: str, label: str, sparsity: float | None = None
) -> Figure:
    """A panel for each pruned experiment, a point for each test image, PIEs marked.

    Args:
        study: the measures.
        array: the name of a measured array `[models, examples]`; its means over models are shown.
        label: the label of the axes.
        sparsity: the sparsity of the pruned models; None: the one nearest to 90%.
    """
    level = headline(study) if sparsity is None else sparsity
    rows = panel_rows(study, pruned_experiments(study), [level])
    if not rows:
        return nothing_pruned(study)
    with in_style(study):
        figure, axes = subplots(len(rows), len(rows[0]), WIDTH, 3.3)
        for axes_of_row, row in zip(axes, rows, strict=True):
            for axis, cell in zip(axes_of_row, row, strict=True):
                if cell is None:
                    axis.set_visible(False)
                    continue
                _panel(axis, study, cell[0], level, array)
                axis.set_xlabel(f"{label}, dense")
            axes_of_row[0].set_ylabel(f"{label}, pruned")

        handles = []
        for colour, _, _ in POINTS.values():
            handles.append(Line2D([], [], marker="o", linestyle="", color=colour))
        handles.append(Line2D([], [], **IDENTITY))
        add_legend(figure, handles, [*POINTS, "unchanged"])
        return figure


def _panel(axis: Axes, study: Study, name: str, level: float, array: str) -> None:
    heading = cell_title(study, name, level)
    models = dense_and_pruned(study, name, level)
    if isinstance(models, str):
        mark_missing(axis, heading, WIDTH, models)
        return
    dense, pruned = models
    x = _mean(dense, array)
    y = _mean(pruned, array)
    if x is None or y is None:
        mark_missing(axis, heading, WIDTH, "not measured")
        return

    pies = models.pies
    # Pearson's, of the means before jitter; NaN if one of them is constant.
    correlation = np.corrcoef(x, y)[0, 1] if x.std() and y.std() else np.nan
    if np.issubdtype(dense.values(array).dtype, np.integer):
        # Means of few integers coincide: jitter them within a fifth of a step.
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, len(x)))
        x, y = x + noise[0], y + noise[1]
    set_title(axis, f"{heading}\n{pies.sum():,} PIEs, r = {correlation:.2f}", WIDTH)
    axis.set_gid(point_to(study, (name, 0.0), (name, level)))
    for chosen, (colour, alpha, size) in zip((~pies, pies), POINTS.values(), strict=True):
        # Points that are not shown are NaN: point i is image i.
        shown = np.where(chosen, y, np.nan)
        area = size * min(1.0, (1000 / len(x)) ** 0.5)
        axis.scatter(x, shown, s=area, color=colour, alpha=alpha, linewidths=0, rasterized=True)
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    axis.plot([low, high], [low, high], **IDENTITY)
    axis.set_box_aspect(1)


def _mean(models: RunMeasures, array: str) -> np.ndarray | None:
    """The mean over the models that were measured, `[examples]`, or None if none was."""
    measured = models.only_measured(array)
    return measured.values(array).mean(0) if measured is not None else None
