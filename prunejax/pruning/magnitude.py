"""Entry: the magnitude of a weight, and magnitude pruning as one call.

Source: Han et al. 2015; Zhu & Gupta 2017.
"""

import jax
import jax.numpy as jnp

from prunejax.pruning.entry import SCORES, Prunable, Score
from prunejax.pruning.global_ranking import global_ranking
from prunejax.pruning.layerwise import layerwise
from prunejax.pruning.masks import convolution_kernels
from prunejax.types import Array, Key, Scalar, Tree


def magnitudes(params: Tree) -> Tree:
    """|w| of each weight, float32."""

    def magnitude(leaf: Array) -> Array:
        return jnp.abs(jnp.asarray(leaf, jnp.float32))

    return jax.tree.map(magnitude, params)


def score(params: Tree, gradients: Tree | None, key: Key) -> Tree:
    """As `magnitudes`; needs neither gradients nor a key."""
    del gradients, key
    return magnitudes(params)


SCORES.add(Score("magnitude", score))


def layerwise_masks(
    params: Tree, masks: Tree, sparsity: Scalar, prunable: Prunable = convolution_kernels
) -> Tree:
    """Returns masks of the same sparsity in each prunable leaf; see `layerwise.layerwise`.

    Args:
        params: whose weights are ranked by magnitude.
        masks: what was kept so far; a pruned weight stays pruned.
        sparsity: fraction of the prunable weights to prune, in [0, 1); may be traced.
        prunable: `(path, leaf) -> bool`.
    """
    return layerwise(magnitudes(params), masks, sparsity, prunable)


def global_masks(
    params: Tree, masks: Tree, sparsity: Scalar, prunable: Prunable = convolution_kernels
) -> Tree:
    """Returns masks by one ranking of all prunable weights; see `global_ranking.global_ranking`.

    Args:
        params: whose weights are ranked by magnitude.
        masks: what was kept so far; a pruned weight stays pruned.
        sparsity: fraction of the prunable weights to prune, in [0, 1); may be traced.
        prunable: `(path, leaf) -> bool`.
    """
    return global_ranking(magnitudes(params), masks, sparsity, prunable)
