"""Schedules and masks: exact counts, ties, cumulation, and that everything works while traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prunejax import prune


def tree(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "encoder": {
            "stem": {"kernel": rng.normal(size=(3, 3, 3, 16)).astype(np.float32)},
            "conv": {"kernel": rng.normal(size=(3, 3, 16, 8)).astype(np.float32)},
            "norm": {"scale": np.ones(8, np.float32), "bias": np.zeros(8, np.float32)},
        },
        "head": {"Dense_0": {"kernel": rng.normal(size=(8, 10)).astype(np.float32), "bias": np.zeros(10, np.float32)}},
    }


def naive_masks(weights, mask, sparsity):
    """Sort what is left by magnitude, stably, behind what is pruned already."""
    keys = np.where(mask, np.abs(weights), -1).ravel()
    pruned = np.argsort(keys, kind="stable")[: round(sparsity * keys.size)]
    kept = mask.ravel().copy()
    kept[pruned] = False
    return kept.reshape(weights.shape)


def test_schedule_golden_value():
    assert prune.polynomial_schedule(0.9, 1000, 20000)(10500) == pytest.approx(0.7875)


def test_schedule_is_zero_before_and_final_after():
    schedule = prune.polynomial_schedule(0.9, 1000, 20000)
    np.testing.assert_allclose([schedule(s) for s in (0, 1000, 20000, 99999)], [0, 0, 0.9, 0.9], rtol=1e-6)


def test_schedule_power_one_is_linear():
    schedule = prune.polynomial_schedule(0.8, 10, 20, power=1)
    np.testing.assert_allclose([schedule(s) for s in range(10, 21)], 0.8 * np.arange(11) / 10, rtol=1e-5)


def test_schedule_of_one_step_goes_to_the_target_at_once():
    schedule = prune.polynomial_schedule(0.9, 10, 10)
    np.testing.assert_allclose([schedule(s) for s in (9, 10, 11)], [0, 0.9, 0.9], rtol=1e-6)


@pytest.mark.parametrize(
    ("begin", "end", "every", "updates"), [(1000, 20000, 500, 39), (125, 2476, 62, 39), (0, 5, 9, 2)]
)
def test_masks_are_updated_at_begin_every_and_end(begin, end, every, updates):
    steps = np.arange(end + 3 * every)
    due = np.asarray(jax.vmap(lambda step: prune.is_prune_step(step, begin, end, every))(steps))
    expected = {*range(begin, end + 1, every), end}
    assert set(np.flatnonzero(due)) == expected
    assert len(expected) == updates


@settings(max_examples=60, deadline=None)
@given(
    weights=hnp.arrays(
        np.float32, st.integers(1, 40), elements=st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3e-39])
    ),
    seed=st.integers(0, 99),
    sparsity=st.floats(0, 0.99),
)
def test_pruning_drops_exactly_the_smallest_with_ties_by_index(weights, seed, sparsity):
    weights = weights.reshape(1, 1, 1, -1)
    mask = np.random.default_rng(seed).random(weights.shape) > 0.3
    ours = prune.layerwise_masks({"kernel": weights}, {"kernel": mask}, sparsity)["kernel"]
    np.testing.assert_array_equal(ours, naive_masks(weights, mask, sparsity))


@pytest.mark.parametrize("update", [prune.layerwise_masks, prune.global_masks])
def test_masks_only_shrink(update):
    params = tree()
    masks = prune.init_masks(params)
    for step, sparsity in enumerate([0.3, 0.7, 0.5, 0.9, 0.1]):
        before = masks
        masks = update(tree(seed=step), masks, sparsity)  # new weights each time: the ranking changes
        assert jax.tree.all(jax.tree.map(lambda new, old: bool(jnp.all(old | ~new)), masks, before))
    assert prune.sparsity(masks) == pytest.approx(0.9, abs=1e-3)


def test_layerwise_prunes_every_convolution_alike_and_nothing_else():
    params = tree()
    masks = prune.layerwise_masks(params, prune.init_masks(params), 0.9)
    for name in ("stem", "conv"):
        kernel = params["encoder"][name]["kernel"]
        mask = np.asarray(masks["encoder"][name]["kernel"])
        assert (~mask).sum() == round(0.9 * kernel.size)
        assert np.abs(kernel)[~mask].max() <= np.abs(kernel)[mask].min()
    assert all(leaf.all() for leaf in jax.tree.leaves((masks["encoder"]["norm"], masks["head"])))


def test_global_ranks_all_layers_together():
    params = tree()
    params["encoder"]["stem"]["kernel"] *= 1e-6
    masks = prune.global_masks(params, prune.init_masks(params), 0.2)
    sizes = [params["encoder"][name]["kernel"].size for name in ("stem", "conv")]
    dropped = [int((~masks["encoder"][name]["kernel"]).sum()) for name in ("stem", "conv")]
    assert dropped == [round(0.2 * sum(sizes)), 0]


def test_head_kernel_is_pruned_where_asked_but_not_its_bias():
    params = tree()
    chosen = prune.convolution_and_head_kernels
    masks = prune.layerwise_masks(params, prune.init_masks(params), 0.5, chosen)
    assert (~masks["head"]["Dense_0"]["kernel"]).sum() == 40
    assert masks["head"]["Dense_0"]["bias"].all()
    assert prune.sparsity(masks, chosen) == pytest.approx(0.5)


@pytest.mark.parametrize("update", [prune.layerwise_masks, prune.global_masks])
def test_a_traced_sparsity_gives_the_same_masks_in_a_population(update):
    params = tree()
    masks = prune.init_masks(params)
    sparsities = np.array([0.0, 0.3, 0.9], np.float32)
    population = jax.jit(jax.vmap(lambda s: update(params, masks, s)))(sparsities)
    for index, sparsity in enumerate([0.0, 0.3, 0.9]):
        alone = update(params, masks, sparsity)
        jax.tree.map(lambda many, one, i=index: np.testing.assert_array_equal(many[i], one), population, alone)


def test_apply_masks_zeroes_what_is_pruned_and_sparsity_counts_it():
    params = tree()
    masks = prune.layerwise_masks(params, prune.init_masks(params), 0.75)
    pruned = prune.apply_masks(params, masks)["encoder"]["conv"]["kernel"]
    assert (pruned == 0).sum() == round(0.75 * pruned.size)
    assert prune.sparsity(masks) == pytest.approx(0.75)
    assert prune.sparsity({"bias": np.ones(3, bool)}) == 0
