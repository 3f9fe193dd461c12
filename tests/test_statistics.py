"""How far measures vary, against counting by hand, scipy's tests and simulation."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import ttest_ind

from prunejax.report import statistics

PREDICTIONS = hnp.arrays(
    np.int32, st.tuples(st.integers(1, 6), st.just(8)), elements=st.integers(0, 3)
)
"""Of 1 to 6 models for 8 examples of 4 classes."""


def naive_mode(column):
    votes = collections.Counter(column.tolist())
    return min(label for label, count in votes.items() if count == max(votes.values()))


def naive_pies(dense, pruned):
    return sum(naive_mode(d) != naive_mode(p) for d, p in zip(dense.T, pruned.T, strict=True))


def how_often(drawn, models):
    """How often each model was drawn in each row."""
    counts = [np.bincount(row, minlength=models) for row in drawn]
    return np.stack(counts).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(PREDICTIONS, PREDICTIONS, st.integers(0, 2**31))
def test_weighted_pie_counts_are_those_of_the_models_drawn_as_often(dense, pruned, seed):
    rng = np.random.default_rng(seed)
    drawn_dense = rng.integers(0, len(dense), (3, len(dense)))
    drawn_pruned = rng.integers(0, len(pruned), (3, len(pruned)))
    found = statistics.pie_counts(
        dense, pruned, how_often(drawn_dense, len(dense)), how_often(drawn_pruned, len(pruned)), 4
    )
    for count, d, p in zip(found, drawn_dense, drawn_pruned, strict=True):
        assert count == naive_pies(dense[d], pruned[p])


def test_the_noise_floor_compares_disjoint_halves_of_the_dense_models():
    same = np.tile(np.arange(6) % 3, (5, 1))
    assert statistics.noise_floor(same, 3).tolist() == [0] * 100
    two_camps = np.stack([np.zeros(6, int), np.zeros(6, int), np.ones(6, int), np.ones(6, int)])
    # Halves of one camp each differ everywhere; mixed halves tie, and so agree.
    assert set(statistics.noise_floor(two_camps, 2).tolist()) == {0, 6}
    with pytest.raises(ValueError, match="at least 2"):
        statistics.noise_floor(same[:1], 3)


def test_the_noise_floor_takes_subsets_of_any_size_up_to_half():
    rng = np.random.default_rng(0)
    dense = rng.integers(0, 3, (7, 40))
    for size in (1, 2, 3):
        counts = statistics.noise_floor(dense, 3, 20, size)
        in_order = np.tile(np.arange(7), (20, 1))
        places = np.random.default_rng(0).permuted(in_order, axis=1)
        for count, row in zip(counts, places, strict=True):
            first, second = dense[row < size], dense[(row >= 3) & (row < 3 + size)]
            assert count == naive_pies(first, second)
    for size in (0, 4):
        with pytest.raises(ValueError, match=f"disjoint subsets of {size}"):
            statistics.noise_floor(dense, 3, size=size)


def voting(rng):
    """Where each class's share of the votes for each of 2,000 images ends."""
    weights = rng.gamma(0.25, size=(2000, 10))
    weights[:, 0] += rng.gamma(3.0, size=2000)
    return (weights / weights.sum(1, keepdims=True)).cumsum(1)


def population(rng, ends, models):
    """What so many models vote for."""
    drawn = rng.random((models, 2000, 1))
    return np.minimum((drawn > ends).sum(2), 9)


