"""Every figure of a study, with its title and a text for who cannot see it."""

from typing import NamedTuple

from matplotlib.figure import Figure

from prunejax.data import Dataset
from prunejax.report.figures.bars import figure_4, figure_7, one_shot_experiments
from prunejax.report.figures.curves import Curves, training_curves
from prunejax.report.figures.embedding import figure_1, figure_5
from prunejax.report.figures.gallery import figure_6
from prunejax.report.figures.scatter import figure_2, figure_3
from prunejax.report.study import (
    Study,
    headline,
    levels,
    pairs,
    percent,
    prunes,
)


class Picture(NamedTuple):
    """A figure as the page shows it."""

    figure: Figure
    title: str
    alt: str
    """For who cannot see it."""


def make_figures(
    study: Study, curves: Curves, dataset: Dataset | None = None
) -> dict[str, Picture]:
    """Every figure that the study's experiments and measures allow, by the name of its file.

    Args:
        study: the measures of each experiment, all of the same test images.
        curves: the training curves.
        dataset: the images; None leaves the gallery out.
    """
    made = _of_pruned(study) if prunes(study) else {}
    made |= _of_representations(study)
    if dataset is not None and prunes(study):
        made["figure_6"] = Picture(
            figure_6(study, dataset.test_images),
            f"Figure 6. PIEs at {_near(study)} on which most models agree: the label, the modal "
            "prediction of the dense models (U) and of the pruned ones (S), and how many models "
            "agree with it",
            "A gallery of test images, one row per experiment, with their labels and predictions.",
        )
    made["training_curves"] = Picture(
        training_curves(study, curves),
        "Training loss: mean and range over seeds",
        "Line charts of the loss by step, one panel per experiment, one line per sparsity.",
    )
    return dict(sorted(made.items()))


def _near(study: Study) -> str:
    return f"{percent(study, headline(study))}%"


def _has(study: Study, array: str) -> bool:
    return any(run.has(array) for run in study.values())


def _of_representations(study: Study) -> dict[str, Picture]:
    """Figures 1 and 5."""
    if not _has(study, "umap"):
        return {}
    near = _near(study)
    most = f"{percent(study, max(levels(study)))}%"
    both = near if near == most else f"{near} and {most}"
    count = next(iter(study.values())).config.measure.neighbors
    pruned = prunes(study)
    overview = Picture(
        figure_1(study),
        "Figure 1. UMAP of one model's representations of the test images: dense"
        + (f" and {most} pruned" if pruned else "")
        + ", coloured by modal prediction. Purity: how many of an image's "
        f"{count} nearest neighbours share its label (model mean)",
        "Scatter plots of test images in two dimensions; a row for each training method.",
    )
    if not pruned:
        return {"figure_1": overview}
    return {
        "figure_1": overview,
        "figure_5": Picture(
            figure_5(study),
            f"Figure 5. UMAP of every experiment: dense, {both} pruned, coloured by modal "
            "prediction",
            "Scatter plots of test images in two dimensions; rows sparsities, columns experiments.",
        ),
    }


def _of_pruned(study: Study) -> dict[str, Picture]:
    """Figures 2, 3, 4 and 7."""
    near = _near(study)
    panel = "One panel per experiment"
    strong = (
        "; strong: PIEs also of the experiment that it is compared with" if pairs(study) else ""
    )
    made = {}
    if _has(study, "q"):
        made["figure_2"] = Picture(
            figure_2(study),
            f"Figure 2. Q-Score of each test image, mean over models: dense and {near} pruned; "
            "r is Pearson's",
            f"{panel}: dense Q-Score on x, pruned on y, a point per test image, PIEs marked, with "
            "the identity line.",
        )
    if _has(study, "depth"):
        made["figure_3"] = Picture(
            figure_3(study),
            "Figure 3. Prediction depth of each test image, mean over probed models: dense and "
            f"{near} pruned; points are spread by up to a tenth of a layer",
            f"{panel}: dense depth on x, pruned on y, a point per test image, PIEs marked, with "
            "the identity line.",
        )
    if one_shot_experiments(study):
        made["figure_4"] = Picture(
            figure_4(study),
            f"Figure 4. PIEs per class under one-shot pruning{strong}",
            "Bar charts of PIEs by true class, a row for each experiment, columns sparsities.",
        )
    made["figure_7"] = Picture(
        figure_7(study),
        f"Figure 7. PIEs per class at every sparsity{strong}",
        "Bar charts of PIEs by true class, rows sparsities, columns experiments.",
    )
    return made
