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
    """`layerwise.layerwise` with the weights of `params` ranked by magnitude."""
    return layerwise(magnitudes(params), masks, sparsity, prunable)


def global_masks(
    params: Tree, masks: Tree, sparsity: Scalar, prunable: Prunable = convolution_kernels
) -> Tree:
    """`global_ranking.global_ranking` with the weights of `params` ranked by magnitude."""
    return global_ranking(magnitudes(params), masks, sparsity, prunable)
