"""Where the members of a population are: a mesh of devices, those of all processes, and programs that take turns.

The mesh has the axes `models` and `batch`: with fewer members than devices, those along `batch` share a model's batch.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prunejax import hosts
from prunejax.config import Population, UserError
from prunejax.types import Array, Tree

PER_MODEL, SHARED = PartitionSpec("models"), PartitionSpec()


def make_mesh(config: Population, models: int) -> Mesh:
    """The devices for a program of `models` members.

    The axis `models` is as long as there are members for, and divides the devices, so that no process is left without;
    a member that is missing is padding. One process alone leaves devices idle instead.

    Raises:
        UserError: if `population.devices_per_model` does not divide the devices.
    """
    devices, sharing = jax.devices(), config.devices_per_model
    alone = hosts.alone()
    if sharing is None and alone and devices[0].platform == "cpu":
        sharing = 1  # XLA splits one convolution over the cores by itself
    if sharing is None:
        divisors = [n for n in range(1, len(devices) + 1) if len(devices) % n == 0]
        sharing = len(devices) // min(n for n in divisors if n >= min(models, len(devices)))
    if len(devices) % sharing:
        raise UserError(f"population.devices_per_model is {sharing}, which does not divide {len(devices)} devices")
    rows = len(devices) // sharing
    if alone:
        rows = min(rows, models)
    return Mesh(np.array(devices[: rows * sharing]).reshape(rows, sharing), ("models", "batch"))


def chunk_rows(count: int, most: int, rows: int) -> list[np.ndarray]:
    """The fewest chunks of about `most` members, all of one size that the `rows` of the mesh divide, as indices.

    Those that one row of the mesh has in all chunks follow each other. The last member fills the places left over; its
    copies train along and are dropped.
    """
    chunks = -(-count // most)
    each = -(-count // (chunks * rows))
    indices = np.minimum(np.arange(rows * chunks * each), count - 1)
    return list(indices.reshape(rows, chunks, each).swapaxes(0, 1).reshape(chunks, -1))


def place(tree: Tree, mesh: Mesh, spec: PartitionSpec) -> Tree:
    """Arrays that every process has whole, on the devices; nothing passes between processes."""
    sharding = NamedSharding(mesh, spec)

    def put(leaf: Any) -> jax.Array:  # noqa: ANN401
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put, tree)


def join(parts: Sequence[Tree], mesh: Mesh) -> Tree:
    """A copy of the chunks' members on the devices, in order, the padding last; see `chunk_rows`."""
    return _joining(mesh)(*parts)


@cache
def _joining(mesh: Mesh) -> Callable[..., Tree]:
    def glue(*parts: Tree) -> Tree:
        return jax.tree.map(lambda *leaves: jnp.copy(jnp.concatenate(leaves)), *parts)

    return jax.jit(jax.shard_map(glue, mesh=mesh, in_specs=PER_MODEL, out_specs=PER_MODEL, check_vma=False))


def local_rows(leaf: Array) -> dict[int, np.ndarray]:
    """The rows of an array that this process writes, block by block, by the number of each block's first row."""
    if isinstance(leaf, np.ndarray):
        return {0: leaf}
    shards = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
    return {shard.index[0].start or 0: np.asarray(shard.data) for shard in shards}


def split_batch(mesh: Mesh) -> Callable[[Array], Array]:
    """Returns what has the devices along `batch` share the rows of an array of a single model's step.

    The compiler does the rest: the statistics of batch normalisation, the loss and the gradients are the whole batch's.
    Rows that the devices do not divide, as an epoch's last may be, are computed whole by each of them.
    """
    shares = mesh.shape["batch"]

    def split(rows: Array) -> Array:
        return jax.lax.with_sharding_constraint(rows, PartitionSpec("batch")) if len(rows) % shares == 0 else rows

    return split if shares > 1 else lambda rows: rows


def over_models(function: Callable, mesh: Mesh, in_specs: tuple) -> Callable:
    """`function` of the members that a row of the mesh has; nothing passes between rows."""
    # custom_vmap loses track of what varies over devices, so that it cannot be checked.
    by_hand = partial(jax.shard_map, mesh=mesh, in_specs=in_specs, out_specs=PER_MODEL, check_vma=False)
    return by_hand(function, axis_names={"models"}) if mesh.shape["batch"] > 1 else by_hand(function)
