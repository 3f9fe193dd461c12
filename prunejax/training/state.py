"""The one thing that is trained, and the random keys that its training draws from."""

import zlib

import jax
import numpy as np
from flax import struct

from prunejax.types import Key, Scalar, Tree


@struct.dataclass
class TrainState:
    """All that changes while a model trains; a population has a leading `models` axis.

    It holds arrays only. The step counter is deliberately not a leaf: it is shared by the whole
    population, so that a branch on it stays a branch under `vmap`.
    """

    params: Tree
    """By part: `encoder`, then `projection` or `head`."""
    batch_stats: Tree
    """Of the encoder."""
    masks: Tree
    """With the structure of `params`."""
    opt_state: Tree
    frozen_at: Tree = np.int32(-1)
    """int32: the step of its stage at which the model diverged or collapsed and all else here
    stopped, -1 before."""
    plateau_steps: Tree = np.int32(0)
    """int32: for how many steps in a row the loss has been that of a collapsed encoder."""


def key_for(seed: Scalar, purpose: str, step: Scalar = 0) -> Key:
    """The key of one purpose at one step.

    No generator state is kept: a member draws the same alone, in a population, after a resume and
    on any number of devices.
    """
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))
    return jax.random.fold_in(key, step)
