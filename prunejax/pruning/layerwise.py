"""Entry: the same sparsity in every prunable leaf."""

from typing import Any

import jax
import jax.numpy as jnp

from prunejax.pruning.entry import ALLOCATIONS, Allocation, Prunable
from prunejax.pruning.masks import convolution_kernels
from prunejax.pruning.ranking import count_pruned, prune_lowest
from prunejax.types import Array, Scalar, Tree


def layerwise(
    scores: Tree, masks: Tree, sparsity: Scalar, prunable: Prunable = convolution_kernels
) -> Tree:
    """Prunes the lowest scores of each prunable leaf.

    Args:
        scores: of each weight.
        masks: what was kept so far; a pruned weight stays pruned.
        sparsity: fraction of each leaf to prune, in [0, 1); may be traced.
        prunable: `(path, leaf) -> bool`.

    Returns:
        Masks with exactly `round(sparsity * size)` weights pruned in each prunable leaf, more only
        where `masks` had more already. Of equal scores the one of lower index goes first.

    Source: Zhu & Gupta 2017.
    """

    def update(path: tuple[Any, ...], leaf: Array, mask: Array) -> Array:
        if not prunable(path, leaf):
            return jnp.asarray(mask)
        count = count_pruned(leaf.size, sparsity)
        return prune_lowest(jnp.ravel(leaf), jnp.ravel(mask), count).reshape(leaf.shape)

    return jax.tree_util.tree_map_with_path(update, scores, masks)


ALLOCATIONS.add(Allocation("layerwise", layerwise))
