"""The training losses, each a mean over the batch."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from prunejax.types import Array


def cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Float[Array, ""]:
    """Mean of `-log softmax(logits)[label]`, in nats."""
    log_probabilities = jax.nn.log_softmax(jnp.asarray(logits, jnp.float32))
    chosen = jnp.take_along_axis(log_probabilities, jnp.asarray(labels)[:, None], axis=1)
    return -jnp.mean(chosen)


def supcon(
    embeddings: Float[Array, "views batch dim"],
    labels: Int[Array, " batch"] | None,
    temperature: float | Float[Array, ""],
    base_temperature: float | Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """Supervised contrastive loss, L_out: the mean over positives stands outside the logarithm.

    Every view of every example is an anchor; it is compared with all other views of all examples.

    Args:
        embeddings: rows of unit length.
        labels: examples of one label are each other's positives; None is SimCLR, where only the
            other views of the same example are.
        temperature: divides the similarities.
        base_temperature: the loss is multiplied by `temperature / base_temperature`; None leaves
            it as it is.

    Returns:
        The mean over anchors, in nats if `base_temperature` is None. An anchor without a positive
        contributes 0.

    Source: Khosla et al. 2020, eq. 2.
    """
    views, batch, dim = embeddings.shape
    rows = jnp.asarray(embeddings, jnp.float32).reshape(views * batch, dim)
    examples = jnp.arange(batch) if labels is None else jnp.asarray(labels)
    classes = jnp.tile(examples, views)
    others = ~jnp.eye(views * batch, dtype=bool)
    positives = (classes[:, None] == classes[None, :]) & others

    # On TPU and GPU a default-precision product of unit rows would cost three digits of the loss.
    similarities = jnp.matmul(rows, rows.T, precision=jax.lax.Precision.HIGHEST) / temperature
    all_others = jax.nn.logsumexp(similarities, axis=1, where=others, keepdims=True)
    log_probabilities = similarities - all_others
    summed = jnp.sum(log_probabilities, axis=1, where=positives)
    loss = -jnp.mean(summed / jnp.maximum(positives.sum(1), 1))
    if base_temperature is None:
        return loss
    return loss * (temperature / base_temperature)


def collapsed_supcon(samples: int, temperature: float, base_temperature: float) -> float:
    """The contrastive loss of `samples` embeddings (views x batch) that all coincide.

    Each anchor's similarities are then equal, so that each other sample has the probability
    1 / (samples - 1), with or without labels.
    """
    return temperature / base_temperature * math.log(samples - 1)
