"""Entry: one ranking over all prunable weights together."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from prunejax.pruning.entry import ALLOCATIONS, Allocation, Prunable
from prunejax.pruning.masks import convolution_kernels
from prunejax.pruning.ranking import count_pruned, prune_lowest
from prunejax.types import Scalar, Tree


def global_ranking(
    scores: Tree, masks: Tree, sparsity: Scalar, prunable: Prunable = convolution_kernels
) -> Tree:
    """Prunes the lowest of all scores, not normalised per leaf.

    As `layerwise`, with the count over all prunable weights together and ties broken in the order
    of the leaves.

    Args:
        scores: what each weight is worth.
        masks: what was kept so far; a pruned weight stays pruned.
        sparsity: fraction of the prunable weights to prune, in [0, 1); may be traced.
        prunable: `(path, leaf) -> bool`.

    Source: Paganini & Forde 2020, global unstructured pruning.
    """
    leaves = jax.tree_util.tree_leaves_with_path(scores)
    kept, structure = jax.tree.flatten(masks)
    chosen = [i for i, (path, leaf) in enumerate(leaves) if prunable(path, leaf)]
    if not chosen:
        return masks
    ranked, _ = ravel_pytree([leaves[i][1] for i in chosen])
    mask, split = ravel_pytree([kept[i] for i in chosen])
    updated = prune_lowest(ranked, mask, count_pruned(ranked.size, sparsity))
    for i, leaf in zip(chosen, split(jnp.asarray(updated)), strict=True):
        kept[i] = leaf
    return jax.tree.unflatten(structure, kept)


ALLOCATIONS.add(Allocation("global", global_ranking))
