"""The train state, its random keys, and JAX's defaults that it depends on."""

import contextlib
import functools
import inspect
import zlib
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar, cast

import jax
import numpy as np
from flax import struct

from prunejax.types import Key, Scalar, Tree

P = ParamSpec("P")
T = TypeVar("T")
IMPLEMENTATION = "threefry2x32"
"""JAX's name of the random generator."""
OFFSET = "jax_random_seed_offset"
"""JAX's option that shifts all seeds; a later version may not have it."""


@struct.dataclass
class TrainState:
    """Everything that changes while a model trains; a population has a leading `models` axis.

    It holds arrays only. The step counter is deliberately not a leaf: it is shared by the whole
    population, so that a branch on it stays a branch under `vmap`.
    """

    params: Tree
    """By part: `encoder`, then `projection` or `head`."""
    batch_stats: Tree
    """The running statistics of the encoder."""
    masks: Tree
    """With the structure of `params`."""
    opt_state: Tree
    failed_at: Tree = np.int32(-1)
    """int32: the step of its stage at which the model diverged or collapsed, -1 before; everything
    else is constant from then on."""
    plateau_steps: Tree = np.int32(0)
    """int32: for how many steps in a row the loss has been that of a collapsed encoder."""


def key_for(seed: Scalar, purpose: str, step: Scalar = 0) -> Key:
    """The key of one purpose at one step.

    No generator state is kept: a member draws the same alone, in a population, after a resume and
    on any number of devices.
    """
    # JAX will add JAX_RANDOM_SEED_OFFSET, which must not change the models.
    seed = seed - offset if (offset := getattr(jax.config, OFFSET, 0)) else seed
    key = jax.random.key(seed, impl=IMPLEMENTATION)
    key = jax.random.fold_in(key, zlib.crc32(purpose.encode()))
    return jax.random.fold_in(key, step)


@contextlib.contextmanager
def own_switches() -> Iterator[None]:
    """Within the block JAX has its own defaults for dtypes and random numbers.

    `JAX_ENABLE_X64`, `JAX_NUMPY_DTYPE_PROMOTION`, `JAX_DEFAULT_PRNG_IMPL` and
    `JAX_THREEFRY_PARTITIONABLE` hold for a process, and would make other models, or none.
    """
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.default_prng_impl(IMPLEMENTATION),
        jax.threefry_partitionable(True),
    ):
        yield


def under_own_switches(function: Callable[P, T]) -> Callable[P, T]:
    """Returns `function` under `own_switches`; of a generator only what it computes itself."""
    if inspect.isgeneratorfunction(inspect.unwrap(function)):
        return cast(Callable[P, T], _stepwise(cast(Callable[..., Any], function)))

    @functools.wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> T:
        with own_switches():
            return function(*args, **keywords)

    return call


def _stepwise(function: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    @functools.wraps(function)
    def generate(*args: object, **keywords: object) -> Iterator[Any]:
        with contextlib.closing(function(*args, **keywords)) as inner:
            while True:
                with own_switches():
                    try:
                        value = next(inner)
                    except StopIteration:
                        return
                yield value

    return generate
