"""Erdős-Rényi-Kernel: against the iteration of Evci et al.'s code, and what must hold of masks."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_pruning import (
    KERNELS,
    assert_equal_trees,
    assert_only_shrunk,
    naive_masks,
    tree,
)

from prunejax import pruning
from prunejax.nn.wideresnet import WideResNet
from prunejax.pruning.erk import erk, erk_densities
from prunejax.pruning.magnitude import magnitudes

SMALL, LARGE = (3, 3, 4, 4), (3, 3, 64, 64)


def naive_densities(shapes, sparsity):
    """Makes the leaf that is too dense dense, and shares the rest out anew.

    Source: google-research/rigl, rigl/sparse_utils.py, get_sparsities_erdos_renyi; without its
    rounding of the number of weights in between.
    """
    dense = set()
    while True:
        wanted, divisor, raw = 0.0, 0.0, {}
        for index, shape in enumerate(shapes):
            size = np.prod(shape)
            if index in dense:
                wanted -= sparsity * size
            else:
                wanted += (1 - sparsity) * size
                raw[index] = np.sum(shape) / size
                divisor += raw[index] * size
        if not raw:
            return np.ones(len(shapes))
        epsilon = wanted / divisor
        largest = max(raw.values())
        if epsilon * largest <= 1:
            break
        dense |= {index for index, value in raw.items() if value == largest}
    return np.array([epsilon * raw[index] if index in raw else 1 for index in range(len(shapes))])


def kernels_of_a_wide_resnet():
    """The shapes of WRN-16-2's convolutions."""
    variables = jax.eval_shape(WideResNet(16, 2).init, jax.random.key(0), np.zeros((1, 32, 32, 3)))
    return [leaf.shape for leaf in jax.tree.leaves(variables["params"]) if len(leaf.shape) == 4]


# --------------------------------------------------------------- densities


def test_densities_by_hand():
    """Densities in the ratio of sum / product: 14 / 144 of the small to 134 / 36864 of the large.

    At 0.9, epsilon is 0.1 x (144 + 36864) / (14 + 134) = 25.005, too much for the small leaf, which
    becomes dense; the large one keeps the rest.
    """
    densities = erk_densities([SMALL, LARGE], 0.9)
    np.testing.assert_allclose(densities, [1, (0.1 * 37008 - 144) / 36864], rtol=1e-6)
    densities = erk_densities([SMALL, LARGE], 0.99)
    epsilon = 0.01 * 37008 / 148
    np.testing.assert_allclose(densities, [epsilon * 14 / 144, epsilon * 134 / 36864], rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    shapes=st.lists(
        st.tuples(
            st.sampled_from([1, 3]),
            st.sampled_from([1, 3]),
            st.integers(1, 128),
            st.integers(1, 128),
        ),
        min_size=1,
        max_size=6,
    ),
    sparsity=st.floats(0, 0.99),
)
def test_densities_are_those_of_the_published_iteration(shapes, sparsity):
    expected = naive_densities(shapes, sparsity)
    np.testing.assert_allclose(erk_densities(shapes, sparsity), expected, rtol=1e-4)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 0.99])
def test_densities_of_the_papers_network(sparsity):
    shapes = kernels_of_a_wide_resnet()
    sizes = np.array([np.prod(shape) for shape in shapes])
    densities = erk_densities(shapes, sparsity)
    np.testing.assert_allclose(densities, naive_densities(shapes, sparsity), rtol=1e-5)
    assert np.sum(densities * sizes) == pytest.approx((1 - sparsity) * sizes.sum(), rel=1e-5)


def test_no_leaf_becomes_denser_with_sparsity():
    shapes = kernels_of_a_wide_resnet()
    sparsities = np.linspace(0, 0.999, 500, dtype=np.float32)
    densities = jax.jit(jax.vmap(lambda sparsity: erk_densities(shapes, sparsity)))(sparsities)
    assert (np.diff(densities, axis=0) <= 1e-6).all()
    assert (np.asarray(densities) > 0).all()
    assert (np.asarray(densities) <= 1).all()


def test_the_leaf_with_fewer_weights_for_its_sides_is_denser():
    shapes = kernels_of_a_wide_resnet()
    densities = np.asarray(erk_densities(shapes, 0.9))
    raw = np.array([np.sum(shape) / np.prod(shape) for shape in shapes])
    order = np.argsort(raw)
    assert (np.diff(densities[order]) >= 0).all()
    assert densities[shapes.index((3, 3, 3, 16))] == 1  # the stem


# ------------------------------------------------------------------- masks


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 0.99])
def test_each_leaf_loses_the_lowest_scores_to_its_own_sparsity(sparsity):
    params = tree()
    shapes = [params["encoder"][name]["kernel"].shape for name in KERNELS]
    densities = naive_densities(shapes, sparsity)
    masks = erk(magnitudes(params), pruning.init_masks(params), sparsity)
    for name, density in zip(KERNELS, densities, strict=True):
        kernel = params["encoder"][name]["kernel"]
        expected = naive_masks(np.abs(kernel), np.ones(kernel.shape, bool), 1 - density)
        np.testing.assert_array_equal(masks["encoder"][name]["kernel"], expected)
    others = jax.tree.leaves((masks["encoder"]["norm"], masks["head"]))
    assert all(leaf.all() for leaf in others)


def test_the_sparsity_of_all_is_met_to_half_a_weight_a_leaf():
    params = tree()
    chosen = pruning.convolution_and_head_kernels
    select = jax.jit(lambda sparsity: erk(params, pruning.init_masks(params), sparsity, chosen))
    total = 432 + 1152 + 80
    for sparsity in np.linspace(0, 0.99, 34):
        pruned = pruning.sparsity(select(sparsity), chosen) * total
        assert abs(pruned - sparsity * total) <= 3 / 2 + 1e-3


def test_masks_only_shrink():
    masks = pruning.init_masks(tree())
    select = jax.jit(erk)
    for step, sparsity in enumerate([0.3, 0.7, 0.5, 0.9, 0.1]):
        before = masks
        masks = select(magnitudes(tree(seed=step)), masks, sparsity)
        assert_only_shrunk(masks, before)
    assert pruning.sparsity(masks) == pytest.approx(0.9, abs=1e-3)


def test_a_traced_sparsity_gives_the_same_masks_in_a_population():
    params = tree()
    scores, masks = magnitudes(params), pruning.init_masks(params)
    levels = [0.0, 0.3, 0.9, 0.99]
    population = jax.vmap(lambda sparsity: erk(scores, masks, sparsity))
    together = jax.jit(population)(np.array(levels, np.float32))
    for index, sparsity in enumerate(levels):
        member = jax.tree.map(lambda leaf, row=index: leaf[row], together)
        assert_equal_trees(member, erk(scores, masks, sparsity))


def test_one_leaf_alone_has_the_sparsity_that_is_asked_for():
    params = {"kernel": np.arange(3 * 3 * 4 * 4, dtype=np.float32).reshape(SMALL)}
    mask = erk(params, pruning.init_masks(params), 0.75)["kernel"]
    assert np.flatnonzero(~np.ravel(mask)).tolist() == list(range(108))


def test_without_a_prunable_leaf_the_masks_stay():
    params = tree()
    masks = pruning.init_masks(params)
    assert_equal_trees(erk(magnitudes(params), masks, 0.9, lambda path, leaf: False), masks)
