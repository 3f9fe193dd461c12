"""The probes against a loop over neighbours, and prediction depth by hand."""

import collections

import jax
import numpy as np
import pytest

from prunejax.measures.neighbors import knn_predict, knn_purity, prediction_depth


def naive_knn(train, labels, test, k):
    predictions = []
    for row in test:
        nearest = np.argsort(((train - row) ** 2).sum(1), kind="stable")[:k]
        votes = collections.Counter(labels[nearest].tolist())
        most = max(votes.values())
        predictions.append(min(label for label, count in votes.items() if count == most))
    return np.array(predictions)


@pytest.mark.parametrize(("k", "offset"), [(1, 0), (2, 0), (30, 0), (5, 1000)])
def test_knn_is_a_vote_of_the_nearest(k, offset):
    rng = np.random.default_rng(k)
    train = rng.normal(offset, 1, size=(200, 5)).astype(np.float32)
    test = rng.normal(offset, 1, size=(300, 5)).astype(np.float32)
    labels = rng.integers(0, 4, 200).astype(np.int32)
    expected = naive_knn(train, labels, test, k)
    traced = jax.jit(knn_predict, static_argnums=3)
    np.testing.assert_array_equal(knn_predict(train, labels, test, k), expected)
    np.testing.assert_array_equal(traced(train, labels, test, k), expected)


def test_knn_refuses_more_neighbours_than_there_are():
    train = np.zeros((5, 2), np.float32)
    with pytest.raises(ValueError, match="k is 30"):
        knn_predict(train, np.zeros(5, np.int32), train[:1])


def test_prediction_depth_is_the_first_layer_right_to_the_end():
    target = np.array([1, 1, 1, 1, 1])
    layers = np.array([[1, 0, 1, 0, 1], [1, 1, 0, 0, 1], [1, 1, 1, 0, 0]])
    #          always, from 2, from 3, never, lost at the end
    np.testing.assert_array_equal(prediction_depth(layers, target), [1, 2, 3, 3, 3])


def test_purity_counts_neighbours_of_the_same_label_but_not_the_example_itself():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(60, 4)).astype(np.float32)
    labels = rng.integers(0, 3, 60).astype(np.int32)
    rows[1] = rows[0]  # a twin is a neighbour
    expected = []
    for index, row in enumerate(rows):
        order = np.argsort(((rows - row) ** 2).sum(1), kind="stable")
        others = order[order != index][:7]
        expected.append(np.mean(labels[others] == labels[index]))
    traced = jax.jit(knn_purity, static_argnums=2)
    np.testing.assert_allclose(knn_purity(rows, labels, 7), np.mean(expected), rtol=1e-6)
    np.testing.assert_allclose(traced(rows, labels, 7), np.mean(expected), rtol=1e-6)
    with pytest.raises(ValueError, match="60 examples"):
        knn_purity(rows, labels, 60)


def test_purity_of_separate_clusters_is_one():
    labels = np.repeat(np.arange(3, dtype=np.int32), 10)
    clusters = 10.0 * np.eye(3, dtype=np.float32)[labels]
    assert knn_purity(clusters, labels, 9) == 1
