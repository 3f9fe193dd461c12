"""The PIEs of training noise alone, and how PIEs depend on the size of a population."""

from typing import NamedTuple

import numpy as np

from prunejax.measures import RunMeasures
from prunejax.report.statistics import floor_at, noise_floor, pie_counts, shuffled_ranks
from prunejax.report.study import Study, at, holder_of
from prunejax.report.table import Cell

DRAWS = 100
"""Draws of subsets of each size."""
FLOOR = (
    "Noise floor: the number of PIEs by training noise alone between two populations of the sizes "
    f"compared. Estimated between random halves of the dense models ({DRAWS} splits), times the "
    "square root of the size of a half over the number of models (the harmonic mean of unequal "
    "numbers); a rough estimate below 8 models."
)
"""The note about the noise floor."""
NO_FLOOR = "needs 2 dense models"
MOST_SIZES = 8
"""The most sizes of subsets in a curve."""


class Floor(NamedTuple):
    """The noise floor of populations as large as those that are compared."""

    mean: float
    low: float
    """The minimum over the splits."""
    high: float
    """The maximum over the splits."""


def floor_of(dense: RunMeasures | None, pruned: int | None = None) -> Floor | None:
    """The noise floor, or None for fewer than 2 dense models.

    Args:
        dense: the dense models.
        pruned: the number of pruned models; None: as many as dense ones.
    """
    if dense is None or len(dense.seeds) < 2:
        return None
    models = len(dense.seeds)
    pruned = models if pruned is None else pruned
    # The noise of a difference is that of both sides: their variances are averaged.
    size = 2 * models * pruned / (models + pruned)
    counts = noise_floor(dense.predictions, len(dense.class_names), DRAWS)
    scaled = floor_at(counts, models // 2, size)
    return Floor(float(scaled.mean()), float(scaled.min()), float(scaled.max()))


def floors_of(study: Study) -> dict[str, Floor | None]:
    """The noise floor of each experiment, from its dense models, for its number of models."""
    # Each takes a hundred splits: experiments of one dense parent and one size share a floor.
    known: dict[tuple[str | None, int | None], Floor | None] = {}
    floors = {}
    for name, run in study.items():
        holder = holder_of(study, name, 0.0)
        dense_run = study.get(holder or "")
        # The configured sizes are compared: failed models do not make a population smaller.
        same = dense_run is None or dense_run.config.models == run.config.models
        key = (holder, None if same else run.config.models)
        if key not in known:
            known[key] = floor_of(at(study, name, 0.0), key[1])
        floors[name] = known[key]
    return floors


def noise_floors(study: Study) -> dict[str, Cell]:
    """As `floors_of`, each as a cell: mean and range of splits."""
    return {name: _cell(floor) for name, floor in floors_of(study).items()}


def _cell(floor: Floor | None) -> Cell:
    if floor is None:
        return Cell(NO_FLOOR)
    return Cell(f"{floor.mean:.0f} [{floor.low:.0f}, {floor.high:.0f}]", floor.mean)


class Curve(NamedTuple):
    """PIEs by the number of models that vote on either side."""

    sizes: list[int]
    pies: list[float]
    """The mean over subsets of that size."""


def noise_by_size(dense: RunMeasures) -> Curve:
    """The PIEs between disjoint subsets of at least 2 dense models."""
    sizes = _sizes(len(dense.seeds) // 2)
    classes = len(dense.class_names)
    counts = [noise_floor(dense.predictions, classes, DRAWS, size) for size in sizes]
    return Curve(sizes, [float(np.mean(count)) for count in counts])


def extrapolated(noise: Curve, models: int) -> Curve:
    """Extrapolates a curve from its largest subsets to all models; see `floor_at`."""
    largest, count = noise.sizes[-1], np.array(noise.pies[-1])
    sizes = list(range(largest, models + 1))
    return Curve(sizes, [float(floor_at(count, largest, size)) for size in sizes])


def pies_by_size(dense: RunMeasures, pruned: RunMeasures) -> Curve:
    """The PIEs between dense and pruned models of subsets of the seeds that both have."""
    seeds = np.intersect1d(dense.seeds, pruned.seeds)
    of_dense = dense.predictions[np.searchsorted(dense.seeds, seeds)]
    of_pruned = pruned.predictions[np.searchsorted(pruned.seeds, seeds)]
    ranks = shuffled_ranks(len(seeds), DRAWS)
    sizes = _sizes(len(seeds))
    means = []
    for size in sizes:
        chosen = (ranks < size).astype(np.float32)
        counts = pie_counts(of_dense, of_pruned, chosen, chosen, len(dense.class_names))
        means.append(float(np.mean(counts)))
    return Curve(sizes, means)


def _sizes(most: int) -> list[int]:
    """Numbers of models from 1 to `most`, about evenly on a logarithmic scale."""
    if most < 1:
        return []
    spread = np.geomspace(1, most, min(most, MOST_SIZES))
    return sorted({round(size) for size in spread.tolist()})
