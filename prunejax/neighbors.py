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
    if _concrete_on_cpu(train_representations, train_labels, test_representations):
        from sklearn.neighbors import KNeighborsClassifier

        search = KNeighborsClassifier(k, algorithm="brute").fit(train_representations, train_labels)
        return jnp.asarray(search.predict(test_representations))
    neighbors = _nearest(train_representations, test_representations, k)
    return _vote(jnp.asarray(train_labels)[neighbors])


def knn_purity(
    representations: Float[Array, "examples dim"], labels: Int[Array, " examples"], k: int = 30
) -> Float[Array, ""]:
    """The fraction of each example's `k` nearest others, itself apart, that share its label; mean over examples.

    Raises:
        ValueError: if there are not more than `k` examples.
    """
    if not 1 <= k < len(labels):
        raise ValueError(f"k is {k}, but there are {len(labels)} examples")
    labels = jnp.asarray(labels)
    return jnp.mean(labels[_nearest(representations, None, k)] == labels[:, None])


def _nearest(
    train: Float[Array, "train dim"], test: Float[Array, "test dim"] | None, k: int
) -> Int[Array, "queries k"]:
    """Indices of the `k` training rows nearest to each test row, or without `test` to each training row but itself."""
    if test is None and _concrete_on_cpu(train):
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(np.asarray(train))
        return search.kneighbors(return_distance=False)
    centre = jnp.mean(train, axis=0, keepdims=True)  # far from the origin squares would lose the differences
    train = jnp.asarray(train) - centre
    squared = jnp.sum(train**2, axis=1)

    def search_one(query: tuple[Array, Array]) -> Array:
        row, itself = query
        product = jnp.matmul(train, row, precision=jax.lax.Precision.HIGHEST)
        nearness = 2 * product - squared  # minus the squared distance, up to a constant
        return jax.lax.top_k(nearness.at[itself].set(-jnp.inf, mode="drop"), k)[1]

    queries = train if test is None else jnp.asarray(test) - centre
    itself = jnp.arange(len(train)) if test is None else jnp.full(len(queries), len(train))
    # In blocks, so that the distances to all test examples are never held at once.
    return jax.lax.map(search_one, (queries, itself), batch_size=256)


def _concrete_on_cpu(*arrays: Array) -> bool:
    return jax.default_backend() == "cpu" and not any(isinstance(array, Tracer) for array in arrays)


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
