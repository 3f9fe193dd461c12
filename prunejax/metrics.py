"""Pure functions on arrays `[models, examples]`."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from prunejax.types import Array


def accuracy(predictions: Int[Array, "models examples"], labels: Int[Array, " examples"]) -> Float[Array, " models"]:
    """The fraction of examples that each model gets right."""
    return jnp.mean(jnp.asarray(predictions) == jnp.asarray(labels)[None], axis=1)


def modal_class(predictions: Int[Array, "models examples"], num_classes: int) -> Int[Array, " examples"]:
    """The class that most models predict for each example; of several the lowest."""
    votes = jax.nn.one_hot(predictions, num_classes, dtype=jnp.int32).sum(0)
    return jnp.argmax(votes, axis=-1)


def pruning_identified_exemplars(
    dense: Int[Array, "dense_models examples"], pruned: Int[Array, "pruned_models examples"], num_classes: int
) -> Bool[Array, " examples"]:
    """The examples (PIEs) whose modal class over the pruned models differs from that over the dense ones.

    Source: Hooker et al. 2019; the paper, eq. 1.
    """
    return modal_class(dense, num_classes) != modal_class(pruned, num_classes)


def q_score(
    representations: Float[Array, "*batch dim"],
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Quality of representations: (q, z, l1).

    With h the representation over its Euclidean length: l1 is the sum of |h|, z the largest h less the mean, in
    population standard deviations, and q = z / l1. All three are 0 for an all-zero representation, and z and q where
    every feature is equal.

    Source: Kalibhat et al. 2022; the paper, algorithm 1 and eq. 2.
    """
    h = jnp.asarray(representations, jnp.float32)
    # Scaling by the largest entry first keeps the squares of very small or large features in range.
    largest = jnp.max(jnp.abs(h), axis=-1, keepdims=True)
    h = h / jnp.where(largest > 0, largest, 1)
    length = jnp.linalg.norm(h, axis=-1, keepdims=True)
    h = h / jnp.where(length > 0, length, 1)
    deviation = jnp.where(h.max(-1) > h.min(-1), h.std(-1), 0)
    l1 = jnp.abs(h).sum(-1)
    z = jnp.where(deviation > 0, (h.max(-1) - h.mean(-1)) / jnp.where(deviation > 0, deviation, 1), 0)
    return z / jnp.where(l1 > 0, l1, 1), z, l1
