"""A population restored from its checkpoint, on any machine."""

import dataclasses

import numpy as np
from jaxtyping import UInt8

from prunejax.config import Config, UserError
from prunejax.training.inference import apply_in_batches
from prunejax.training.members import Members
from prunejax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class RestoredPopulation:
    """A population in NumPy, with a leading `models` axis, whatever devices wrote it."""

    config: Config
    seeds: np.ndarray
    """The seed of each model, `[models]`."""
    sparsities: np.ndarray
    """Each model's target, `[models]`, 0 for dense ones."""
    state: TrainState
    step: int
    """Steps trained so far, through all stages."""
    total_steps: int
    class_names: tuple[str, ...]
    data_checksum: str
    damaged: tuple[int, ...] = ()
    """Steps of newer checkpoints, which could not be restored as they were written."""

    @property
    def members(self) -> Members:
        """The members of the population."""
        return Members(self.seeds, self.sparsities)

    @property
    def failed(self) -> np.ndarray:
        """Which models diverged or collapsed, and were not trained to the end, bool `[models]`."""
        return np.asarray(self.state.failed_at) >= 0

    def predict(self, images: UInt8[np.ndarray, "examples height width channels"]) -> np.ndarray:
        """The class each model predicts, int32 `[models, examples]`; of equal logits the lowest.

        Raises:
            UserError: if the models have no linear head yet.
        """
        if "head" not in self.state.params:
            raise UserError(
                f"{self.config.experiment.name} has no linear head at step {self.step}; "
                "train it to the end"
            )
        predictions = np.empty((len(self.seeds), len(images)), np.int32)
        for outputs in apply_in_batches(self.config, self.state, images):
            classes = np.argmax(np.asarray(outputs.logits), axis=-1)
            predictions[outputs.models, outputs.examples] = classes
        return predictions

    def representations(
        self, images: UInt8[np.ndarray, "examples height width channels"]
    ) -> np.ndarray:
        """The encoder's un-normalised output, float32 `[models, examples, dim]`."""
        representations = np.empty((len(self.seeds), len(images), 0), np.float32)
        for outputs in apply_in_batches(self.config, self.state, images):
            if representations.shape[-1] == 0:
                dim = outputs.representations.shape[-1]
                representations = np.empty((len(self.seeds), len(images), dim), np.float32)
            representations[outputs.models, outputs.examples] = outputs.representations
        return representations
