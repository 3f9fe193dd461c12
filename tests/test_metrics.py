"""The measures against counting by hand."""

import collections
import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import ttest_ind

from prunejax import metrics

PREDICTIONS = hnp.arrays(np.int32, st.tuples(st.integers(1, 6), st.just(8)), elements=st.integers(0, 3))


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
    rows[0, 3], rows[1, 3] = np.nan, np.inf
    assert np.isnan(metrics.q_score(rows)).all()


def naive_pies(dense, pruned):
    return sum(naive_mode(d) != naive_mode(p) for d, p in zip(dense.T, pruned.T, strict=True))


@settings(max_examples=25, deadline=None)
@given(PREDICTIONS, PREDICTIONS, st.integers(0, 2**31))
def test_weighted_pie_counts_are_those_of_the_models_drawn_as_often(dense, pruned, seed):
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(models), (3, len(models))) for models in (dense, pruned)]
    weights = [
        np.stack([np.bincount(row, minlength=len(models)) for row in rows]).astype(np.float32)
        for rows, models in zip(drawn, (dense, pruned), strict=True)
    ]
    expected = [naive_pies(dense[d], pruned[p]) for d, p in zip(*drawn, strict=True)]
    np.testing.assert_array_equal(metrics.pie_counts(dense, pruned, *weights, 4), expected)


def test_the_noise_floor_compares_disjoint_halves_of_the_dense_models():
    same = np.tile(np.arange(6) % 3, (5, 1))
    assert metrics.noise_floor(same, 3).tolist() == [0] * 100
    two_camps = np.stack([np.zeros(6, int), np.zeros(6, int), np.ones(6, int), np.ones(6, int)])
    # Halves of one camp each differ everywhere; mixed halves tie, and so agree.
    assert set(metrics.noise_floor(two_camps, 2).tolist()) == {0, 6}
    with pytest.raises(ValueError, match="at least 2"):
        metrics.noise_floor(same[:1], 3)


def test_bootstrap_weights_draw_as_many_seeds_as_there_are():
    weights = metrics.bootstrap_weights(7)
    assert weights.shape == (1000, 7)
    assert (weights.sum(1) == 7).all()
    assert abs(weights.mean() - 1) < 1e-6
    # The chance that a resample misses a given seed.
    np.testing.assert_allclose((weights == 0).mean(), (6 / 7) ** 7, atol=0.02)


@pytest.mark.parametrize("models", [3, 10, 30])
def test_intervals_of_a_mean_hold_the_truth_95_times_in_100(models):
    weights = metrics.bootstrap_weights(models)
    held = 0
    for values in np.random.default_rng(models).normal(size=(600, models)):
        low, high = metrics.interval(values.mean(), weights @ values / models, models)
        held += low < 0 < high
    assert 0.92 < held / 600 < 0.98


def test_the_interval_of_a_biased_statistic_lies_around_its_estimate():
    replicates = np.random.default_rng(0).normal(size=1000)
    low, high = metrics.interval(10.0, replicates + 25, 30)
    np.testing.assert_allclose([low - 10, high - 10], [-2.08, 2.08], atol=0.2)


def test_recall_is_per_model_and_class_and_nan_without_examples():
    recall = metrics.recall(np.array([[0, 0, 1, 1], [1, 1, 1, 1]]), np.array([0, 0, 0, 1]), 3)
    np.testing.assert_allclose(recall, [[2 / 3, 1, np.nan], [0, 1, np.nan]])


def test_jaccard_by_chance_is_the_mean_over_all_sets_of_these_sizes():
    first, second = np.arange(6) < 3, np.array([1, 1, 0, 0, 0, 0], bool)
    overlaps = [len({0, 1, 2} & set(chosen)) for chosen in itertools.combinations(range(6), 2)]
    index, chance, p = metrics.jaccard(first, second)
    assert index == 2 / 3
    np.testing.assert_allclose(chance, np.mean([k / (5 - k) for k in overlaps]))
    np.testing.assert_allclose(p, np.mean([k >= 2 for k in overlaps]))
    none = np.zeros(6, bool)
    assert np.isnan(metrics.jaccard(none, none)[0])
    assert metrics.jaccard(first, none) == (0, 0, 1)


def test_compare_means_is_welchs_test_with_holms_correction():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(5, 6)), rng.normal(size=(9, 6)) * 2 + [0, 1, 2, 3, 4, 0]
    first[:, 5], second[:, 5] = np.nan, np.nan  # a class without images does not count among the tests
    raw = ttest_ind(first[:, :5], second[:, :5], equal_var=False).pvalue
    expected = np.empty(5)
    largest = 0.0
    for rank, test in enumerate(np.argsort(raw)):
        largest = max(largest, min(1.0, raw[test] * (5 - rank)))
        expected[test] = largest
    np.testing.assert_allclose(metrics.compare_means(first, second), [*expected, np.nan])


def test_compare_means_of_populations_that_do_not_vary():
    first, second = np.full((3, 2), 0.1), np.array([[0.1, 0.2]] * 4)
    assert metrics.compare_means(first, second).tolist() == [1, 0]
