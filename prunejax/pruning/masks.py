"""Masks: trees of bool with the structure of `params`, True where a weight is kept.

Whether a leaf is prunable is decided by its path and rank alone, so everything here works on any
Linen tree. Leaves that are not prunable keep an all-True mask.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr
from jaxtyping import Float

from prunejax.pruning.entry import Prunable
from prunejax.types import Array, Tree


def name_of(path: tuple[Any, ...]) -> str:
    """A leaf's name, for instance `encoder/stem/kernel`."""
    return keystr(path, simple=True, separator="/")


def convolution_kernels(path: tuple[Any, ...], leaf: Array) -> bool:
    """The default choice: every convolution's 4-d `kernel`."""
    return keystr(path[-1:], simple=True) == "kernel" and leaf.ndim == 4


def head_kernel(path: tuple[Any, ...], leaf: Array) -> bool:
    """The kernel of the part called `head`, the linear classifier; never its bias."""
    parts = name_of(path).split("/")
    return parts[-1] == "kernel" and "head" in parts


def convolution_and_head_kernels(path: tuple[Any, ...], leaf: Array) -> bool:
    """The kernels of convolutions and of the linear head."""
    return convolution_kernels(path, leaf) or head_kernel(path, leaf)


def without(prunable: Prunable, exclude: tuple[str, ...]) -> Prunable:
    """Returns `prunable` without the leaves that have one of the names `exclude` in their path."""

    def chosen(path: tuple[Any, ...], leaf: Array) -> bool:
        excluded = set(name_of(path).split("/")) & set(exclude)
        return not excluded and prunable(path, leaf)

    return chosen


def init_masks(params: Tree) -> Tree:
    """Masks that keep everything."""
    return jax.tree.map(lambda leaf: jnp.ones(jnp.shape(leaf), bool), params)


def apply_masks(params: Tree, masks: Tree) -> Tree:
    """`params` with zero where pruned."""

    def keep(leaf: Array, mask: Array) -> Array:
        return jnp.where(mask, leaf, jnp.zeros((), leaf.dtype))

    return jax.tree.map(keep, params, masks)


def sparsity(masks: Tree, prunable: Prunable = convolution_kernels) -> Float[Array, ""]:
    """The fraction of all prunable weights of one model that is pruned; 0 if none is prunable.

    Of a population's masks, which have a leading axis, take it by `jax.vmap`.
    """
    pruned, total = jnp.zeros((), int), 0
    for path, mask in jax.tree_util.tree_leaves_with_path(masks):
        if prunable(path, mask):
            pruned += jnp.sum(~jnp.asarray(mask))
            total += mask.size
    return pruned / max(total, 1)
