"""Entry: Erdős-Rényi-Kernel, which leaves small leaves denser than large ones.

Source: Evci et al. 2020, Rigging the Lottery, sec. 3 and app. A.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from prunejax.pruning.entry import ALLOCATIONS, Allocation, Prunable
from prunejax.pruning.masks import convolution_kernels
from prunejax.pruning.ranking import count_pruned, prune_lowest
from prunejax.types import Array, Scalar, Tree


def erk_densities(shapes: list[tuple[int, ...]], sparsity: Scalar) -> Float[Array, " leaves"]:
    """The fraction of each leaf that is kept, so that `sparsity` of all weights is pruned.

    A leaf's density is min(1, epsilon * sum(shape) / prod(shape)). How many weights epsilon keeps
    is piecewise linear in it, with a bend wherever a leaf becomes dense, so that the epsilon of a
    sparsity is found exactly between two bends, also where the sparsity is traced.
    """
    sizes = np.array([np.prod(shape) for shape in shapes], np.float64)
    raw = np.array([np.sum(shape) for shape in shapes]) / sizes
    bends = np.concatenate([[0.0], np.sort(1 / raw)])
    kept = np.array([np.sum(sizes * np.minimum(1, epsilon * raw)) for epsilon in bends])
    fractions = jnp.asarray(kept / sizes.sum(), jnp.float32)
    density = 1 - jnp.asarray(sparsity, jnp.float32)
    epsilon = jnp.interp(density, fractions, jnp.asarray(bends, jnp.float32))
    return jnp.minimum(1, epsilon * jnp.asarray(raw, jnp.float32))


def erk(
    scores: Tree, masks: Tree, sparsity: Scalar, prunable: Prunable = convolution_kernels
) -> Tree:
    """Prunes the lowest scores of each prunable leaf to the leaf's own sparsity.

    As `layerwise`, with `round((1 - density) * size)` weights pruned in each leaf; all together
    the sparsity is met to half a weight a leaf.

    Args:
        scores: what each weight is worth.
        masks: what was kept so far; a pruned weight stays pruned.
        sparsity: fraction of the prunable weights to prune, in [0, 1); may be traced.
        prunable: `(path, leaf) -> bool`.
    """
    leaves = jax.tree_util.tree_leaves_with_path(scores)
    names = [path for path, leaf in leaves if prunable(path, leaf)]
    shapes = [leaf.shape for path, leaf in leaves if prunable(path, leaf)]
    if not shapes:
        return masks
    densities = erk_densities(shapes, sparsity)

    def update(path: tuple[Any, ...], leaf: Array, mask: Array) -> Array:
        if path not in names:
            return jnp.asarray(mask)
        count = count_pruned(leaf.size, 1 - densities[names.index(path)])
        return prune_lowest(jnp.ravel(leaf), jnp.ravel(mask), count).reshape(leaf.shape)

    return jax.tree_util.tree_map_with_path(update, scores, masks)


ALLOCATIONS.add(Allocation("erk", erk))
