"""Checkpoint -> measures of every model on the test set, in one `measures.npz` per run."""

import dataclasses
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from prunejax import metrics, population
from prunejax.checkpoint import Population
from prunejax.config import UserError
from prunejax.data import Dataset


@dataclasses.dataclass(frozen=True)
class Measures:
    """What one run's models do with the test images."""

    predictions: np.ndarray
    """int32 `[models, examples]`."""
    labels: np.ndarray
    """int32 `[examples]`."""
    seeds: np.ndarray
    """int32 `[models]`."""
    sparsities: np.ndarray
    """float32 `[models]`."""
    q: np.ndarray
    """float32 `[models, examples]`, as `z` and `l1`."""
    z: np.ndarray
    l1: np.ndarray
    class_names: np.ndarray
    """str `[classes]`."""
    data_checksum: np.ndarray
    """str []."""

    @property
    def levels(self) -> list[float]:
        """The different sparsities, ascending."""
        return sorted(set(self.sparsities.tolist()))

    def at(self, sparsity: float) -> np.ndarray:
        """Predictions of the models of one sparsity, `[seeds, examples]`."""
        return self.predictions[self.sparsities == np.float32(sparsity)]

    def accuracy(self, sparsity: float) -> np.ndarray:
        """Test accuracy of the models of one sparsity, `[seeds]`, in [0, 1]."""
        return np.asarray(metrics.accuracy(self.at(sparsity), self.labels))

    def pies(self, dense: "Measures", sparsity: float) -> np.ndarray:
        """Which test images are PIEs of the models of one sparsity against `dense`, bool `[examples]`."""
        found = metrics.pruning_identified_exemplars(dense.at(0.0), self.at(sparsity), len(self.class_names))
        return np.asarray(found)

    def pies_per_class(self, dense: "Measures", sparsity: float) -> np.ndarray:
        """How many PIEs have each true label, `[classes]`."""
        return np.bincount(self.labels[self.pies(dense, sparsity)], minlength=len(self.class_names))


def dense_of(experiment: str) -> str:
    """The dense experiment that a pruned one is compared with."""
    return experiment.split("_")[0] + "_dense"


def evaluate(
    trained: Population, dataset: Dataset, on_images: Callable[[int], object] = lambda count: None
) -> Measures:
    """Measures every model on the test set; `on_images` hears how many images each batch added, over all models.

    Raises:
        UserError: if the run is unfinished, or the data is not what it was trained on.
    """
    if trained.step < trained.total_steps:
        raise UserError(
            f"{trained.config.experiment.name} stands at step {trained.step} of {trained.total_steps}; train it first"
        )
    if trained.data_checksum != dataset.checksum:
        raise UserError(
            f"{trained.config.experiment.name} was trained on data of checksum {trained.data_checksum}; "
            f"this is {dataset.checksum}"
        )
    shape = (len(trained.seeds), len(dataset.test_labels))
    predictions = np.empty(shape, np.int32)
    scores = {name: np.empty(shape, np.float32) for name in ("q", "z", "l1")}
    for models, examples, representations, logits in population.apply_in_batches(
        trained.config, trained.state, dataset.test_images
    ):
        predictions[models, examples] = logits.argmax(-1)
        for array, values in zip(scores.values(), metrics.q_score(representations), strict=True):
            array[models, examples] = values
        on_images(logits[..., 0].size)
    return Measures(
        predictions,
        dataset.test_labels,
        trained.seeds,
        trained.sparsities,
        **scores,
        class_names=np.array(dataset.class_names),
        data_checksum=np.array(dataset.checksum),
    )


def save(measures: Measures, path: Path) -> None:
    """Writes `measures.npz`, whole or not at all."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    np.savez_compressed(temporary, **dataclasses.asdict(measures))
    temporary.replace(path)


def load(path: Path) -> Measures:
    """Reads `measures.npz`; nothing is unpickled.

    Raises:
        UserError: if the file is missing, damaged or of the wrong shapes.
    """
    names = [field.name for field in dataclasses.fields(Measures)]
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            measures = Measures(**{name: archive[name] for name in names})
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run experiments.evaluate first") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it and run experiments.evaluate again") from None
    shape = (len(measures.seeds), len(measures.labels))
    if measures.sparsities.shape != shape[:1] or any(
        getattr(measures, name).shape != shape for name in ("predictions", "q", "z", "l1")
    ):
        raise UserError(f"{path}: shapes disagree; delete it and run experiments.evaluate again")
    return measures
