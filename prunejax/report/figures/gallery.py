"""The PIEs on which most models agree (the paper's Figure 6)."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prunejax.measures import RunMeasures
from prunejax.report.figures.style import (
    GREY,
    in_style,
    nothing_pruned,
    point_to,
    shorten,
    subplots,
)
from prunejax.report.study import (
    Study,
    cell_title,
    dense_and_pruned,
    headline,
    pruned_experiments,
)

LONGEST_NAME = 11
"""The most characters of a class name below an image."""


class Votes(NamedTuple):
    """The modal prediction of a cell for each test image, with the agreement of its models."""

    letter: str
    models: int
    modal_class: np.ndarray
    agreement: np.ndarray


def figure_6(
    study: Study, images: np.ndarray, sparsity: float | None = None, columns: int = 8
) -> Figure:
    """Each experiment's PIEs on which most models agree, before and after pruning, as Figure 6.

    Below each image are the true class; the modal prediction of the dense models (U, for
    uncompressed) and of the pruned ones (S, for sparse), and how many of them agree with it.

    Args:
        study: the measures.
        images: the test images, uint8 `[examples, height, width, channels]`.
        sparsity: the sparsity of the pruned models; None: the one nearest to 90%.
        columns: the most images of each experiment.
    """
    # A row for each experiment, whether it has PIEs or not.
    level = headline(study) if sparsity is None else sparsity
    names = pruned_experiments(study)
    if not names:
        return nothing_pruned(study)
    with in_style(study):
        figure, axes = subplots(len(names), columns, 1.25, 1.9)
        for row, name in zip(axes, names, strict=True):
            for axis in row:
                axis.set_axis_off()
            row[0].set_title(cell_title(study, name, level), loc="left")
            models = dense_and_pruned(study, name, level)
            if isinstance(models, str):
                row[0].text(0, 0.5, models, color=GREY)
                continue
            votes = [_votes("U", models.dense), _votes("S", models.pruned)]
            chosen = _most_certain(models.pies, votes)[:columns]
            if not chosen.size:
                row[0].text(0, 0.5, "no PIEs", color=GREY)
            for axis, image in zip(row, chosen.tolist(), strict=False):
                _show(axis, images, image)
                _caption(axis, models.dense, votes, image)
                axis.set_gid(point_to(study, (name, 0.0), (name, level)))
        return figure


def agreement(models: RunMeasures) -> np.ndarray:
    """How many models predict the modal class of each test image, `[examples]`."""
    return np.sum(models.predictions == models.modal_class, axis=0)


def as_picture(image: np.ndarray) -> np.ndarray:
    """A displayable form of an image `[height, width, channels]`: in colour, or else grey."""
    channels = image.shape[-1]
    if channels in (3, 4):
        return image
    return image[..., 0] if channels == 1 else image.mean(-1).astype(np.uint8)


def _votes(letter: str, models: RunMeasures) -> Votes:
    return Votes(letter, len(models.seeds), models.modal_class, agreement(models))


def _most_certain(pies: np.ndarray, votes: list[Votes]) -> np.ndarray:
    """The PIEs ordered by the fractions of models that agree, dense plus pruned; ties: by image."""
    certain = votes[0].agreement / votes[0].models + votes[1].agreement / votes[1].models
    found = np.flatnonzero(pies)
    return found[np.argsort(-certain[found], kind="stable")]


def _show(axis: Axes, images: np.ndarray, image: int) -> None:
    picture = as_picture(images[image])
    axis.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    # For the tooltip: an invisible point in the middle, with the index of the image.
    position = np.full((len(images), 2), np.nan)
    position[image] = (images.shape[2] - 1) / 2, (images.shape[1] - 1) / 2
    axis.scatter(*position.T, s=0)


def _caption(axis: Axes, dense: RunMeasures, votes: list[Votes], image: int) -> None:
    names = dense.class_names
    lines = [f"label: {shorten(names[dense.labels[image]], LONGEST_NAME)}"]
    for vote in votes:
        predicted = shorten(names[vote.modal_class[image]], LONGEST_NAME)
        lines.append(f"{vote.letter}: {predicted} {vote.agreement[image]}/{vote.models}")
    axis.text(
        0.5,
        -0.06,
        "\n".join(lines),
        ha="center",
        va="top",
        transform=axis.transAxes,
        fontsize=8,
    )