@pytest.mark.parametrize("models", [8, 10, 20])
def test_the_floor_of_the_whole_population_is_nearer_than_that_of_its_halves(models):
    """Images whose classes are voted for by chance, some of them nearly evenly."""
    rng = np.random.default_rng(models)
    ends = voting(rng)
    truth, halves, extrapolated = [], [], []
    everyone = np.ones((1, models), np.float32)
    for _ in range(20):
        first, second = population(rng, ends, models), population(rng, ends, models)
        truth.append(statistics.pie_counts(first, second, everyone, everyone, 10)[0])
        counts = np.asarray(statistics.noise_floor(first, 10, 20))
        halves.append(counts.mean())
        extrapolated.append(statistics.floor_at(counts, models // 2, models).mean())
    assert np.mean(extrapolated) == pytest.approx(np.mean(truth), rel=0.1)
    assert np.mean(halves) > 1.3 * np.mean(truth)


def test_the_floor_of_unequal_populations_is_that_of_their_harmonic_mean():
    rng = np.random.default_rng(4)
    ends = voting(rng)
    counted, expected = [], []
    for _ in range(20):
        first, second = population(rng, ends, 24), population(rng, ends, 8)
        votes = [np.ones((1, len(models)), np.float32) for models in (first, second)]
        counted.append(statistics.pie_counts(first, second, *votes, 10)[0])
        counts = np.asarray(statistics.noise_floor(first, 10, 20))
        expected.append(statistics.floor_at(counts, 12, 12).mean())  # of 24 and 8
    assert np.mean(expected) == pytest.approx(np.mean(counted), rel=0.1)


def test_as_many_seeds_as_would_decide_have_an_interval_that_leaves_out_zero():
    """Of values whose mean and deviation stay as they are."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=8)
    values = 0.4 + (values - values.mean()) / values.std()
    weights = statistics.bootstrap_weights(8)
    low, high = statistics.interval(values.mean(), weights @ values / 8, 8)
    assert low < 0 < high
    seeds = statistics.seeds_to_decide(values.mean(), (low, high), 8)
    for count, decided in ((seeds + 2, True), (seeds - 2, False)):
        # As many values as that, of the same mean and the same deviation of one drawn at random.
        many = np.resize(values, count)
        many = values.mean() + (many - many.mean()) / many.std(ddof=1) * values.std(ddof=1)
        of_many = statistics.bootstrap_weights(count)
        found = statistics.interval(values.mean(), of_many @ many / count, count)
        assert (found[0] > 0) == decided, (count, found)


def test_what_is_decided_needs_no_more_seeds_and_what_has_no_effect_no_number():
    assert statistics.seeds_to_decide(2.0, (1.0, 3.0), 5) == 5
    assert statistics.seeds_to_decide(-2.0, (-3.0, -1.0), 5) == 5
    assert statistics.seeds_to_decide(0.0, (-1.0, 1.0), 5) is None
    assert statistics.seeds_to_decide(1e-3, (-1.0, 1.0), 5) is None
    # Only the end towards 0 decides.
    assert statistics.seeds_to_decide(1.0, (-0.1, 9.0), 5) < 10


@pytest.mark.parametrize("falls", [False, True])
def test_a_trend_of_as_many_blocks_as_would_decide_is_significant(falls):
    values = np.array([[0, 1, 2, 3], [3, 1, 0, 2], [2, 1, 0, 3.0]])
    if falls:
        values = values[:, ::-1]
    assert min(statistics.trend(values)) > 0.2
    times = -(-statistics.seeds_for_trend(values) // 3)
    assert times > 2
    assert min(statistics.trend(np.tile(values, (times, 1)))) < 0.0255
    assert min(statistics.trend(np.tile(values, (times - 1, 1)))) > 0.025


def test_blocks_without_a_trend_have_no_number_that_would_decide():
    assert statistics.seeds_for_trend(np.array([[0, 1, 2.0], [2, 1, 0]])) is None


def test_few_blocks_that_the_exact_test_leaves_undecided_need_more():
    in_order = np.array([[0, 1, 2.0], [0, 1, 2]])
    assert min(statistics.trend(in_order)) > 0.025
    assert statistics.seeds_for_trend(in_order) == 3


def test_bootstrap_weights_draw_as_many_seeds_as_there_are():
    weights = statistics.bootstrap_weights(7)
    assert weights.shape == (1000, 7)
    assert (weights.sum(1) == 7).all()
    assert abs(weights.mean() - 1) < 1e-6
    # The chance that a resample misses a given seed.
    np.testing.assert_allclose((weights == 0).mean(), (6 / 7) ** 7, atol=0.02)


@pytest.mark.parametrize("models", [3, 10, 30])
def test_intervals_of_a_mean_hold_the_truth_95_times_in_100(models):
    weights = statistics.bootstrap_weights(models)
    held = 0
    for values in np.random.default_rng(models).normal(size=(600, models)):
        low, high = statistics.interval(values.mean(), weights @ values / models, models)
        held += low < 0 < high
    assert 0.92 < held / 600 < 0.98


def test_the_interval_of_a_biased_statistic_lies_around_its_estimate():
    replicates = np.random.default_rng(0).normal(size=1000)
    low, high = statistics.interval(10.0, replicates + 25, 30)
    np.testing.assert_allclose([low - 10, high - 10], [-2.08, 2.08], atol=0.2)


def test_jaccard_by_chance_is_the_mean_over_all_sets_of_these_sizes():
    first = np.arange(6) < 3
    second = np.array([1, 1, 0, 0, 0, 0], bool)
    overlaps = [len({0, 1, 2} & set(chosen)) for chosen in itertools.combinations(range(6), 2)]
    index, chance, p = statistics.jaccard(first, second)
    assert index == 2 / 3
    np.testing.assert_allclose(chance, np.mean([k / (5 - k) for k in overlaps]))
    np.testing.assert_allclose(p, np.mean([k >= 2 for k in overlaps]))
    none = np.zeros(6, bool)
    assert np.isnan(statistics.jaccard(none, none)[0])
    assert statistics.jaccard(first, none) == (0, 0, 1)


def test_compare_means_is_welchs_test_with_holms_correction():
    rng = np.random.default_rng(2)
    first = rng.normal(size=(5, 6))
    second = rng.normal(size=(9, 6)) * 2 + [0, 1, 2, 3, 4, 0]
    first[:, 5] = np.nan  # a class without images does not count among the tests
    second[:, 5] = np.nan
    raw = ttest_ind(first[:, :5], second[:, :5], equal_var=False).pvalue
    expected = np.empty(5)
    largest = 0.0
    for rank, test in enumerate(np.argsort(raw)):
        largest = max(largest, min(1.0, raw[test] * (5 - rank)))
        expected[test] = largest
    np.testing.assert_allclose(statistics.compare_means(first, second), [*expected, np.nan])


def test_compare_means_of_populations_that_do_not_vary():
    first = np.full((3, 2), 0.1)
    second = np.array([[0.1, 0.2]] * 4)
    assert statistics.compare_means(first, second).tolist() == [1, 0]
