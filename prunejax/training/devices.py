"""Where the members of a population are: a mesh of devices, and programs that take turns on it.

The mesh has the axes `models` and `batch`, over the devices of all processes: with fewer members
than devices, those along `batch` share a model's batch.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prunejax.config import Execution, UserError
from prunejax.nn.target import Target
from prunejax.training import hosts
from prunejax.types import Array, Tree

PER_MODEL, SHARED = PartitionSpec("models"), PartitionSpec()


def make_mesh(execution: Execution, models: int) -> Mesh:
    """The devices for a program of `models` members.

    The axis `models` is as long as there are members for, and divides the devices, so that no
    process is left without; padding fills it up. One process alone leaves devices
    idle instead.

    Raises:
        UserError: if `execution.devices_per_model` does not divide the devices.
    """
    devices = jax.devices()
    alone = hosts.alone()
    sharing = execution.devices_per_model
    if sharing is None and alone and devices[0].platform == "cpu":
        sharing = 1  # XLA splits one convolution over the cores by itself
    if sharing is None:
        divisors = [n for n in range(1, len(devices) + 1) if len(devices) % n == 0]
        enough = [n for n in divisors if n >= min(models, len(devices))]
        sharing = len(devices) // min(enough)
    if len(devices) % sharing:
        raise UserError(
            f"execution.devices_per_model is {sharing}, which does not divide "
            f"{len(devices)} devices"
        )
    rows = len(devices) // sharing
    if alone:
        rows = min(rows, models)
    used = np.array(devices[: rows * sharing])
    return Mesh(used.reshape(rows, sharing), ("models", "batch"))


def target_of(mesh: Mesh) -> Target:
    """The devices for which programs on this mesh are traced."""
    return Target(mesh.devices.flat[0].platform, mesh.shape["batch"] > 1)


def chunk_rows(count: int, most: int, rows: int) -> list[np.ndarray]:
    """Divides members among programs: the fewest chunks of about `most`, all of one size.

    Args:
        count: members.
        most: members of a chunk.
        rows: of the mesh, which divide every chunk.

    Returns:
        The indices of each chunk's members. Those that one row of the mesh has in all chunks
        follow each other. The last member is repeated as padding; its copies are trained, and
        dropped.
    """
    chunks = math.ceil(count / most)
    each = math.ceil(count / (chunks * rows))
    indices = np.minimum(np.arange(rows * chunks * each), count - 1)
    by_chunk = indices.reshape(rows, chunks, each).swapaxes(0, 1)
    return list(by_chunk.reshape(chunks, -1))


def device_put(tree: Tree, mesh: Mesh, spec: PartitionSpec) -> Tree:
    """Puts arrays that every process has completely on the devices, without communication."""
    sharding = NamedSharding(mesh, spec)

    def put(leaf: Any) -> jax.Array:  # noqa: ANN401
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put, tree)


def join(parts: Sequence[Tree], mesh: Mesh) -> Tree:
    """Returns a copy of the chunks' members on the devices, in order, padding last."""
    return _joining(mesh)(*parts)


@cache
def _joining(mesh: Mesh) -> Callable[..., Tree]:
    def concatenate(*leaves: Array) -> Array:
        return jnp.copy(jnp.concatenate(leaves))

    def glue(*parts: Tree) -> Tree:
        return jax.tree.map(concatenate, *parts)

    by_row = jax.shard_map(
        glue, mesh=mesh, in_specs=PER_MODEL, out_specs=PER_MODEL, check_vma=False
    )
    return jax.jit(by_row)


def local_rows(leaf: Array) -> dict[int, np.ndarray]:
    """Returns the rows of an array that this process writes, in blocks by their first row."""
    if isinstance(leaf, np.ndarray):
        return {0: leaf}
    blocks = {}
    for shard in leaf.addressable_shards:
        if shard.replica_id == 0:
            blocks[shard.index[0].start or 0] = np.asarray(shard.data)
    return blocks


def split_batch(mesh: Mesh) -> Callable[[Array], Array]:
    """Returns a function that spreads the rows of a single model's array along `batch`.

    The compiler does the rest: the statistics of batch normalisation, the loss and the gradients
    are the whole batch's. Rows that the devices do not divide, as an epoch's last may be, are
    computed whole by each of them.
    """
    shares = mesh.shape["batch"]

    def split(rows: Array) -> Array:
        if shares == 1 or len(rows) % shares:
            return rows
        return jax.lax.with_sharding_constraint(rows, PartitionSpec("batch"))

    return split


def over_models(function: Callable, mesh: Mesh, in_specs: tuple) -> Callable:
    """Returns `function` of the members of each row of the mesh; rows do not communicate."""
    # custom_vmap loses track of what varies over devices, so that it cannot be checked.
    by_hand = partial(
        jax.shard_map, mesh=mesh, in_specs=in_specs, out_specs=PER_MODEL, check_vma=False
    )
    if mesh.shape["batch"] > 1:
        return by_hand(function, axis_names={"models"})
    return by_hand(function)
