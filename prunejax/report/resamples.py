"""Bootstrap replicates of a study over its seeds, and values with their 95% intervals."""

import numpy as np

from prunejax.measures import RunMeasures
from prunejax.report.statistics import bootstrap_weights, interval, pie_counts
from prunejax.report.study import Study
from prunejax.report.table import Cell

INTERVALS = (
    "bootstrap intervals over seeds, widened by Student's t where seeds are few; those of PIEs are "
    "wide then"
)


class Resamples:
    """Replicates of a study: the same draws of seeds for all cells, so that pairs stay pairs.

    If runs have different seeds, intervals are therefore wider than necessary.
    """

    def __init__(self, study: Study) -> None:
        """Draws the seeds of all runs, with replacement."""
        self._study = study
        self._of_measured: dict[str, Resamples] = {}
        # One weight for each seed, whatever the cell: runs of one seed share batches and views.
        self.seeds = np.unique(np.concatenate([run.seeds for run in study.values()]))
        self.weights = bootstrap_weights(len(self.seeds))

    def of(self, models: RunMeasures) -> np.ndarray:
        """Each model's weight in each resample, `[resamples, models]`."""
        return self.weights[:, np.searchsorted(self.seeds, models.seeds)]

    def of_measured(self, array: str) -> "Resamples":
        """Draws among the seeds for which an array was measured in any run, as many as there are.

        Draws among all seeds would have a random number of these, which makes intervals too wide.
        """
        if array not in self._of_measured:
            known = {name: run.only_measured(array) for name, run in self._study.items()}
            measured = {name: run for name, run in known.items() if run is not None}
            self._of_measured[array] = Resamples(measured)
        return self._of_measured[array]

    def mean(self, models: RunMeasures, values: np.ndarray) -> np.ndarray:
        """Replicates `[resamples]` of the mean of `values [models]`; NaN if no model is drawn."""
        weights = self.of(models)
        total = weights.sum(1)
        # A cell in which models failed may have none in a resample.
        return np.where(total > 0, weights @ values / np.maximum(total, 1), np.nan)

    def pies(self, dense: RunMeasures, pruned: RunMeasures) -> np.ndarray:
        """Replicates `[resamples]` of the number of PIEs; NaN as in `mean`."""
        of_dense = self.of(dense)
        of_pruned = self.of(pruned)
        classes = len(dense.class_names)
        counts = pie_counts(dense.predictions, pruned.predictions, of_dense, of_pruned, classes)
        return np.where(of_dense.any(1) & of_pruned.any(1), counts, np.nan)


def mean_with_interval(
    resamples: Resamples, models: RunMeasures, values: np.ndarray, digits: int
) -> Cell:
    """Returns the mean of one value of each model, with its 95% interval.

    Args:
        resamples: of the study.
        models: the models.
        values: their values, `[models]`.
        digits: the digits after the point.
    """
    return with_interval(float(values.mean()), resamples.mean(models, values), digits, len(values))


def with_interval(
    estimate: float, replicates: np.ndarray, digits: int, models: int, least: float = -np.inf
) -> Cell:
    """A value with its 95% interval.

    Args:
        estimate: the value.
        replicates: of it, `[resamples]`; those that are not finite are ignored.
        digits: the digits after the point.
        models: the number of models behind the value; fewer than 2 have no interval.
        least: the least value that the interval may include.
    """
    if not np.isfinite(estimate):
        return Cell("not finite")
    text = f"{estimate:.{digits}f}"
    finite = replicates[np.isfinite(replicates)]
    if models < 2 or not len(finite):
        return Cell(text, estimate, "an interval needs 2 models")
    low, high = interval(estimate, finite, models)
    low, high = max(low, least), max(high, least)
    return Cell(f"{text} [{low:.{digits}f}, {high:.{digits}f}]", estimate, interval=(low, high))
