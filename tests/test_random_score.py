"""Random scores: uniform, drawn anew wherever they should be, and nowhere else."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from naive_pruning import KERNELS, assert_equal_trees, assert_only_shrunk, tree
from scipy import stats

from prunejax import pruning
from prunejax.config import Experiment, Pruning
from prunejax.pruning import ALLOCATIONS, SCORES
from prunejax.pruning.layerwise import layerwise
from prunejax.training.spec import make_spec
from prunejax.training.state import TrainState, key_for
from prunejax.training.step import prune_once

RANDOM = SCORES["random"]


def scores(params, seed=0, step=0):
    """As a training step draws them."""
    return RANDOM.function(params, None, key_for(seed, "sup/score", step))


def stem_of(scores):
    return np.asarray(scores["encoder"]["stem"]["kernel"])


def test_scores_are_uniform_numbers_of_the_structure_of_the_params():
    params = tree()
    drawn = scores(params)
    for leaf, weights in zip(jax.tree.leaves(drawn), jax.tree.leaves(params), strict=True):
        assert leaf.shape == weights.shape
        assert leaf.dtype == np.float32
    for name in KERNELS:
        values = np.ravel(drawn["encoder"][name]["kernel"])
        assert stats.kstest(values, "uniform").pvalue > 0.01


def test_scores_need_no_gradients_and_do_not_depend_on_the_weights():
    assert not RANDOM.needs_gradients
    assert_equal_trees(scores(tree(seed=0)), scores(tree(seed=1)))


def test_the_same_key_draws_the_same():
    assert_equal_trees(scores(tree(), seed=3, step=7), scores(tree(), seed=3, step=7))


def test_each_seed_and_step_draws_its_own():
    params = tree()
    drawn = [stem_of(scores(params, seed, step)) for seed in (0, 1) for step in (0, 1)]
    for index, ours in enumerate(drawn):
        for other in drawn[:index]:
            assert (ours != other).mean() > 0.99
            assert abs(np.corrcoef(ours.ravel(), other.ravel())[0, 1]) < 0.2


def test_each_leaf_of_one_shape_draws_its_own():
    leaf = np.ones((3, 3, 4, 4), np.float32)
    drawn = scores({"first": {"kernel": leaf}, "second": {"kernel": leaf}})
    assert (drawn["first"]["kernel"] != drawn["second"]["kernel"]).mean() > 0.99


def test_a_population_draws_what_its_members_draw():
    params = tree()
    seeds = np.arange(3, dtype=np.int32)
    together = jax.jit(jax.vmap(lambda seed: scores(params, seed)))(seeds)
    for seed in range(3):
        member = jax.tree.map(lambda leaf, row=seed: leaf[row], together)
        assert_equal_trees(member, scores(params, seed))


@pytest.mark.parametrize("allocation", ["layerwise", "global", "erk"])
def test_masks_of_scores_drawn_anew_only_shrink(allocation):
    params = tree()
    function = partial(ALLOCATIONS[allocation].function, prunable=pruning.convolution_kernels)
    select = jax.jit(function)
    masks = pruning.init_masks(params)
    for step, sparsity in enumerate([0.25, 0.5, 0.75]):
        before = masks
        masks = select(scores(params, step=step), masks, sparsity)
        assert_only_shrunk(masks, before)
        assert pruning.sparsity(masks) == pytest.approx(sparsity, abs=1e-3)


def test_every_weight_is_as_likely_to_go():
    """Each of 27 weights in 400 members goes with probability 9 / 27, by a chi-squared test."""
    params = {"kernel": np.ones((3, 3, 3, 1), np.float32)}
    masks = pruning.init_masks(params)

    def prune_member(seed):
        return layerwise(scores(params, seed), masks, 1 / 3)["kernel"]

    kept = jax.jit(jax.vmap(prune_member))(np.arange(400, dtype=np.int32))
    gone = (~np.asarray(kept)).reshape(400, 27).sum(axis=0)
    assert gone.sum() == 400 * 9
    assert stats.chisquare(gone).pvalue > 0.01


def test_one_shot_by_chance_prunes_each_seed_in_a_way_of_its_own(make_config):
    """And the same seed the same way, more of it at a higher sparsity."""
    at_once = Pruning(schedule=None, score="random", allocation="global")
    experiment = Experiment("sup_chance", pruning=at_once, dense_parent="sup_dense")
    config = dataclasses.replace(make_config("sup_dense"), experiment=experiment)
    spec = make_spec(config, "finetune", (8, 8, 1), 10, 4)
    params = tree()
    state = TrainState(params, {}, pruning.init_masks(params), {})
    pruned = {}
    for seed, sparsity in [(0, 0.5), (0, 0.9), (1, 0.5)]:
        masks = prune_once(spec, state, seed, sparsity).masks
        assert pruning.sparsity(masks, spec.counted) == pytest.approx(sparsity, abs=1e-3)
        pruned[seed, sparsity] = masks
    assert_only_shrunk(pruned[0, 0.9], pruned[0, 0.5])
    kept_by_both = stem_of(pruned[0, 0.5]) & stem_of(pruned[1, 0.5])
    assert 0.15 < kept_by_both.mean() < 0.35
