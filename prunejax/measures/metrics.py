"""Pure functions on what models predict and represent, arrays `[models, examples]`."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from prunejax.types import Array


def accuracy(
    predictions: Int[Array, "models examples"], labels: Int[Array, " examples"]
) -> Float[Array, " models"]:
    """The fraction of examples that each model gets right."""
    return jnp.mean(jnp.asarray(predictions) == jnp.asarray(labels)[None], axis=1)


def recall(
    predictions: Int[Array, "models examples"], labels: Int[Array, " examples"], num_classes: int
) -> Float[np.ndarray, "models classes"]:
    """The fraction of each true class that each model gets right; NaN for one without examples."""
    labels = np.asarray(labels)
    right = np.asarray(predictions) == labels[None]
    recalls = np.full((len(right), num_classes), np.nan)
    for label in range(num_classes):
        examples = labels == label
        if examples.any():
            recalls[:, label] = right[:, examples].mean(1)
    return recalls


def modal_class(
    predictions: Int[Array, "models examples"],
    num_classes: int,
    weights: Float[Array, " models"] | None = None,
) -> Int[Array, " examples"]:
    """The class that most models (or most weight) predict for each example; of ties the lowest.

    Raises:
        ValueError: if there are no models, which would vote for the lowest class.
    """
    if not len(predictions):
        raise ValueError("there are no models to vote")
    votes = jax.nn.one_hot(predictions, num_classes)
    if weights is None:
        counts = votes.sum(0)
    else:
        counts = jnp.einsum("m,mec->ec", weights, votes)
    return jnp.argmax(counts, axis=-1)


def pruning_identified_exemplars(
    dense: Int[Array, "dense_models examples"],
    pruned: Int[Array, "pruned_models examples"],
    num_classes: int,
) -> Bool[Array, " examples"]:
    """The examples (PIEs) whose modal class over the pruned models differs from the dense ones'.

    Source: Hooker et al. 2019; the paper, eq. 1.

    Raises:
        ValueError: if there are no models on one side.
    """
    return modal_class(dense, num_classes) != modal_class(pruned, num_classes)


def q_score(
    representations: Float[Array, "*batch dim"],
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Quality of representations: (q, z, l1).

    With h the representation over its Euclidean length: l1 is the sum of |h|, z the largest h less
    the mean, in population standard deviations, and q = z / l1. All three are 0 for an all-zero
    representation, and z and q where every feature is equal.

    Source: Kalibhat et al. 2022; the paper, algorithm 1 and eq. 2.
    """
    h = jnp.asarray(representations, jnp.float32)

    # Scaling by the largest entry first keeps the squares of very small or large features in range.
    largest = jnp.max(jnp.abs(h), axis=-1, keepdims=True)
    h = h / jnp.where(largest > 0, largest, 1)
    length = jnp.linalg.norm(h, axis=-1, keepdims=True)
    h = h / jnp.where(length > 0, length, 1)

    # Rounding leaves equal features a tiny deviation, by which nothing may be divided.
    deviation = jnp.where(h.max(-1) == h.min(-1), 0, h.std(-1))
    divisor = jnp.where(deviation == 0, 1, deviation)
    l1 = jnp.abs(h).sum(-1)
    z = jnp.where(deviation == 0, 0, (h.max(-1) - h.mean(-1)) / divisor)
    return z / jnp.where(l1 > 0, l1, 1), z, l1
