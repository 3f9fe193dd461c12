"""Trained models applied to images, in evaluation mode."""

import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt8

from prunejax.config import Config
from prunejax.methods.augment import normalise
from prunejax.nn import make_networks
from prunejax.nn.target import traced_for
from prunejax.training.devices import PER_MODEL, SHARED, device_put, over_models, target_of
from prunejax.training.state import TrainState, under_own_switches
from prunejax.types import Array


class Outputs(NamedTuple):
    """The outputs of some models for some images, on the device."""

    models: slice
    examples: slice
    representations: Array
    """`[models, examples, dim]`, not normalised."""
    logits: Array
    """`[models, examples, classes]`; of 0 classes where the models have no linear head."""
    probes: list[Array]
    """Each `[models, examples, channels]`, averaged over positions; see the architecture."""


def make_apply(config: Config) -> Callable[..., tuple[Array, Array, list[Array]]]:
    """Returns `(state of one model, images uint8) -> representations, logits, probes`."""

    def apply(
        state: TrainState, images: UInt8[Array, "batch h w c"]
    ) -> tuple[Array, Array, list[Array]]:
        head = state.params.get("head")
        num_classes = head["Dense_0"]["bias"].size if head else 0
        networks: dict[str, Any] = make_networks(
            config.model, num_classes, config.compute_dtype, config.execution.convolution
        )
        inputs = normalise(jnp.asarray(images, jnp.float32) / 255, config.data)
        variables = {"params": state.params["encoder"], "batch_stats": state.batch_stats}
        representations, probes = networks["encoder"].apply(variables, inputs)
        logits = jnp.zeros((len(images), 0))
        if head:
            logits = networks["head"].apply({"params": head}, representations)
        return representations, logits, probes

    return apply


@under_own_switches
def apply_in_batches(
    config: Config,
    state: TrainState,
    images: UInt8[np.ndarray, "examples h w c"],
    batch_size: int = 500,
) -> Iterator[Outputs]:
    """Yields outputs until every model of `state` has been applied to every image.

    So no array over models, examples and features is kept. `execution.models_per_program`, or 8,
    models are applied together, divided among all devices of this process.

    Args:
        config: of the run.
        state: NumPy `[models, ...]`.
        images: uint8 `[examples, height, width, channels]`.
        batch_size: images at once.
    """
    count = len(jax.tree.leaves(state.params)[0])
    most = config.execution.models_per_program or 8
    for first in range(0, count, most):
        models = slice(first, min(first + most, count))
        size = models.stop - models.start
        mesh = _mesh_for(size)
        apply = _make_population_apply(config, mesh)
        # Each device has as many; the last model is repeated as padding.
        padded_size = math.ceil(size / mesh.size) * mesh.size
        rows = np.minimum(np.arange(first, first + padded_size), models.stop - 1)
        part = device_put(jax.tree.map(lambda leaf, rows=rows: leaf[rows], state), mesh, PER_MODEL)
        for start in range(0, len(images), batch_size):
            examples = slice(start, min(start + batch_size, len(images)))
            outputs = apply(part, images[examples])
            yield Outputs(models, examples, *jax.tree.map(partial(_first, size), outputs))


def _first(size: int, leaf: Array) -> Array:
    return leaf if len(leaf) == size else leaf[:size]


def _mesh_for(models: int) -> Mesh:
    """The devices of this process among which the models are divided."""
    devices = jax.local_devices()
    return Mesh(np.array(devices[: min(len(devices), models)]).reshape(-1, 1), ("models", "batch"))


@cache
def _make_population_apply(config: Config, mesh: Mesh) -> Any:  # noqa: ANN401
    mapped = jax.vmap(make_apply(config), in_axes=(0, None))
    by_device = over_models(mapped, mesh, (PER_MODEL, SHARED))

    def apply(state: TrainState, images: Array) -> tuple[Array, Array, list[Array]]:
        with traced_for(target_of(mesh)):
            return by_device(state, images)

    return jax.jit(apply)
