"""Gradient times weight: by hand, by `jax.grad`, and by the gradients of the very batch."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from naive_pruning import assert_equal_trees, naive_masks, naive_updates, tree

from prunejax.config import Experiment, Pruning, Schedule, UserError
from prunejax.pruning import SCORES, convolution_and_head_kernels, init_masks, make_pruner
from prunejax.training import population, programs
from prunejax.training.members import members_of
from prunejax.training.spec import check, make_batch, make_specs
from prunejax.training.state import key_for
from prunejax.training.step import epoch_order

SALIENCY = SCORES["saliency"]
KEY = jax.random.key(0)  # of which it makes no use
BATCH, EPOCH_STEPS, STEPS = 50, 2, 8


@pytest.fixture(scope="session")
def make_saliency_config(make_config):
    """`make_saliency_config(method, schedule)`: batches of 50 of the 100 images, four epochs."""

    def make(method="cross_entropy", schedule="sup"):
        pruning = Pruning(schedule=schedule, score="saliency")
        experiment = Experiment(
            "by_saliency",
            method=method,
            pruning=pruning,
            dense_parent="dense",
            prune_head=method == "cross_entropy",
        )
        config = make_config("sup_dense", log_every_steps=1)
        stage = dataclasses.replace(config.sup, epochs=4, batch_size=BATCH)
        return dataclasses.replace(config, experiment=experiment, sup=stage)

    return make


def score(params, gradients):
    return SALIENCY.function(params, gradients, KEY)


# ------------------------------------------------------------------ the score


def test_by_hand():
    scores = score({"w": np.array([1.0, -2.0, 3.0, 0.0])}, {"w": np.array([4.0, 5.0, -6.0, 7.0])})
    assert scores["w"].tolist() == [4, 10, 18, 0]


def test_of_a_quadratic_loss_it_is_the_curvature_times_the_squared_weight():
    curvature = jnp.array([1.0, 2.0, 5.0])
    params = {"w": jnp.array([3.0, -1.0, 2.0])}
    gradients = jax.grad(lambda tree: jnp.sum(curvature * tree["w"] ** 2) / 2)(params)
    assert score(params, gradients)["w"].tolist() == [9, 2, 20]


def test_of_a_linear_loss_it_is_how_much_the_loss_changes_without_the_weight():
    slopes = np.random.default_rng(0).normal(size=5).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=5).astype(np.float32)

    def loss(w):
        return jnp.dot(slopes, w)

    scores = score({"w": weights}, {"w": jax.grad(loss)(jnp.asarray(weights))})["w"]
    for index in range(5):
        without = weights.copy()
        without[index] = 0
        change = float(loss(weights) - loss(without))
        assert scores[index] == pytest.approx(abs(change), abs=1e-6)


def test_scores_are_float32_whatever_the_params_are():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    assert score(params, params)["w"].dtype == jnp.float32


# ------------------------------------------------------- in a training step


@pytest.fixture(scope="module")
def trained(make_saliency_config, dataset):
    """The settings, and the population's state before each step and after the last."""
    config = make_saliency_config()
    (spec,) = make_specs(config, dataset).values()
    members = members_of(config)
    states = [population.init(spec, members)]
    reports = []
    for progress in population.fit(config, members, dataset):
        states.append(progress.state)
        reports.append(progress)
    return config, spec, members, states, reports


def naive_layerwise(scores, masks, target):
    """The masks of the kernels after an update, in NumPy."""

    def update(path, leaf, mask):
        if not convolution_and_head_kernels(path, mask):
            return mask
        return naive_masks(np.asarray(leaf), mask, target)

    return jax.tree_util.tree_map_with_path(update, scores, masks)


