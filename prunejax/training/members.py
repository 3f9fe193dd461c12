"""Who is in a population."""

import dataclasses

import numpy as np
from jaxtyping import Float32, Int32

from prunejax.config import Config


@dataclasses.dataclass(frozen=True)
class Members:
    """The members of a population: begins of pruning outermost, then sparsities, then seeds."""

    seeds: Int32[np.ndarray, " models"]
    sparsities: Float32[np.ndarray, " models"]
    begins: Int32[np.ndarray, " models"]
    """Of each the place of its begin among the experiment's `pruning.begins`; 0 without these."""

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def cells(self) -> list[tuple[int, float]]:
        """Of each member its begin, as in `begins`, and its sparsity."""
        return list(zip(self.begins.tolist(), self.sparsities.tolist(), strict=True))

    def chosen(self, rows: np.ndarray) -> "Members":
        """Those with these indices."""
        return Members(self.seeds[rows], self.sparsities[rows], self.begins[rows])


def members_of(config: Config) -> Members:
    """The members that `config` asks for; a dense experiment has sparsity 0 only."""
    seeds = np.arange(config.seed, config.seed + config.models, dtype=np.int32)
    pruning = config.experiment.pruning
    levels = np.array(config.sparsities if pruning else (0.0,), np.float32)
    begins = np.arange(len(pruning.begins) if pruning and pruning.begins else 1, dtype=np.int32)
    return Members(
        seeds=np.tile(seeds, len(levels) * len(begins)),
        sparsities=np.tile(np.repeat(levels, len(seeds)), len(begins)),
        begins=np.repeat(begins, len(levels) * len(seeds)),
    )
