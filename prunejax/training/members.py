"""The members of a population: one model for each seed and sparsity."""

import dataclasses

import numpy as np
from jaxtyping import Float32, Int32

from prunejax.config import Config


@dataclasses.dataclass(frozen=True)
class Members:
    """The seed and the sparsity of each member, sparsities outermost, then seeds."""

    seeds: Int32[np.ndarray, " models"]
    sparsities: Float32[np.ndarray, " models"]
    """The target of each; 0 for dense models."""

    def __len__(self) -> int:
        return len(self.seeds)

    def chosen(self, rows: np.ndarray) -> "Members":
        """The members with these indices, int `[chosen]`."""
        return Members(self.seeds[rows], self.sparsities[rows])


def members_of(config: Config) -> Members:
    """Returns the members that `config` requests; a dense experiment has sparsity 0 only."""
    seeds = np.arange(config.seed, config.seed + config.models, dtype=np.int32)
    levels = np.array(config.sparsities if config.experiment.pruning else (0.0,), np.float32)
    return Members(
        seeds=np.tile(seeds, len(levels)),
        sparsities=np.repeat(levels, len(seeds)),
    )
