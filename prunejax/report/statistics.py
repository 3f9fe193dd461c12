"""How measures vary between models: resampling, intervals, noise floor and tests."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Num

from prunejax.measures.metrics import modal_class
from prunejax.types import Array


@partial(jax.jit, static_argnames="num_classes")
def pie_counts(
    dense: Int[Array, "dense_models examples"],
    pruned: Int[Array, "pruned_models examples"],
    dense_weights: Float[Array, "replicates dense_models"],
    pruned_weights: Float[Array, "replicates pruned_models"],
    num_classes: int,
) -> Int[Array, " replicates"]:
    """Returns the number of PIEs with the models' votes weighted by each row of the weights.

    Args:
        dense: predictions `[dense_models, examples]`.
        pruned: predictions `[pruned_models, examples]`.
        dense_weights: `[replicates, dense_models]`.
        pruned_weights: `[replicates, pruned_models]`.
        num_classes: the number of classes of the data.
    """

    def count(weights: tuple[Array, Array]) -> Array:
        of_dense, of_pruned = weights
        dense_classes = modal_class(dense, num_classes, of_dense)
        pruned_classes = modal_class(pruned, num_classes, of_pruned)
        return jnp.sum(dense_classes != pruned_classes)

    weights = (jnp.asarray(dense_weights), jnp.asarray(pruned_weights))
    return jax.lax.map(count, weights, batch_size=20)


def shuffled_ranks(models: int, draws: int) -> Int[np.ndarray, "draws models"]:
    """Fixed random ranks of the models: those with ranks below m are a random subset of m."""
    in_order = np.tile(np.arange(models), (draws, 1))
    return np.random.default_rng(0).permuted(in_order, axis=1)


def noise_floor(
    dense: Int[Array, "models examples"],
    num_classes: int,
    splits: int = 100,
    size: int | None = None,
) -> Int[Array, " splits"]:
    """Returns the PIEs by training noise alone, between two disjoint subsets of the dense models.

    The splits are random with a fixed seed. For populations of another size see `floor_at`.

    Args:
        dense: predictions, `[models, examples]`.
        num_classes: the number of classes of the data.
        splits: the number of draws of two subsets.
        size: the models of each subset, at most half of all; None: half.

    Raises:
        ValueError: if there are fewer than 2 models, or not enough for two subsets.
    """
    if len(dense) < 2:
        raise ValueError("the noise floor compares halves of at least 2 dense models")
    half = len(dense) // 2
    size = half if size is None else size
    if not 1 <= size <= half:
        raise ValueError(f"{len(dense)} models have no two disjoint subsets of {size}")
    ranks = shuffled_ranks(len(dense), splits)
    first = ranks < size
    second = (ranks >= half) & (ranks < half + size)  # some models are in neither
    return pie_counts(
        dense, dense, first.astype(np.float32), second.astype(np.float32), num_classes
    )


def floor_at(counts: Num[Array, "..."], size: int, models: int | float) -> Float[np.ndarray, "..."]:
    """The noise floor of populations of `models`, from that of subsets of `size`.

    For two populations of different sizes `models` is their harmonic mean.

    An image's modal prediction is random if its votes are closer than their noise, which falls
    with the square root of the number of voters; so does the number of such images. In simulated
    populations of 8 or more models, extrapolation from halves was within a tenth of the true
    number, where the halves themselves have over 30% too many; below 8 it is a rough estimate.
    """
    return np.asarray(np.asarray(counts) * np.sqrt(size / models))


def seeds_to_decide(
    value: float, interval: tuple[float, float], models: int, most: int = 1000
) -> int | None:
    """Returns how many seeds give 50% power: an interval without 0, if the effect is as it seems.

    The width of the interval of n seeds is proportional to Student's t over the square root of n;
    with the returned number the interval is expected to end at 0.

    Args:
        value: the effect.
        interval: its 95% interval.
        models: the number of seeds that it is computed from, at least 2.
        most: the largest number that is returned; None is returned for more.

    Returns:
        The number, at least `models`.
    """
    from scipy.stats import t

    if models > most:
        return None
    # The end nearer to 0 decides.
    width = value - interval[0] if value > 0 else interval[1] - value
    counts = np.arange(models, most + 1)
    widths = t.ppf(0.975, counts - 1) / np.sqrt(counts)
    deciding = counts[width * widths / widths[0] < abs(value)]
    return int(deciding[0]) if len(deciding) else None


def bootstrap_weights(count: int, resamples: int = 1000) -> Float[np.ndarray, "resamples count"]:
    """How often each of `count` seeds is drawn in each resample of as many, with replacement."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(count, np.full(count, 1 / count), resamples)
    return drawn.astype(np.float32)


