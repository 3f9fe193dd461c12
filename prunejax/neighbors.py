"""Nearest-neighbour probes of a layer's features, and the prediction depth that follows from them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Int

from prunejax.types import Array


def knn_predict(
    train_representations: Float[Array, "train dim"],
    train_labels: Int[Array, " train"],
    test_representations: Float[Array, "test dim"],
    k: int = 30,
) -> Int[Array, " test"]:
    """The commonest label among the `k` nearest training examples in Euclidean distance; of several the lowest.

    Concrete arrays on CPU are searched by scikit-learn, ten times as fast there as `top_k`, which serves elsewhere
    and under transformations.

    Raises:
        ValueError: if there are fewer than `k` training examples.
    """
    if not 1 <= k <= len(train_labels):
        raise ValueError(f"k is {k}, but there are {len(train_labels)} training examples")
    arrays = (train_representations, train_labels, test_representations)
    if jax.default_backend() == "cpu" and not any(isinstance(array, Tracer) for array in arrays):
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(np.asarray(train_representations))
        neighbors = search.kneighbors(np.asarray(test_representations), return_distance=False)
        return _vote(jnp.asarray(train_labels)[neighbors])
    train, test = jnp.asarray(train_representations), jnp.asarray(test_representations)
    squared = jnp.sum(train**2, axis=1)

    def predict_one(row: Array) -> Array:
        product = jnp.matmul(train, row, precision=jax.lax.Precision.HIGHEST)
        _, neighbors = jax.lax.top_k(2 * product - squared, k)  # minus the squared distance, up to a constant
        return _vote(jnp.asarray(train_labels)[neighbors])

    # In blocks, so that the distances to all test examples are never held at once.
    return jax.lax.map(predict_one, test, batch_size=256)


def _vote(labels: Int[Array, "*test k"]) -> Int[Array, "*test"]:
    """The commonest label of each row, the lowest of several, without knowing how many classes there are."""
    votes = jnp.sum(labels[..., :, None] == labels[..., None, :], axis=-1)
    winners = votes == votes.max(-1, keepdims=True)
    return jnp.min(jnp.where(winners, labels, jnp.iinfo(labels.dtype).max), axis=-1)


def prediction_depth(
    layer_predictions: Int[Array, "layers examples"], target: Int[Array, " examples"]
) -> Int[Array, " examples"]:
    """The first layer, from 1, from which this and all later probes predict `target`; the last if it does not.

    `target` is the true label in the paper's code, the network's own prediction in Baldock et al. 2021.
    """
    right = jnp.asarray(layer_predictions) == jnp.asarray(target)[None]
    right_from_here_on = jnp.cumprod(right[::-1], axis=0).sum(0)
    layers = right.shape[0]
    return jnp.minimum(layers - right_from_here_on + 1, layers)
