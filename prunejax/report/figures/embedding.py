"""UMAP of test images' representations (the paper's Figures 1 and 5)."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prunejax.methods import is_one_shot
from prunejax.report.figures.style import (
    PanelRow,
    add_legend,
    in_style,
    mark_missing,
    panel_rows,
    point_to,
    set_title,
    shorten,
    subplots,
)
from prunejax.report.study import (
    Study,
    at,
    cell_title,
    experiment,
    headline,
    levels,
    method_of,
    methods,
    pruned_experiments,
    shown_experiments,
    why_not,
)

CLASS_COLOURS = mpl.color_sequences["petroff10"]  # made for the colour-blind
LEGEND_CLASSES = 20
"""The most classes with a legend: the colours of more are too similar."""
WIDTH = 2.6
"""The width of a panel, in inches."""


def figure_1(study: Study, sparsity: float | None = None) -> Figure:
    """Representations of each method: dense, pruned gradually and one-shot, as Figure 1.

    Args:
        study: the measures.
        sparsity: the sparsity of the pruned models; None: the highest (the paper has 95%).
    """
    level = max(levels(study)) if sparsity is None else sparsity
    rows = []
    for method in methods(study):
        names = [name for name in shown_experiments(study) if method_of(study, name) == method]
        rows.append(_overview(study, names, level))
    # A column that is empty for every method is left out.
    columns = [index for index in range(3) if any(row[index] for row in rows)]
    return umap_panels(study, [[row[index] for index in columns] for row in rows])


def _overview(study: Study, names: Sequence[str], level: float) -> PanelRow:
    """A method's dense models, and those of its first gradual and its first one-shot pruning."""
    pruned = [name for name in names if name in pruned_experiments(study)]
    gradual = [name for name in pruned if not is_one_shot(experiment(study, name))]
    one_shot = [name for name in pruned if is_one_shot(experiment(study, name))]
    row: PanelRow = [(names[0], 0.0)] if names else [None]
    for of_kind in (gradual, one_shot):
        row.append((of_kind[0], level) if of_kind and level else None)
    return row


def figure_5(study: Study) -> Figure:
    """Representations of every experiment, as Figure 5.

    Rows: dense, at the sparsity nearest to 90% and at the highest.
    """
    # With few sparsities some of these are the same.
    chosen = sorted({0.0, headline(study), max(levels(study))})
    return umap_panels(study, panel_rows(study, shown_experiments(study), chosen))


def umap_panels(study: Study, rows: Sequence[PanelRow]) -> Figure:
    """A panel for each cell: the test images of one of its models, coloured by modal prediction."""
    names = next(iter(study.values())).class_names
    colours = class_colours(len(names))
    with in_style(study):
        figure, axes = subplots(len(rows), len(rows[0]), WIDTH, WIDTH + 0.2)
        for axes_of_row, row in zip(axes, rows, strict=True):
            for axis, cell in zip(axes_of_row, row, strict=True):
                if cell is None:
                    axis.set_visible(False)
                else:
                    _umap_panel(axis, study, *cell, colours)
        if len(names) <= LEGEND_CLASSES:
            handles = []
            for colour in colours[: len(names)]:
                handles.append(Line2D([], [], marker="o", linestyle="", color=colour))
            labels = [shorten(name) for name in names]
            add_legend(figure, handles, labels, "modal prediction")
        return figure


def class_colours(count: int) -> Sequence[Any]:
    """A colour for each class; more than ten are taken from a continuous colour map."""
    if count <= len(CLASS_COLOURS):
        return CLASS_COLOURS
    return list(mpl.colormaps["viridis"](np.linspace(0, 1, count)))


def _umap_panel(axis: Axes, study: Study, name: str, sparsity: float, colours: Sequence) -> None:
    models = at(study, name, sparsity)
    heading = cell_title(study, name, sparsity)
    if models is None:
        mark_missing(axis, heading, WIDTH, why_not(study, name, sparsity))
        return
    if not models.has("umap") or not models.measured["umap"].any():
        mark_missing(axis, heading, WIDTH, "not measured")
        return

    # The UMAP of one model, coloured by the modal prediction of all models of the cell.
    positions = models.values("umap")[0]
    shades = [colours[label] for label in models.modal_class]
    size = min(8.0, 6000 / len(models.labels))
    axis.scatter(*positions.T, s=size, c=shades, linewidths=0, rasterized=True)
    axis.set_axis_off()
    axis.set_gid(point_to(study, (name, sparsity)))

    purity = models.only_measured("purity")
    if purity is not None:
        heading += f"\npurity {100 * purity.values('purity').mean():.0f}%"
    set_title(axis, heading, WIDTH)
