"""PIEs of each true class (the paper's Figures 4 and 7)."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from prunejax.methods import is_one_shot
from prunejax.report.figures.style import (
    PanelRow,
    add_legend,
    colours,
    in_style,
    mark_missing,
    nothing_pruned,
    panel_rows,
    set_title,
    shorten,
    subplots,
)
from prunejax.report.study import (
    DenseAndPruned,
    Study,
    cell_title,
    compared_methods,
    dense_and_pruned,
    experiment,
    method_of,
    methods,
    partner,
    pruned_experiments,
    pruned_levels,
    title,
)

MOST_CLASSES = 20
"""The most classes that are shown: those with the most PIEs."""
ALONE = 0.35
"""The opacity of PIEs that an experiment's partner does not have."""
WIDTH = 2.9
"""The width of a panel, in inches."""


class Classes(NamedTuple):
    """The classes that are shown, in order."""

    labels: np.ndarray
    names: list[str]
    left_out: int


def one_shot_experiments(study: Study) -> list[str]:
    """The experiments with one-shot pruning of the trained dense models."""
    return [name for name in pruned_experiments(study) if is_one_shot(experiment(study, name))]


def figure_4(study: Study) -> Figure:
    """PIEs per class under one-shot pruning, a row each, at up to three sparsities, as Figure 4.

    Opaque: PIEs also of the experiment that it is compared with; light: of this one only.
    """
    pruned = pruned_levels(study)
    if not pruned:
        return nothing_pruned(study)
    lowest_middle_highest = sorted({0, len(pruned) // 2, len(pruned) - 1})
    rows: list[PanelRow] = []
    for name in one_shot_experiments(study):
        rows.append([(name, pruned[index]) for index in lowest_middle_highest])
    return pies_per_class(study, rows, "all", len(rows))


def figure_7(study: Study) -> Figure:
    """PIEs per class at every sparsity (rows) for every experiment (columns), as Figure 7."""
    sparsities = pruned_levels(study)
    rows = panel_rows(study, pruned_experiments(study), sparsities)
    return pies_per_class(study, rows, "row", len(sparsities))


def pies_per_class(
    study: Study, rows: Sequence[PanelRow], same_scale: Literal["all", "row"], named_every: int
) -> Figure:
    """A panel for each cell; see `figure_4`.

    Args:
        study: the measures.
        rows: the cells of each row of panels.
        same_scale: the panels that share their axis of PIEs.
        named_every: the classes are named below every row of this number.
    """
    if not rows:
        return nothing_pruned(study)
    classes = _classes(study, rows)
    with in_style(study):
        figure, axes = subplots(len(rows), len(rows[0]), WIDTH, 2.2, sharex=True, sharey=same_scale)
        for axes_of_row, row in zip(axes, rows, strict=True):
            for axis, cell in zip(axes_of_row, row, strict=True):
                if cell is None:
                    axis.set_visible(False)
                else:
                    _panel(axis, study, *cell, classes)
        # Only now: a limit that is set no longer adapts to bars that are drawn later.
        for axis in axes[:, 0]:
            axis.set_ylim(0, max(1, axis.get_ylim()[1]))
            axis.set_ylabel("PIEs [test images]")
        for index in range(named_every - 1, len(rows), named_every):
            _name_classes(axes[index], classes)
        handles = _legend(study, rows)
        add_legend(figure, handles, [str(handle.get_label()) for handle in handles])
        return figure


def _classes(study: Study, rows: Sequence[PanelRow]) -> Classes:
    """All classes, or, if there are many, those with the most PIEs over all panels."""
    run = next(iter(study.values()))
    names = run.class_names
    if len(names) <= MOST_CLASSES:
        return Classes(np.arange(len(names)), [shorten(name) for name in names], 0)
    # The same classes in all panels, so that these can be compared.
    counts = np.zeros(len(names), int)
    for row in rows:
        for cell in row:
            models = dense_and_pruned(study, *cell) if cell is not None else ""
            if not isinstance(models, str):
                counts += np.bincount(run.labels[models.pies], minlength=len(names))
    chosen = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
    return Classes(chosen, [shorten(names[label]) for label in chosen], len(names) - MOST_CLASSES)


def _panel(axis: Axes, study: Study, name: str, sparsity: float, classes: Classes) -> None:
    heading = cell_title(study, name, sparsity)
    models = dense_and_pruned(study, name, sparsity)
    if isinstance(models, str):
        mark_missing(axis, heading, WIDTH, models)
        return

    # Without a partner no PIE is shared: all bars are light.
    pies = models.pies
    shared = np.zeros_like(pies)
    other = partner(study, name)
    models_of_other = dense_and_pruned(study, other, sparsity) if other is not None else None
    if isinstance(models_of_other, DenseAndPruned):
        shared = pies & models_of_other.pies
    both = _count(study, shared, classes)
    alone = _count(study, pies & ~shared, classes)
    colour = colours(study)[method_of(study, name).name]
    positions = range(len(classes.names))
    axis.bar(positions, both, color=colour)
    axis.bar(positions, alone, bottom=both, color=colour, alpha=ALONE)

    lines = [f"{heading}: {pies.sum()} PIEs"]
    if classes.left_out:
        # The PIEs of classes that are left out are counted.
        hidden = int(pies.sum() - both.sum() - alone.sum())
        lines.append(f"({hidden} in {classes.left_out} other classes)")
    if isinstance(models_of_other, str):
        lines.append(f"({models_of_other})")
    elif other is not None and compared_methods(study) is None:
        lines.append(f"(opaque: also of {title(study, other)})")
    set_title(axis, "\n".join(lines), WIDTH)
    axis.yaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))


def _count(study: Study, images: np.ndarray, classes: Classes) -> np.ndarray:
    """The number of the images of each class that is shown, `[classes]`."""
    labels = next(iter(study.values())).labels
    return np.bincount(labels[images], minlength=classes.labels.max() + 1)[classes.labels]


def _name_classes(axes: np.ndarray, classes: Classes) -> None:
    """Names the classes below a row of panels."""
    turned = 90 if max(len(name) for name in classes.names) > 2 else 0
    label = "true class"
    if classes.left_out:
        label = f"true class ({len(classes.names)} with the most PIEs)"
    for axis in axes:
        axis.set_xticks(range(len(classes.names)), classes.names, rotation=turned)
        axis.tick_params(axis="x", labelbottom=True)
        axis.set_xlabel(label)


def _legend(study: Study, rows: Sequence[PanelRow]) -> list[Patch]:
    """A pair of colours for each method that has panels."""
    shown = {cell[0] for row in rows for cell in row if cell is not None}
    handles = []
    for method in methods(study):
        of_method = [name for name in shown if method_of(study, name) == method]
        if not of_method:
            continue
        colour = colours(study)[method.name]
        if any(partner(study, name) is not None for name in of_method):
            handles.append(Patch(color=colour, label=f"{method.label}: PIE of both"))
            only = f"{method.label}: of this one only"
        else:
            only = f"{method.label}: PIE"
        handles.append(Patch(color=colour, alpha=ALONE, label=only))
    return handles
