"""Magnitude pruning: schedules, and masks as trees of bool with the structure of `params`, True where kept.

Whether a leaf is prunable is decided by its path and rank alone, so everything here works on any Linen tree. Leaves
that are not prunable keep an all-True mask.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.tree_util import keystr
from jaxtyping import Bool, Float

from prunejax.types import Array, Scalar, Tree

Prunable = Callable[[tuple[Any, ...], Array], bool]


def convolution_kernels(path: tuple[Any, ...], leaf: Array) -> bool:
    """The default choice: every convolution's 4-d `kernel`."""
    return keystr(path[-1:], simple=True) == "kernel" and leaf.ndim == 4


def head_kernel(path: tuple[Any, ...], leaf: Array) -> bool:
    """The kernel of the part called `head`, the linear classifier; never its bias."""
    parts = keystr(path, simple=True, separator="/").split("/")
    return parts[-1] == "kernel" and "head" in parts


def convolution_and_head_kernels(path: tuple[Any, ...], leaf: Array) -> bool:
    """Both."""
    return convolution_kernels(path, leaf) or head_kernel(path, leaf)


def polynomial_schedule(
    final_sparsity: Scalar, begin_step: Scalar, end_step: Scalar, power: Scalar = 3
) -> Callable[[Scalar], Float[Array, ""]]:
    """Returns `step -> sparsity`: s_f (1 - (1 - p)^power) with p = (step - begin) / (end - begin), clipped to [0, 1].

    Source: Zhu & Gupta 2017, eq. 1, with initial sparsity 0.
    """

    def sparsity_at(step: Scalar) -> Float[Array, ""]:
        progress = jnp.clip((jnp.asarray(step) - begin_step) / jnp.maximum(end_step - begin_step, 1), 0, 1)
        progress = jnp.where(jnp.asarray(step) < end_step, progress, 1)
        return jnp.asarray(final_sparsity * (1 - (1 - progress) ** power))

    return sparsity_at


def is_prune_step(step: Scalar, begin_step: Scalar, end_step: Scalar, every_steps: Scalar) -> Bool[Array, ""]:
    """Whether masks are updated before this step: at begin, begin + every, ..., and always at end."""
    since = jnp.asarray(step) - begin_step
    due = (since % every_steps == 0) | (jnp.asarray(step) == end_step)
    return (since >= 0) & (jnp.asarray(step) <= end_step) & due


def init_masks(params: Tree) -> Tree:
    """Masks that keep everything."""
    return jax.tree.map(lambda leaf: jnp.ones(jnp.shape(leaf), bool), params)


def apply_masks(params: Tree, masks: Tree) -> Tree:
    """`params` with zero where pruned."""
    return jax.tree.map(lambda leaf, mask: jnp.where(mask, leaf, jnp.zeros((), leaf.dtype)), params, masks)


def sparsity(masks: Tree, prunable: Prunable = convolution_kernels) -> Float[Array, ""]:
    """The fraction of all prunable weights that is pruned; 0 if none is prunable."""
    chosen = [mask for path, mask in jax.tree_util.tree_leaves_with_path(masks) if prunable(path, mask)]
    pruned = sum((jnp.sum(~jnp.asarray(mask)) for mask in chosen), jnp.zeros((), int))
    return pruned / max(sum(mask.size for mask in chosen), 1)


def layerwise_masks(params: Tree, masks: Tree, sparsity: Scalar, prunable: Prunable = convolution_kernels) -> Tree:
    """Prunes the smallest weights of each prunable leaf, to the same sparsity everywhere.

    Args:
        params: the weights, ranked by magnitude.
        masks: what was kept so far; a pruned weight stays pruned.
        sparsity: fraction of each leaf to prune, in [0, 1); may be traced.
        prunable: `(path, leaf) -> bool`.

    Returns:
        Masks with exactly `round(sparsity * size)` weights pruned in each prunable leaf, more only where `masks` had
        more already. Of equal magnitudes the one of lower index goes first.

    Source: Zhu & Gupta 2017.
    """

    def update(path: tuple[Any, ...], leaf: Array, mask: Array) -> Array:
        if not prunable(path, leaf):
            return jnp.asarray(mask)
        return _prune_smallest(jnp.ravel(leaf), jnp.ravel(mask), sparsity).reshape(leaf.shape)

    return jax.tree_util.tree_map_with_path(update, params, masks)


def global_masks(params: Tree, masks: Tree, sparsity: Scalar, prunable: Prunable = convolution_kernels) -> Tree:
    """Prunes the smallest of all prunable weights, in one ranking of raw magnitudes over all leaves.

    As `layerwise_masks`, with the count over all prunable weights together and ties broken in the order of the
    leaves. Source: Paganini & Forde 2020, global unstructured pruning.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    kept, structure = jax.tree.flatten(masks)
    chosen = [i for i, (path, leaf) in enumerate(leaves) if prunable(path, leaf)]
    if not chosen:
        return masks
    weights, _ = ravel_pytree([leaves[i][1] for i in chosen])
    mask, split = ravel_pytree([kept[i] for i in chosen])
    for i, updated in zip(chosen, split(jnp.asarray(_prune_smallest(weights, mask, sparsity))), strict=True):
        kept[i] = updated
    return jax.tree.unflatten(structure, kept)


def _prune_smallest(weights: Float[Array, " n"], mask: Bool[Array, " n"], sparsity: Scalar) -> Bool[Array, " n"]:
    """`mask` less the weights of smallest magnitude, so that `round(sparsity * n)` are pruned in all.

    In linear time: the bit patterns of non-negative floats are ordered as the floats, so the threshold is found bit by
    bit, counting what lies below. Sorting 690,000 weights takes a hundred times as long.
    """
    magnitudes = jnp.abs(jnp.asarray(weights, jnp.float32))
    # Already pruned weights rank below all others, zeros included.
    ranks = jnp.where(mask, jax.lax.bitcast_convert_type(magnitudes, jnp.uint32) + 1, jnp.uint32(0))
    # A traced sparsity is a float32, whose product may round the other way where it lies within 1e-7 of a half.
    wanted = sparsity * weights.size
    count = round(wanted) if isinstance(wanted, int | float) else jnp.round(wanted).astype(jnp.int32)

    def add_bit(position: Array, threshold: Array) -> Array:
        candidate = threshold | (jnp.uint32(1) << (31 - position).astype(jnp.uint32))
        return jnp.where(jnp.sum(ranks < candidate) < count, candidate, threshold)

    threshold = jax.lax.fori_loop(0, 32, add_bit, jnp.uint32(0))
    below, tied = ranks < threshold, ranks == threshold
    tied_and_pruned = tied & (jnp.cumsum(tied) <= count - jnp.sum(below))
    return jnp.asarray(mask) & ~(below | tied_and_pruned)