def interval(
    estimate: float, replicates: Float[np.ndarray, " resamples"], models: int, level: float = 0.95
) -> tuple[float, float]:
    """The central `level` of the replicates' deviations from their own mean, around the estimate.

    A resample has duplicates, so its modal class is noisier and replicates of a PIE count are far
    above the estimate; only their spread is used. The bootstrap of few `models` has too little
    spread: the deviations are scaled by the ratio of the quantiles of Student's t and the normal
    distribution, which keeps the level for means from 3 models on (with 2 it is 93% for 95%).

    Args:
        estimate: the value over all models.
        replicates: the value of each bootstrap resample of them, `[resamples]`.
        models: the number of models, at least 2.
        level: the confidence level, in (0, 1).

    Returns:
        The lower and the upper end.
    """
    from scipy.stats import norm, t

    tail = (1 + level) / 2
    few = np.sqrt(models / (models - 1))  # the bootstrap's variance is that of n, not of n - 1
    widened = t.ppf(tail, models - 1) / norm.ppf(tail) * few
    ends = np.percentile(replicates, (100 - 100 * tail, 100 * tail))
    low, high = estimate + widened * (ends - np.mean(replicates))
    return float(low), float(high)


def jaccard(
    first: Bool[Array, " examples"], second: Bool[Array, " examples"]
) -> tuple[float, float, float]:
    """Returns the overlap of two sets of examples, and that of random sets of the same sizes.

    Returns:
        The Jaccard index; its expectation over random sets of these sizes; and the p-value, the
        probability that such sets share as many or more. Both indices are NaN for two empty sets.
    """
    from scipy.stats import hypergeom

    a = int(np.sum(first))
    b = int(np.sum(second))
    both = int(np.sum(np.asarray(first) & np.asarray(second)))
    if a + b == 0:
        return np.nan, np.nan, 1.0
    chance: Any = hypergeom(len(first), a, b)
    fewest = max(0, a + b - len(first))
    shared = np.arange(fewest, min(a, b) + 1)
    expected = chance.pmf(shared) @ (shared / (a + b - shared))
    return both / (a + b - both), float(expected), float(chance.sf(both - 1))


def compare_means(
    first: Float[np.ndarray, "first_models tests"], second: Float[np.ndarray, "second_models tests"]
) -> Float[np.ndarray, " tests"]:
    """p-values of Welch's t-test that two populations differ in their means, Holm-corrected.

    Tests with NaN values stay NaN and do not count; if neither population varies p is 1 or 0.

    Source: Hooker et al. 2019, who test each class; Holm 1979.
    """
    from scipy.stats import ttest_ind_from_stats

    # Differences by rounding errors count as equal means and as zero variance.
    m1 = np.round(first.mean(0), 9)
    m2 = np.round(second.mean(0), 9)
    s1 = np.round(first.std(0, ddof=1), 9)
    s2 = np.round(second.std(0, ddof=1), 9)
    with np.errstate(divide="ignore", invalid="ignore"):
        test = ttest_ind_from_stats(m1, s1, len(first), m2, s2, len(second), equal_var=False)
    p = np.asarray(test[1])
    where_equal = np.where(s1 + s2 > 0, p, 1.0)
    p = np.where(m1 == m2, where_equal, p)

    # Holm: the smallest of n p-values is multiplied by n, the next by n - 1, and so on.
    order = np.argsort(p)[: np.sum(~np.isnan(p))]
    times = np.arange(len(order), 0, -1)
    corrected = p.copy()
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * times))
    return corrected


def trend(values: Float[np.ndarray, "blocks treatments"]) -> tuple[float, float]:
    """Page's test of ordered treatments, within blocks that each have all treatments.

    Returns:
        The p-value that values rise from the first treatment to the last, and that they fall; both
        NaN for fewer than 2 blocks or 3 treatments. Source: Page 1963; exact where scipy is.
    """
    from scipy.stats import page_trend_test

    if values.shape[0] < 2 or values.shape[1] < 3:
        return np.nan, np.nan
    rises = page_trend_test(values).pvalue
    falls = page_trend_test(values[:, ::-1]).pvalue
    return float(rises), float(falls)


def seeds_for_trend(
    values: Float[np.ndarray, "blocks treatments"], level: float = 0.025, most: int = 1000
) -> int | None:
    """Returns how many blocks give 50% power: `trend` below `level` in one of its directions.

    The trend is assumed to be as strong as observed: Page's statistic, in its standard deviations,
    grows with the square root of the blocks.

    Args:
        values: as in `trend`, of at least 2 blocks and 3 treatments, which do not decide it.
        level: the significance level of one direction.
        most: the largest number that is returned; None is returned for more.
    """
    from scipy.stats import norm, page_trend_test

    rises = page_trend_test(values, method="asymptotic").pvalue
    reached = abs(norm.isf(rises))
    if not reached:
        return None
    needed = int(np.ceil(len(values) * (norm.isf(level) / reached) ** 2))
    needed = max(needed, len(values) + 1)  # with few blocks the exact test needs more
    return needed if needed <= most else None
