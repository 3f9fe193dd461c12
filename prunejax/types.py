"""Array, tree and path aliases, and the one thing that is trained: `TrainState`."""

import pathlib
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import struct
from jaxtyping import Num

Array = jax.Array | np.ndarray
Key = jax.Array
Scalar = int | float | Num[Array, ""]
Path = pathlib.Path | epath.Path
"""On a disk, or in a bucket (`gs://`, `s3://`)."""
Tree = Any
"""A pytree of arrays, for instance the nested dictionary `params`."""


@struct.dataclass
class TrainState:
    """All that changes while a model trains, arrays only; a population is the same with a leading `models` axis.

    The step counter is deliberately not a leaf: it is shared by the whole population, so that a branch on it stays a
    branch under `vmap`.
    """

    params: Tree
    batch_stats: Tree
    masks: Tree
    opt_state: Tree
    frozen_at: Tree = np.int32(-1)
    """int32: the step of its stage at which the model diverged or collapsed and all else here stopped, -1 before."""
    plateau_steps: Tree = np.int32(0)
    """int32: for how many steps in a row the contrastive loss has been that of a collapsed encoder."""
