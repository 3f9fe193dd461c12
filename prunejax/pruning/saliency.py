"""Entry: gradient times weight, the loss's first-order change when a weight is removed.

Source: Mozer & Smolensky 1988; Molchanov et al. 2017, eq. 7 (there of feature maps).
"""

import jax
import jax.numpy as jnp

from prunejax.pruning.entry import SCORES, Score
from prunejax.types import Array, Key, Tree


def score(params: Tree, gradients: Tree | None, key: Key) -> Tree:
    """|w * dL/dw| of each weight, by the gradients of the step's own batch."""
    del key

    def saliency(weight: Array, gradient: Array) -> Array:
        return jnp.abs(jnp.asarray(weight * gradient, jnp.float32))

    return jax.tree.map(saliency, params, gradients)


SCORES.add(Score("saliency", score, needs_gradients=True))
