"""Who is in a population."""

import dataclasses

import numpy as np
from jaxtyping import Float32, Int32

from prunejax.config import Config


@dataclasses.dataclass(frozen=True)
class Members:
    """The members of a population, sparsities outermost."""

    seeds: Int32[np.ndarray, " models"]
    sparsities: Float32[np.ndarray, " models"]

    def __len__(self) -> int:
        return len(self.seeds)

    def chosen(self, rows: np.ndarray) -> "Members":
        """Those with these indices."""
        return Members(self.seeds[rows], self.sparsities[rows])


def members_of(config: Config) -> Members:
    """The members that `config` asks for; a dense experiment has sparsity 0 only."""
    seeds = np.arange(config.seed, config.seed + config.models, dtype=np.int32)
    levels = config.sparsities if config.experiment.pruning else (0.0,)
    sparsities = np.array(levels, np.float32)
    return Members(np.tile(seeds, len(sparsities)), np.repeat(sparsities, len(seeds)))