def test_an_update_ranks_by_the_gradients_of_the_steps_own_batch(trained, dataset):
    """And not by those of the next batch, or the magnitudes, which would prune other weights."""
    _, spec, members, states, _ = trained
    draw = make_batch(spec.config, spec.objective)

    @jax.jit
    def gradients_of(state, seed, step, images, labels):
        views = draw(key_for(seed, "sup/augment", step), images)
        params = state.params
        gradient = jax.grad(spec.loss_of, has_aux=True)
        return gradient(spec.trained(params), params, state.batch_stats, views, labels)[0]

    def saliencies(state, seed, step):
        order = np.asarray(epoch_order(seed, "sup", step // EPOCH_STEPS, 100))
        start = step % EPOCH_STEPS * BATCH
        chosen = order[start : start + BATCH]
        images, labels = dataset.train_images[chosen], dataset.train_labels[chosen]
        return score(state.params, gradients_of(state, seed, step, images, labels))

    row = 3
    seed, final = members.seeds[row], float(members.sparsities[row])
    assert (seed, final) == (1, pytest.approx(0.9))
    for step, target in naive_updates(1, 6, 2, final).items():
        before = jax.tree.map(lambda leaf: leaf[row], states[step])
        after = jax.tree.map(lambda leaf: leaf[row], states[step + 1])
        if target == 0:
            assert_equal_trees(after.masks, before.masks)
            continue
        magnitudes = jax.tree.map(np.abs, before.params)
        by_magnitude = naive_layerwise(magnitudes, before.masks, target)
        by_own = naive_layerwise(saliencies(before, seed, step), before.masks, target)
        by_next = naive_layerwise(saliencies(before, seed, step + 1), before.masks, target)
        # Two saliencies may be equal but for rounding.
        assert fraction_apart(after.masks, by_own, before.masks) < 0.02
        assert fraction_apart(after.masks, by_next, before.masks) > 0.1
        assert fraction_apart(after.masks, by_magnitude, before.masks) > 0.1


def fraction_apart(ours, theirs, before):
    """How many of the convolutions' weights that `ours` newly prunes `theirs` keeps."""
    new, apart = 0, 0
    leaves = zip(*map(jax.tree.leaves, (ours, theirs, before)), strict=True)
    for our_mask, their_mask, old_mask in leaves:
        if our_mask.ndim == 4:
            newly_pruned = old_mask & ~our_mask
            new += newly_pruned.sum()
            apart += (newly_pruned & np.asarray(their_mask)).sum()
    return apart / new


def test_masks_change_at_the_scheduled_steps_only_to_the_scheduled_sparsity(trained):
    _, _, members, states, reports = trained
    for row, final in enumerate(members.sparsities.tolist()):
        updates = naive_updates(1, 6, 2, final)
        expected = 0.0
        for step in range(STEPS):
            expected = updates.get(step, expected)
            assert reports[step].metrics["sparsity"][row] == pytest.approx(expected, abs=1e-4)
            same = jax.tree.map(
                lambda old, new, member=row: bool((old[member] == new[member]).all()),
                states[step].masks,
                states[step + 1].masks,
            )
            # The first target is 0.
            assert all(jax.tree.leaves(same)) == (step not in updates or step == 1)


def test_what_is_pruned_is_zero_after_the_same_step(trained):
    *_, states, _ = trained
    for state in states:
        zeroed = jax.tree.map(
            lambda leaf, mask: (leaf[~mask] == 0).all(), state.params, state.masks
        )
        assert all(jax.tree.leaves(zeroed))


def test_a_member_that_diverges_at_an_update_keeps_its_masks(trained, dataset):
    """Its gradients would rank nothing; the others are pruned as if it were not there."""
    config, _, members, states, _ = trained
    planted = jax.tree.map(np.array, states[3])  # before the update at step 3
    planted.params["encoder"]["stem"]["kernel"][1, 0, 0, 0, 0] = 1e38
    first = next(population.fit(config, members, dataset, planted, 3))
    assert first.state.failed_at.tolist() == [-1, 3, -1, -1]
    ours, theirs = first.state.masks, states[4].masks
    for new, sound, old in zip(*map(jax.tree.leaves, (ours, theirs, planted.masks)), strict=True):
        np.testing.assert_array_equal(new[1], old[1])
        np.testing.assert_array_equal(np.delete(new, 1, 0), np.delete(sound, 1, 0))


# ------------------------------------------------ where there are no gradients


@pytest.mark.parametrize("method", ["supcon", "simclr"])
def test_a_head_stage_that_is_not_pruned_needs_no_gradients_of_the_encoder(
    make_saliency_config, dataset, method
):
    """The paper's: the encoder is pruned in its own stage, and frozen after it."""
    config = make_saliency_config(method, "scl")
    check(config)
    programs.require_traceable(config, dataset)


def test_a_head_stage_with_a_schedule_prunes_the_head_by_its_gradients(
    make_saliency_config, dataset
):
    config = make_saliency_config("supcon", "scl")
    pruning = dataclasses.replace(config.prune, head=Schedule(2, 6, 2))
    config = dataclasses.replace(config, prune=pruning)
    programs.require_traceable(config, dataset)
    params = tree()
    gradients = {"head": jax.tree.map(np.ones_like, params["head"])}
    pruner = make_pruner(config, "head")
    masks = pruner.update(params, init_masks(params), 0.5, KEY, gradients)[1]
    kernel = params["head"]["Dense_0"]["kernel"]
    expected = naive_masks(np.abs(kernel), np.ones(kernel.shape, bool), 0.5)
    np.testing.assert_array_equal(masks["head"]["Dense_0"]["kernel"], expected)
    assert all(leaf.all() for leaf in jax.tree.leaves(masks["encoder"]))


def test_pruning_an_encoder_that_its_stage_does_not_train_names_the_leaf(
    make_saliency_config, dataset
):
    config = make_saliency_config()
    frozen = dataclasses.replace(config.sup, frozen_encoder=True)
    config = dataclasses.replace(config, sup=frozen)
    with pytest.raises(
        UserError, match=r"'saliency' needs gradients, and encoder/\S+/kernel"
    ) as told:
        programs.require_traceable(config, dataset)
    assert "\n" not in str(told.value)


def test_one_shot_pruning_by_saliency_is_refused(make_saliency_config):
    config = make_saliency_config(schedule=None)
    with pytest.raises(
        UserError, match=r"by_saliency.*one-shot pruning has none.*schedule"
    ) as told:
        check(config)
    assert "\n" not in str(told.value)


def test_without_gradients_nothing_is_pruned_in_silence(make_saliency_config):
    params = tree()
    update = partial(make_pruner(make_saliency_config(), "sup").update, params)
    with pytest.raises(UserError, match="encoder/conv/kernel has none"):
        update(init_masks(params), 0.5, KEY)
