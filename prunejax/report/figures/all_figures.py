"""Every figure of a study, with its title and a description."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from matplotlib.figure import Figure

from prunejax.data import Dataset
from prunejax.report.figures.bars import figure_4, figure_7, one_shot_experiments
from prunejax.report.figures.costs import what_pruning_costs
from prunejax.report.figures.curves import Curves, training_curves
from prunejax.report.figures.embedding import figure_1, figure_5
from prunejax.report.figures.gallery import figure_6
from prunejax.report.figures.noise import pies_and_noise
from prunejax.report.figures.scatter import figure_2, figure_3
from prunejax.report.figures.when import when_to_prune
from prunejax.report.published import Published
from prunejax.report.study import (
    Study,
    headline,
    levels,
    measured_models,
    of_all_models,
    pairs,
    percent,
    prunes,
    settings_of,
    sweeps,
    without_sweeps,
)

PANEL = "One panel per experiment"


class Picture(NamedTuple):
    """A figure as the page shows it."""

    figure: Figure
    title: str
    alt: str
    """A description for readers who cannot see it."""


def picture_makers(
    study: Study,
    curves: Curves,
    dataset: Dataset | None = None,
    published: Published | None = None,
) -> dict[str, Callable[[], Picture]]:
    """The functions that draw each possible figure of the study, by the name of its file.

    Args:
        study: the measures of each experiment, all of the same test images.
        curves: the training curves.
        dataset: the images; None leaves the gallery out.
        published: the paper's numbers, if they are for this data.
    """
    makers: dict[str, Callable[[], Picture]] = {}
    # A sweep over start steps has its own figure: the others have a panel for each sparsity.
    if sweeps(study):
        makers["when_to_prune"] = partial(_when, study, published)
        study = without_sweeps(study)
    pruned = prunes(study)
    if pruned:
        makers["what_pruning_costs"] = partial(_costs, study)
        makers["pies_and_noise"] = partial(_noise, study)
    if _has(study, "umap"):
        makers["figure_1"] = partial(_overview, study)
    if pruned and _has(study, "q"):
        makers["figure_2"] = partial(_quality, study)
    if pruned and _has(study, "depth"):
        makers["figure_3"] = partial(_depth, study)
    if pruned and one_shot_experiments(study):
        makers["figure_4"] = partial(_one_shot_bars, study)
    if pruned and _has(study, "umap"):
        makers["figure_5"] = partial(_embeddings, study)
    if pruned and dataset is not None:
        makers["figure_6"] = partial(_gallery, study, dataset)
    if pruned:
        makers["figure_7"] = partial(_all_bars, study)
    makers["training_curves"] = partial(_curves, study, curves)
    return makers


def make_figures(
    study: Study,
    curves: Curves,
    dataset: Dataset | None = None,
    published: Published | None = None,
) -> dict[str, Picture]:
    """Draws every figure of `picture_makers`, which has the same arguments.

    Args:
        study: the measures of each experiment, all of the same test images.
        curves: the training curves.
        dataset: the images; None leaves the gallery out.
        published: the paper's numbers, if they are for this data.
    """
    makers = picture_makers(study, curves, dataset, published)
    return {name: make() for name, make in makers.items()}


def _near(study: Study) -> str:
    return f"{percent(study, headline(study))}%"


def _most(study: Study) -> str:
    return f"{percent(study, max(levels(study)))}%"


def _has(study: Study, array: str) -> bool:
    return any(run.has(array) for run in study.values())


def _costs(study: Study) -> Picture:
    return Picture(
        what_pruning_costs(study),
        "What pruning costs, by sparsity; bars: 95% bootstrap intervals over seeds; bands: PIEs "
        "by training noise alone",
        "Two line charts with the sparsity on x, a line for each pruned experiment: accuracy lost, "
        "and PIEs.",
    )


def _noise(study: Study) -> Picture:
    return Picture(
        pies_and_noise(study),
        f"PIEs at {_near(study)} by the number of models that vote, mean over subsets of seeds; "
        "crosses: between disjoint subsets of the dense models, by training noise alone; dotted: "
        "extrapolated by the square root of the number",
        "Line charts with the number of models on x, a panel for each training method: PIEs of "
        "each way of pruning, and between dense models.",
    )


def _overview(study: Study) -> Picture:
    count = settings_of(study, "purity").neighbors
    pruned = f" and {_most(study)} pruned" if prunes(study) else ""
    return Picture(
        figure_1(study),
        f"Figure 1. UMAP of one model's representations of the test images: dense{pruned}, "
        "coloured by modal prediction. Purity: how many of an image's "
        f"{count} nearest neighbours share its label, mean over probed models",
        "Scatter plots of test images in two dimensions; a row for each training method.",
    )


def _quality(study: Study) -> Picture:
    means = "mean over models"
    if not of_all_models(study, "q"):
        means = f"mean over {measured_models(study, 'q')}"
    return Picture(
        figure_2(study),
        f"Figure 2. Q-Score of each test image, {means}: dense and {_near(study)} pruned; r is "
        "Pearson's",
        f"{PANEL}: dense Q-Score on x, pruned on y, a point per test image, PIEs marked, with "
        "the identity line.",
    )


def _depth(study: Study) -> Picture:
    return Picture(
        figure_3(study),
        "Figure 3. Prediction depth of each test image, mean over probed models: dense and "
        f"{_near(study)} pruned; points are spread by up to a tenth of a layer",
        f"{PANEL}: dense depth on x, pruned on y, a point per test image, PIEs marked, with "
        "the identity line.",
    )


def _opaque_bars(study: Study) -> str:
    if not pairs(study):
        return ""
    return "; opaque: PIEs also of the experiment that it is compared with"


def _one_shot_bars(study: Study) -> Picture:
    return Picture(
        figure_4(study),
        f"Figure 4. PIEs per class under one-shot pruning{_opaque_bars(study)}",
        "Bar charts of PIEs by true class, a row for each experiment, columns sparsities.",
    )


def _embeddings(study: Study) -> Picture:
    near, most = _near(study), _most(study)
    both = near if near == most else f"{near} and {most}"
    return Picture(
        figure_5(study),
        f"Figure 5. UMAP of every experiment: dense, {both} pruned, coloured by modal prediction",
        "Scatter plots of test images in two dimensions; rows sparsities, columns experiments.",
    )


def _gallery(study: Study, dataset: Dataset) -> Picture:
    return Picture(
        figure_6(study, dataset.test_images),
        f"Figure 6. PIEs at {_near(study)} on which most models agree: the label, the modal "
        "prediction of the dense models (U) and of the pruned ones (S), and how many models "
        "agree with it",
        "A gallery of test images, one row per experiment, with their labels and predictions.",
    )


def _all_bars(study: Study) -> Picture:
    return Picture(
        figure_7(study),
        f"Figure 7. PIEs per class at every sparsity{_opaque_bars(study)}",
        "Bar charts of PIEs by true class, rows sparsities, columns experiments.",
    )


def _when(study: Study, published: Published | None) -> Picture:
    paper = "; stars: the paper's GMP and Δ GMP" if published is not None else ""
    return Picture(
        when_to_prune(study, published),
        "When to prune. What pruning costs by its start step; bars: 95% bootstrap intervals over "
        f"seeds{paper}",
        "Line charts with the start of pruning on x, a line for each training method: accuracy "
        "lost, PIEs, Q-Score and prediction depth of PIEs.",
    )


def _curves(study: Study, curves: Curves) -> Picture:
    return Picture(
        training_curves(study, curves),
        "Training loss: mean and range over seeds; each stage of training has its own axis",
        "Line charts of the loss by step, one panel per experiment, one line per sparsity.",
    )
