"""What a report reads: the measures of one run, by model, image and sparsity."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from prunejax.config import Config
from prunejax.config.levels import as_requested
from prunejax.measures import metrics
from prunejax.measures.entry import Column


@dataclasses.dataclass(frozen=True, eq=False)
class RunMeasures:
    """The measures of one run's models."""

    config: Config
    """The configuration of the run, in `measure` with the settings of these measures."""
    seeds: np.ndarray
    """int32 `[models]`."""
    sparsities: np.ndarray
    """float32 `[models]`."""
    failed: np.ndarray
    """bool `[models]`: which diverged or collapsed, and so have no measures."""
    labels: np.ndarray
    """int32 `[examples]`."""
    class_names: tuple[str, ...]
    data_checksum: str
    """The checksum of the data it was trained and measured on."""
    arrays: Mapping[str, np.ndarray]
    """By name, for instance `predictions`: `[models, ...]`, or `[levels, ...]` for arrays of one
    model of each sparsity, ascending. NaN, 0 or False where nothing was measured."""
    dims: Mapping[str, tuple[str | int, ...]]
    """The dimensions of each array, for instance `("models", "examples")`."""
    measured: Mapping[str, np.ndarray]
    """For which models or levels each array was measured: bool, of its first dimension."""
    columns: tuple[Column, ...] = ()
    """What the measures that are there want shown in a table of all cells."""
    decided_by: frozenset[str] = frozenset()
    """Fields of `config.measure` on which one of these measures depends."""
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """By the name of a measure that is not there, why."""
    level: float | None = None
    """The sparsity of these models, where `at` has chosen them."""

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.config.experiment.name

    @property
    def levels(self) -> list[float]:
        """The different sparsities, ascending, as they were requested."""
        if self.level is not None:
            return [self.level]
        return [as_requested(level) for level in np.unique(self.sparsities)]

    @property
    def start_fraction(self) -> float | None:
        """The start step of pruning as a fraction of the first stage; None without `pruning.start`.

        NaN where the number of steps of the stage is not known.
        """
        pruning = self.config.experiment.pruning
        if pruning is None or not isinstance(pruning.start, int):
            return None if pruning is None else pruning.start
        steps = self.config.display.first_stage_steps
        return (pruning.start - self.config.prune.count_from) / steps if steps else np.nan

    @property
    def predictions(self) -> np.ndarray:
        """int32 `[models, examples]`."""
        return self.values("predictions")

    @property
    def accuracy(self) -> np.ndarray:
        """Test accuracy, `[models]`, in [0, 1]; NaN of those that are failed."""
        known = np.asarray(metrics.accuracy(self.predictions, self.labels))
        return np.where(self.failed, np.nan, known)

    @property
    def modal_class(self) -> np.ndarray:
        """The class that most models predict, `[examples]`; of several the lowest.

        Raises:
            ValueError: if all models are failed.
        """
        return np.asarray(metrics.modal_class(self._votes, len(self.class_names)))

    @property
    def _votes(self) -> np.ndarray:
        """The predictions of the models that are not failed."""
        return self.predictions[~self.failed]

    def has(self, array: str) -> bool:
        """Whether an array is there."""
        return array in self.arrays

    def values(self, array: str) -> np.ndarray:
        """An array.

        Raises:
            KeyError: if it is not there.
        """
        return self.arrays[array]

    def at(self, level: float) -> "RunMeasures":
        """The measures of the models of one sparsity, without those that are failed.

        Raises:
            ValueError: if no model has that sparsity.
        """
        levels = self.levels
        place = levels.index(level)
        kept = (self.sparsities == np.float32(level)) & ~self.failed
        kept_levels = np.arange(len(levels)) == place
        return self._only(kept, kept_levels, level=level)

    def trained(self, level: float) -> int:
        """How many models of one sparsity were trained, those that are failed included."""
        return int(np.sum(self.sparsities == np.float32(level)))

    def only_measured(self, array: str) -> "RunMeasures | None":
        """The measures of the models for which an array was measured; None if it was for none."""
        if not self.has(array) or not self.measured[array].any():
            return None
        measured = self.measured[array]
        levels = np.array(self.levels, np.float32)
        if self.dims[array][0] == "levels":
            kept = np.isin(self.sparsities, levels[measured])
        else:
            kept = measured
        if self.level is not None:
            return self._only(kept, np.ones(1, bool))
        return self._only(kept, np.isin(levels, self.sparsities[kept]))

    def pies(self, dense: "RunMeasures") -> np.ndarray:
        """Which test images are PIEs of these models against `dense` ones, bool `[examples]`.

        Raises:
            ValueError: if all models of one side are failed.
        """
        found = metrics.pruning_identified_exemplars(
            dense._votes, self._votes, len(self.class_names)
        )
        return np.asarray(found)

    def _only(self, models: np.ndarray, levels: np.ndarray, **others: Any) -> "RunMeasures":  # noqa: ANN401
        """The rows of some models, and of some levels, both bool."""
        arrays = {}
        measured = {}
        for name, array in self.arrays.items():
            kept = levels if self.dims[name][0] == "levels" else models
            arrays[name] = array[kept]
            measured[name] = self.measured[name][kept]
        return dataclasses.replace(
            self,
            seeds=self.seeds[models],
            sparsities=self.sparsities[models],
            failed=self.failed[models],
            arrays=arrays,
            measured=measured,
            **others,
        )
