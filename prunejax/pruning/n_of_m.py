"""Entry `2:4`: of every four consecutive input channels of a kernel at most two are pruned.

The pattern that sparse matrix units compute with. Source: Mishra et al. 2021.
"""

from typing import Any

import jax
import jax.numpy as jnp

from prunejax.config import UserError
from prunejax.pruning.entry import ALLOCATIONS, Allocation, Prunable
from prunejax.pruning.masks import convolution_kernels, name_of
from prunejax.types import Array, Scalar, Tree


def n_of_m(keep: int, group: int) -> Allocation:
    """Returns the allocation that ends with `keep` weights in each group of `group`.

    Before that a group loses as many weights as come nearest to the sparsity. Its function raises
    a UserError for a leaf with a number of input channels that `group` does not divide.
    """

    def achievable(sparsity: float) -> float:
        return min(round(sparsity * group), group - keep) / group

    def select(
        scores: Tree, masks: Tree, sparsity: Scalar, prunable: Prunable = convolution_kernels
    ) -> Tree:
        wanted = jnp.round(jnp.asarray(sparsity, jnp.float32) * group)
        pruned = jnp.minimum(wanted.astype(jnp.int32), group - keep)

        def update(path: tuple[Any, ...], leaf: Array, mask: Array) -> Array:
            if not prunable(path, leaf):
                return jnp.asarray(mask)
            inputs = leaf.shape[-2]
            if inputs % group:
                raise UserError(
                    f"allocation {keep}:{group}: {name_of(path)} has {inputs} input channels, "
                    f"which {group} does not divide; name a part of it in Pruning(exclude=...)"
                )
            return jnp.asarray(mask) & (_positions(leaf, mask, group) >= pruned)

        return jax.tree_util.tree_map_with_path(update, scores, masks)

    return Allocation(f"{keep}:{group}", select, achievable)


def _positions(leaf: Array, mask: Array, group: int) -> Array:
    """Each weight's position in its group, from 0 for the one to be pruned first."""
    *outer, inputs, outputs = leaf.shape
    shape = (*outer, inputs // group, group, outputs)
    # Pruned weights stay first. Both sorts are stable: of equal scores the lower index goes first.
    order = jnp.lexsort((leaf.reshape(shape), jnp.asarray(mask).reshape(shape)), axis=-2)
    positions = jnp.argsort(order, axis=-2)
    return positions.reshape(leaf.shape)


ALLOCATIONS.add(n_of_m(2, 4))
