"""Masks: exact counts, ties, cumulation, and that everything works while traced."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from naive_pruning import KERNELS, assert_equal_trees, assert_only_shrunk, naive_masks, tree

from prunejax import pruning
from prunejax.pruning.masks import without
from prunejax.pruning.ranking import count_pruned, prune_lowest

UPDATES = [pruning.layerwise_masks, pruning.global_masks]
DENORMAL = 3e-39
UNSIGNED = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, DENORMAL]
SIGNED = [*UNSIGNED, -DENORMAL, -0.0, np.inf, -np.inf, -1e38, 1e38]
SIZES = st.sampled_from([1, 2, 7, 40])  # each is compiled once


def drawn(size, values):
    """Arrays in which every element is drawn on its own."""
    return hnp.arrays(np.float32, size, elements=st.sampled_from(values), fill=st.nothing())


# ------------------------------------------------------- which weights go


@settings(max_examples=30, deadline=None)
@given(
    weights=drawn(40, UNSIGNED) | drawn(3, UNSIGNED),
    seed=st.integers(0, 99),
    sparsity=st.floats(0, 0.99),
)
def test_pruning_drops_exactly_the_smallest_with_ties_by_index(weights, seed, sparsity):
    weights = weights.reshape(1, 1, 1, -1)
    mask = np.random.default_rng(seed).random(weights.shape) > 0.3
    ours = pruning.layerwise_masks({"kernel": weights}, {"kernel": mask}, sparsity)["kernel"]
    np.testing.assert_array_equal(ours, naive_masks(np.abs(weights), mask, sparsity))


@settings(max_examples=100, deadline=None)
@given(
    scores=drawn(SIZES, SIGNED),
    seed=st.integers(0, 99),
    fraction=st.floats(0, 1),
)
def test_signed_scores_go_from_the_most_negative_up(scores, seed, fraction):
    """Infinities and denormals in their places, both zeros alike."""
    mask = np.random.default_rng(seed).random(scores.size) > 0.3
    count = round(fraction * scores.size)
    kept = np.flatnonzero(mask)
    order = [*np.flatnonzero(~mask), *kept[np.argsort(scores[kept], kind="stable")]]
    expected = mask.copy()
    expected[order[:count]] = False
    ours = jax.jit(prune_lowest)(scores, mask, count)
    np.testing.assert_array_equal(ours, expected)


def test_a_negative_score_goes_before_a_positive_one():
    scores = np.array([1, -1, 2, -2, 0], np.float32)
    keep_all = np.ones(5, bool)
    for count, kept in enumerate(["11111", "11101", "10101", "10100", "00100", "00000"]):
        mask = prune_lowest(scores, keep_all, count)
        assert "".join("01"[int(flag)] for flag in mask) == kept


def test_the_two_zeros_are_equal_scores():
    """A score of weight times a gradient of 0 has the sign of the weight."""
    scores = np.array([0.0, -0.0, 0.0, -0.0], np.float32)
    mask = prune_lowest(scores, np.ones(4, bool), 2)
    assert mask.tolist() == [False, False, True, True]


def test_no_number_ranks_above_all_whatever_its_sign():
    """0/0 is the negative NaN on some machines."""
    negative = np.uint32(0xFFC00000).view(np.float32)
    scores = np.array([np.nan, np.inf, negative, -1], np.float32)
    mask = prune_lowest(scores, np.ones(4, bool), 2)
    assert mask.tolist() == [True, False, True, False]


def test_what_is_pruned_goes_before_a_score_of_minus_infinity():
    scores = np.array([-np.inf, 1, 2], np.float32)
    mask = prune_lowest(scores, np.array([True, True, False]), 1)
    assert mask.tolist() == [True, True, False]


@pytest.mark.parametrize("size", [1, 432, 147_456, 690_384])
def test_the_count_is_the_nearest_whole_number_traced_or_not(size):
    sparsities = np.random.default_rng(0).random(200)
    exact = np.array([count_pruned(size, sparsity) for sparsity in sparsities.tolist()])
    assert (np.abs(exact - sparsities * size) <= 0.5).all()
    traced = jax.vmap(lambda sparsity: count_pruned(size, sparsity))(np.float32(sparsities))
    # A float32 has 24 bits, so that the sparsity itself may be off by one 32-millionth.
    assert (np.abs(traced - sparsities * size) <= 0.5 + 1 / 32).all()


def test_counts_are_the_same_where_dtypes_are_not_promoted():
    with jax.numpy_dtype_promotion("strict"):
        assert jax.jit(lambda sparsity: count_pruned(690_384, sparsity))(np.float32(0.9)) == 621346
        assert count_pruned(10, np.float32(0.5)) == 5


@pytest.mark.parametrize("size", [1, 170, 4096, 690_384, 36_461_232, 2**30 - 1])
def test_a_traced_count_is_exact_but_next_to_a_half(size):
    """Also where a product in single precision steps over whole numbers."""
    sparsities = np.float32([*np.random.default_rng(1).random(200), 0, 0.25, 0.5, 0.9, 0.95])
    traced = jax.vmap(lambda sparsity: count_pruned(size, sparsity))(sparsities)
    for sparsity, count in zip(sparsities.tolist(), np.asarray(traced).tolist(), strict=True):
        exact = Fraction(sparsity) * size
        rounding = 1e-5 * max(1, size / 1e6)
        next_to_a_half = 0 < abs(float(exact % 1) - 0.5) < rounding
        assert abs(count - exact) <= 0.5 + rounding
        assert next_to_a_half or count == round(exact)


# ---------------------------------------------------- from which leaves


@pytest.mark.parametrize("update", UPDATES)
def test_masks_only_shrink(update):
    masks = pruning.init_masks(tree())
    update = jax.jit(update)
    for step, sparsity in enumerate([0.3, 0.7, 0.5, 0.9, 0.1]):
        before = masks
        weights = tree(seed=step)  # new ones each time: the ranking changes
        masks = update(weights, masks, sparsity)
        assert_only_shrunk(masks, before)
    assert pruning.sparsity(masks) == pytest.approx(0.9, abs=1e-3)


def test_layerwise_prunes_every_convolution_alike_and_nothing_else():
    params = tree()
    masks = pruning.layerwise_masks(params, pruning.init_masks(params), 0.9)
    for name in KERNELS:
        kernel = params["encoder"][name]["kernel"]
        mask = np.asarray(masks["encoder"][name]["kernel"])
        assert (~mask).sum() == round(0.9 * kernel.size)
        assert np.abs(kernel)[~mask].max() <= np.abs(kernel)[mask].min()
    assert all(leaf.all() for leaf in jax.tree.leaves((masks["encoder"]["norm"], masks["head"])))


def test_global_ranks_all_layers_together():
    params = tree()
    params["encoder"]["stem"]["kernel"] *= 1e-6
    masks = pruning.global_masks(params, pruning.init_masks(params), 0.2)
    sizes = [params["encoder"][name]["kernel"].size for name in KERNELS]
    dropped = [int((~masks["encoder"][name]["kernel"]).sum()) for name in KERNELS]
    assert dropped == [round(0.2 * sum(sizes)), 0]


def test_global_breaks_ties_in_the_order_of_the_leaves():
    """Linen's order, which is the alphabet's: `conv` before `stem`."""
    params = jax.tree.map(np.ones_like, tree())
    masks = pruning.global_masks(params, pruning.init_masks(params), 0.5)
    dropped = {name: int((~masks["encoder"][name]["kernel"]).sum()) for name in KERNELS}
    sizes = {name: params["encoder"][name]["kernel"].size for name in KERNELS}
    assert dropped["conv"] == (sizes["conv"] + sizes["stem"]) / 2
    assert dropped["stem"] == 0


@pytest.mark.parametrize("update", UPDATES)
def test_without_a_prunable_leaf_the_masks_stay(update):
    params = tree()
    masks = pruning.init_masks(params)
    assert_equal_trees(update(params, masks, 0.9, lambda path, leaf: False), masks)


def test_head_kernel_is_pruned_where_asked_but_not_its_bias():
    params = tree()
    chosen = pruning.convolution_and_head_kernels
    masks = pruning.layerwise_masks(params, pruning.init_masks(params), 0.5, chosen)
    assert (~masks["head"]["Dense_0"]["kernel"]).sum() == 40
    assert masks["head"]["Dense_0"]["bias"].all()
    assert pruning.sparsity(masks, chosen) == pytest.approx(0.5)


def test_spared_parts_stay_dense_and_are_not_counted():
    """A name is a whole part of the path: `con` spares no `conv`."""
    params = tree()
    chosen = without(pruning.convolution_and_head_kernels, ("stem", "head", "con"))
    masks = pruning.layerwise_masks(params, pruning.init_masks(params), 0.5, chosen)
    assert masks["encoder"]["stem"]["kernel"].all()
    assert masks["head"]["Dense_0"]["kernel"].all()
    assert (~masks["encoder"]["conv"]["kernel"]).sum() == 576
    assert pruning.sparsity(masks, chosen) == 0.5


# ------------------------------------------------------------ in a program


@pytest.mark.parametrize("update", UPDATES)
def test_a_traced_sparsity_gives_the_same_masks_in_a_population(update):
    params = tree()
    masks = pruning.init_masks(params)
    levels = [0.0, 0.3, 0.9]
    population = jax.vmap(lambda sparsity: update(params, masks, sparsity))
    together = jax.jit(population)(np.array(levels, np.float32))
    for index, sparsity in enumerate(levels):
        member = jax.tree.map(lambda leaf, row=index: leaf[row], together)
        assert_equal_trees(member, update(params, masks, sparsity))


def test_apply_masks_zeroes_what_is_pruned_and_sparsity_counts_it():
    params = tree()
    masks = pruning.layerwise_masks(params, pruning.init_masks(params), 0.75)
    pruned = pruning.apply_masks(params, masks)["encoder"]["conv"]["kernel"]
    assert (pruned == 0).sum() == round(0.75 * pruned.size)
    assert pruning.sparsity(masks) == pytest.approx(0.75)
    assert pruning.sparsity({"bias": np.ones(3, bool)}) == 0


def test_apply_masks_leaves_what_is_kept_as_it_is():
    params = {"kernel": jnp.array([1.5, -2.5], jnp.bfloat16)}
    pruned = pruning.apply_masks(params, {"kernel": np.array([True, False])})["kernel"]
    assert pruned.dtype == jnp.bfloat16
    assert pruned.tolist() == [1.5, 0]
