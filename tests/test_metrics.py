"""The measures against counting by hand."""

import collections

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prunejax.measures import metrics

PREDICTIONS = hnp.arrays(
    np.int32, st.tuples(st.integers(1, 6), st.just(8)), elements=st.integers(0, 3)
)
"""Of 1 to 6 models for 8 examples of 4 classes."""


def naive_mode(column):
    votes = collections.Counter(column.tolist())
    return min(label for label, count in votes.items() if count == max(votes.values()))


@settings(max_examples=50, deadline=None)
@given(PREDICTIONS)
def test_modal_class_is_the_commonest_and_the_lowest_of_several(predictions):
    expected = [naive_mode(column) for column in predictions.T]
    np.testing.assert_array_equal(metrics.modal_class(predictions, 4), expected)


@settings(max_examples=50, deadline=None)
@given(PREDICTIONS, PREDICTIONS)
def test_pies_are_the_examples_whose_modal_class_changes(dense, pruned):
    expected = [naive_mode(d) != naive_mode(p) for d, p in zip(dense.T, pruned.T, strict=True)]
    np.testing.assert_array_equal(metrics.pruning_identified_exemplars(dense, pruned, 4), expected)


def test_no_models_have_no_modal_class():
    """They would all vote for the lowest."""
    none = np.zeros((0, 4), np.int32)
    some = np.zeros((2, 4), np.int32)
    for dense, pruned in ((none, some), (some, none)):
        with pytest.raises(ValueError, match="no models to vote"):
            metrics.pruning_identified_exemplars(dense, pruned, 3)


def test_accuracy_is_per_model():
    predictions = np.array([[0, 1, 2, 3], [0, 0, 0, 0]])
    np.testing.assert_allclose(metrics.accuracy(predictions, np.array([0, 1, 2, 0])), [0.75, 0.5])


def test_q_score_is_the_papers_algorithm():
    rows = np.random.default_rng(0).random((5, 3, 16)).astype(np.float32)
    q, z, l1 = metrics.q_score(rows)
    for index in np.ndindex(5, 3):
        h = rows[index] / np.sqrt((rows[index] ** 2).sum())
        expected_z = (h.max() - h.mean()) / np.sqrt(((h - h.mean()) ** 2).mean())
        expected = (expected_z / np.abs(h).sum(), expected_z, np.abs(h).sum())
        np.testing.assert_allclose([q[index], z[index], l1[index]], expected, rtol=1e-4)


def test_q_score_of_a_dead_representation_is_zero():
    rows = np.stack([np.zeros(8), np.eye(8)[2] * 1e-30]).astype(np.float32)
    q, z, l1 = jax.jit(metrics.q_score)(rows)
    assert (q[0], z[0], l1[0]) == (0, 0, 0)
    np.testing.assert_allclose([z[1], l1[1]], [np.sqrt(7), 1], rtol=1e-5)


def test_q_score_of_equal_features_is_zero():
    q, z, l1 = metrics.q_score(np.full(16, 3.0, np.float32))
    assert (q, z) == (0, 0)
    assert l1 == pytest.approx(4)


def test_q_score_of_what_is_not_finite_is_nan():
    rows = np.ones((2, 8), np.float32)
    rows[0, 3] = np.nan
    rows[1, 3] = np.inf
    assert np.isnan(metrics.q_score(rows)).all()


def test_recall_is_per_model_and_class_and_nan_without_examples():
    predictions = np.array([[0, 0, 1, 1], [1, 1, 1, 1]])
    recall = metrics.recall(predictions, np.array([0, 0, 0, 1]), 3)
    np.testing.assert_allclose(recall, [[2 / 3, 1, np.nan], [0, 1, np.nan]])
