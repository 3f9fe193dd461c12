"""Pure functions on arrays `[models, examples]`, and how far their results would vary with other models."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from prunejax.types import Array


def accuracy(predictions: Int[Array, "models examples"], labels: Int[Array, " examples"]) -> Float[Array, " models"]:
    """The fraction of examples that each model gets right."""
    return jnp.mean(jnp.asarray(predictions) == jnp.asarray(labels)[None], axis=1)


def recall(
    predictions: Int[Array, "models examples"], labels: Int[Array, " examples"], num_classes: int
) -> Float[np.ndarray, "models classes"]:
    """The fraction of each true class that each model gets right; NaN for a class without examples."""
    right, labels = np.asarray(predictions) == np.asarray(labels)[None], np.asarray(labels)
    per_class = [right[:, labels == label] for label in range(num_classes)]
    return np.stack([r.mean(1) if r.size else np.full(len(right), np.nan) for r in per_class], axis=1)


def modal_class(
    predictions: Int[Array, "models examples"], num_classes: int, weights: Float[Array, " models"] | None = None
) -> Int[Array, " examples"]:
    """The class that most models predict for each example, or most weight; of several the lowest."""
    votes = jax.nn.one_hot(predictions, num_classes)
    votes = votes.sum(0) if weights is None else jnp.einsum("m,mec->ec", weights, votes)
    return jnp.argmax(votes, axis=-1)


def pruning_identified_exemplars(
    dense: Int[Array, "dense_models examples"], pruned: Int[Array, "pruned_models examples"], num_classes: int
) -> Bool[Array, " examples"]:
    """The examples (PIEs) whose modal class over the pruned models differs from that over the dense ones.

    Source: Hooker et al. 2019; the paper, eq. 1.
    """
    return modal_class(dense, num_classes) != modal_class(pruned, num_classes)


@partial(jax.jit, static_argnames="num_classes")
def pie_counts(
    dense: Int[Array, "dense_models examples"],
    pruned: Int[Array, "pruned_models examples"],
    dense_weights: Float[Array, "replicates dense_models"],
    pruned_weights: Float[Array, "replicates pruned_models"],
    num_classes: int,
) -> Int[Array, " replicates"]:
    """The number of PIEs when the models' votes weigh as each row of the weights says."""

    def count(weights: tuple[Array, Array]) -> Array:
        classes = (modal_class(p, num_classes, w) for p, w in zip((dense, pruned), weights, strict=True))
        return jnp.sum(next(classes) != next(classes))

    return jax.lax.map(count, (jnp.asarray(dense_weights), jnp.asarray(pruned_weights)), batch_size=20)


def noise_floor(dense: Int[Array, "models examples"], num_classes: int, splits: int = 100) -> Int[Array, " splits"]:
    """The PIEs that training noise alone makes: between two disjoint random halves of the dense models, per split.

    Halves vote with fewer models than a population does, so this is somewhat more than its own noise.

    Raises:
        ValueError: if there are fewer than 2 models.
    """
    if len(dense) < 2:
        raise ValueError("the noise floor compares halves of at least 2 dense models")
    half = len(dense) // 2
    places = np.random.default_rng(0).permuted(np.tile(np.arange(len(dense)), (splits, 1)), axis=1)
    first, second = places < half, (places >= half) & (places < 2 * half)
    return pie_counts(dense, dense, first.astype(np.float32), second.astype(np.float32), num_classes)


def bootstrap_weights(count: int, resamples: int = 1000) -> Float[np.ndarray, "resamples count"]:
    """How often each of `count` seeds is drawn in each bootstrap resample of as many, with replacement."""
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), resamples)
    return drawn.astype(np.float32)


def interval(
    estimate: float, replicates: Float[np.ndarray, " resamples"], models: int, level: float = 0.95
) -> tuple[float, float]:
    """The central `level` of the bootstrap replicates' deviations from their own mean, around the estimate.

    Resampled models agree less than different ones do, so a resampled modal class is noisier and replicates of a PIE
    count lie far above it; what carries over is their spread. The bootstrap of few `models` spreads too little: the
    deviations are widened as Student's t is against the normal, which keeps the level for means from 2 models on.
    """
    from scipy.stats import norm, t

    tail = (1 + level) / 2
    widened = t.ppf(tail, models - 1) / norm.ppf(tail) * np.sqrt(models / (models - 1))
    low, high = estimate + widened * (np.percentile(replicates, (100 - 100 * tail, 100 * tail)) - np.mean(replicates))
    return float(low), float(high)


def jaccard(first: Bool[Array, " examples"], second: Bool[Array, " examples"]) -> tuple[float, float, float]:
    """Overlap of two sets of examples as Jaccard index, that expected of random sets of these sizes, and a p-value.

    The p-value is the probability that random sets of these sizes share as many or more. Both indices are NaN for
    two empty sets.
    """
    from scipy.stats import hypergeom

    a, b, both = int(np.sum(first)), int(np.sum(second)), int(np.sum(np.asarray(first) & np.asarray(second)))
    if a + b == 0:
        return np.nan, np.nan, 1.0
    chance: Any = hypergeom(len(first), a, b)
    shared = np.arange(max(0, a + b - len(first)), min(a, b) + 1)
    return both / (a + b - both), float(chance.pmf(shared) @ (shared / (a + b - shared))), float(chance.sf(both - 1))


def compare_means(
    first: Float[np.ndarray, "first_models tests"], second: Float[np.ndarray, "second_models tests"]
) -> Float[np.ndarray, " tests"]:
    """p-values of Welch's t-test that two populations differ in their means, after Holm's correction over the tests.

    Tests whose values are NaN stay NaN and do not count; where neither population varies p is 1 or 0.

    Source: Hooker et al. 2019, who test each class; Holm 1979.
    """
    from scipy.stats import ttest_ind_from_stats

    # What rounding leaves of an equal mean or of no variance counts as equal and as none.
    (m1, s1), (m2, s2) = ((np.round(x.mean(0), 9), np.round(x.std(0, ddof=1), 9)) for x in (first, second))
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.asarray(ttest_ind_from_stats(m1, s1, len(first), m2, s2, len(second), equal_var=False)[1])
    p = np.where(m1 == m2, np.where(s1 + s2 > 0, p, 1.0), p)
    order = np.argsort(p)[: np.sum(~np.isnan(p))]
    corrected = p.copy()
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return corrected


def q_score(
    representations: Float[Array, "*batch dim"],
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Quality of representations: (q, z, l1).

    With h the representation over its Euclidean length: l1 is the sum of |h|, z the largest h less the mean, in
    population standard deviations, and q = z / l1. All three are 0 for an all-zero representation, and z and q where
    every feature is equal.

    Source: Kalibhat et al. 2022; the paper, algorithm 1 and eq. 2.
    """
    h = jnp.asarray(representations, jnp.float32)
    # Scaling by the largest entry first keeps the squares of very small or large features in range.
    largest = jnp.max(jnp.abs(h), axis=-1, keepdims=True)
    h = h / jnp.where(largest > 0, largest, 1)
    length = jnp.linalg.norm(h, axis=-1, keepdims=True)
    h = h / jnp.where(length > 0, length, 1)
    deviation = jnp.where(h.max(-1) == h.min(-1), 0, h.std(-1))
    l1 = jnp.abs(h).sum(-1)
    z = jnp.where(deviation == 0, 0, (h.max(-1) - h.mean(-1)) / jnp.where(deviation == 0, 1, deviation))
    return z / jnp.where(l1 > 0, l1, 1), z, l1
