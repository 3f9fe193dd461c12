"""Models of a restored run applied to the images of a data set, as measures read it."""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import numpy as np
from jaxtyping import Int, UInt8

from prunejax.config import MeasureSettings, UserError
from prunejax.data import Dataset, balanced_subset
from prunejax.measures.entry import Features, ModelOutputs
from prunejax.runs.restored import RestoredPopulation
from prunejax.training.inference import apply_in_batches


def fitted_examples(dataset: Dataset, settings: MeasureSettings) -> Int[np.ndarray, " fitted"]:
    """Which training images probes are fitted on: a class-balanced subset, always the same."""
    count = settings.depth_examples or len(dataset.train_labels)
    return balanced_subset(dataset.train_labels, count, seed=0)


def one_by_one(
    trained: RestoredPopulation,
    rows: Int[np.ndarray, " rows"],
    dataset: Dataset,
    settings: MeasureSettings,
) -> Iterator[ModelOutputs]:
    """Yields the outputs of each of these models, which are computed at first use.

    Args:
        trained: the run.
        rows: the models, int `[rows]`.
        dataset: its images.
        settings: of the probes.
    """
    for row in rows:
        yield _of_model(trained, int(row), dataset, settings)


def streamed(
    trained: RestoredPopulation,
    rows: Int[np.ndarray, " rows"],
    dataset: Dataset,
    settings: MeasureSettings,
    advance: Callable[[float], object],
) -> Iterator[ModelOutputs]:
    """Yields the outputs of each of these models, of which several are applied at once.

    Args:
        trained: the run.
        rows: the models.
        dataset: its images.
        settings: of the probes.
        advance: is called with the number of images, over all models, that have been seen since.
    """
    state = jax.tree.map(lambda leaf: leaf[rows], trained.state)
    batches = []
    for batch in apply_in_batches(trained.config, state, dataset.test_images):
        batches.append(jax.device_get((batch.representations, batch.logits)))
        models = rows[batch.models]
        advance(len(models) * (batch.examples.stop - batch.examples.start))
        if batch.examples.stop < len(dataset.test_images):
            continue
        # These models have seen all images: only their outputs are in memory, not the population's.
        representations = np.concatenate([batch[0] for batch in batches], axis=1)
        logits = np.concatenate([batch[1] for batch in batches], axis=1)
        batches = []
        for place, row in enumerate(models):
            features = Features(representations[place], logits[place], probes=[])
            yield _of_model(trained, int(row), dataset, settings, features)


def _of_model(
    trained: RestoredPopulation,
    row: int,
    dataset: Dataset,
    settings: MeasureSettings,
    features: Features | None = None,
) -> ModelOutputs:
    return ModelOutputs(
        on_test=partial(_apply, trained, row, dataset.test_images),
        on_train=partial(_apply_to_fitted, trained, row, dataset, settings),
        streamed=features,
    )


def _apply_to_fitted(
    trained: RestoredPopulation, row: int, dataset: Dataset, settings: MeasureSettings
) -> Features:
    requested = settings.depth_examples
    if requested is not None and requested > len(dataset.train_labels):
        raise UserError(
            f"measure.depth_examples is {requested}, "
            f"but there are {len(dataset.train_labels)} training images"
        )
    images = dataset.train_images[fitted_examples(dataset, settings)]
    return _apply(trained, row, images)


def _apply(
    trained: RestoredPopulation, row: int, images: UInt8[np.ndarray, "examples h w c"]
) -> Features:
    """One model alone."""
    one = jax.tree.map(lambda leaf: leaf[row : row + 1], trained.state)
    batches = []
    for batch in apply_in_batches(trained.config, one, images):
        representations, logits, probes = jax.device_get(batch[2:])
        batches.append(Features(representations[0], logits[0], [probe[0] for probe in probes]))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
