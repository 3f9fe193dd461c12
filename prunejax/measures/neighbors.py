"""Nearest-neighbour probes of a layer's features, and the prediction depth they lead to."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Int

from prunejax.nn.target import target
from prunejax.types import Array


def knn_predict(
    train_representations: Float[Array, "train dim"],
    train_labels: Int[Array, " train"],
    test_representations: Float[Array, "test dim"],
    k: int = 30,
) -> Int[Array, " test"]:
    """The commonest label of the `k` nearest training examples, Euclidean; of several the lowest.

    On CPU concrete arrays are searched by scikit-learn, ten times as fast there as `top_k`; that
    serves elsewhere and under transformations.

    Args:
        train_representations: float `[train, dim]`.
        train_labels: int `[train]`.
        test_representations: float `[test, dim]`.
        k: neighbours that vote.

    Raises:
        ValueError: if there are fewer than `k` training examples.
    """
    if not 1 <= k <= len(train_labels):
        raise ValueError(f"k is {k}, but there are {len(train_labels)} training examples")
    if _concrete_on_cpu(train_representations, train_labels, test_representations):
        from sklearn.neighbors import KNeighborsClassifier

        search = KNeighborsClassifier(k, algorithm="brute")
        search.fit(train_representations, train_labels)
        return jnp.asarray(search.predict(test_representations))
    nearest = _nearest(train_representations, test_representations, k)
    return _vote(jnp.asarray(train_labels)[nearest])


def knn_purity(
    representations: Float[Array, "examples dim"], labels: Int[Array, " examples"], k: int = 30
) -> Float[Array, ""]:
    """The fraction of each example's `k` nearest others that share its label; mean over examples.

    Raises:
        ValueError: if there are not more than `k` examples.
    """
    if not 1 <= k < len(labels):
        raise ValueError(f"k is {k}, but there are {len(labels)} examples")
    labels = jnp.asarray(labels)
    nearest = _nearest(representations, None, k)
    return jnp.mean(labels[nearest] == labels[:, None])


def prediction_depth(
    layer_predictions: Int[Array, "layers examples"], target: Int[Array, " examples"]
) -> Int[Array, " examples"]:
    """The first layer, from 1, from which it and all later probes predict `target`; else the last.

    `target` is the true label in the paper's code, the network's own prediction in Baldock et al.
    2021.
    """
    right = jnp.asarray(layer_predictions) == jnp.asarray(target)[None]
    right_from_here_on = jnp.cumprod(right[::-1], axis=0).sum(0)
    layers = right.shape[0]
    return jnp.minimum(layers - right_from_here_on + 1, layers)


def last_wrong_probe(
    layer_predictions: Int[Array, "layers examples"], target: Int[Array, " examples"]
) -> Int[Array, " examples"]:
    """The last layer, from 1, whose probe does not predict `target`; 1 where all do.

    The prediction depth of the paper's code: one less than `prediction_depth`, unless no probe is
    wrong or the last one is.
    """
    wrong = jnp.asarray(layer_predictions) != jnp.asarray(target)[None]
    numbers = jnp.arange(1, wrong.shape[0] + 1)[:, None]
    return jnp.max(jnp.where(wrong, numbers, 1), axis=0)


def _nearest(
    train: Float[Array, "train dim"], test: Float[Array, "test dim"] | None, k: int
) -> Int[Array, "queries k"]:
    """Indices of the `k` training rows nearest to each test row.

    Without `test`: those nearest to each training row, other than itself.
    """
    if test is None and _concrete_on_cpu(train):
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(np.asarray(train))
        return search.kneighbors(return_distance=False)
    if test is None:
        return _nearest_by_products(train, train, jnp.arange(len(train)), k)
    # Itself is out of range, and so dropped.
    return _nearest_by_products(train, test, jnp.full(len(test), len(train)), k)


@partial(jax.jit, static_argnames="k")
def _nearest_by_products(
    train: Float[Array, "train dim"],
    queries: Float[Array, "queries dim"],
    itself: Int[Array, " queries"],
    k: int,
) -> Int[Array, "queries k"]:
    """The nearest training rows to each query, but for the row that `itself` names."""
    centre = jnp.mean(train, axis=0, keepdims=True)
    train = train - centre  # far from the origin squares would lose the differences
    squared = jnp.sum(train**2, axis=1)

    def search_one(query: tuple[Array, Array]) -> Array:
        row, itself = query
        product = jnp.matmul(train, row, precision=jax.lax.Precision.HIGHEST)
        nearness = 2 * product - squared  # minus the squared distance, up to a constant
        others = nearness.at[itself].set(-jnp.inf, mode="drop")
        return jax.lax.top_k(others, k)[1]

    # In blocks, so that the distances to all queries are never in memory at once.
    return jax.lax.map(search_one, (queries - centre, itself), batch_size=256)


def _concrete_on_cpu(*arrays: Array) -> bool:
    traced = any(isinstance(array, Tracer) for array in arrays)
    return target().platform == "cpu" and not traced


def _vote(labels: Int[Array, "*test k"]) -> Int[Array, "*test"]:
    """The commonest label of each row, the lowest of several, however many classes there are."""
    votes = jnp.sum(labels[..., :, None] == labels[..., None, :], axis=-1)
    winners = votes == votes.max(-1, keepdims=True)
    largest = jnp.iinfo(labels.dtype).max
    return jnp.min(jnp.where(winners, labels, largest), axis=-1)
