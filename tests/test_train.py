"""One model and a population: the contract of DESIGN, on digits."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.presets import PRESETS
from experiments.registry import EXPERIMENTS
from prunejax import losses, population, programs, prune, train
from prunejax.config import LearningRate, Schedule, SupCon, from_json, to_json
from prunejax.config import Population as PopulationConfig


def fit(config, dataset, **arguments):
    who = population.members(config)
    return list(population.fit(config, who, dataset, **arguments))


def assert_close(ours, theirs, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, theirs)


@pytest.mark.parametrize("experiment", ["sup_gmp", "scl_gmp"])
def test_a_member_equals_the_same_model_alone(make_config, dataset, experiment):
    """Including the unvmapped step, the last partial batch, and the change of stages."""
    config = make_config(experiment)
    # At its usual rate the contrastive loss amplifies a difference of one rounding to another model in five steps.
    config = dataclasses.replace(config, scl=dataclasses.replace(config.scl, learning_rate=LearningRate(1e-3)))
    end = fit(config, dataset)[-1].state
    member = 3  # seed 1, sparsity 0.9
    who = population.members(config)
    seed, state = int(who.seeds[member]), None
    for name in config.experiment.stages:
        state = train.init(config, name, seed, dataset.image_shape, 10, state)
        step_fn = jax.jit(
            train.make_step(config, name, 100, 10),
            static_argnames="batch_size",
            compiler_options=programs.CPU_OPTIONS,  # other kernels round otherwise
        )
        for step in range(8):
            order = train.epoch_order(seed, name, step // 4, 100)
            state, _ = step_fn(
                *(state, seed, who.sparsities[member], order, step, train.schedule_steps(config, name)),
                *(dataset.train_images, dataset.train_labels),
                batch_size=4 if step % 4 == 3 else 32,
            )
    alone = jax.tree.map(lambda leaf: leaf[member], end)
    assert_close(alone.params, state.params, rtol=1e-3, atol=1e-4)
    different = jax.tree.map(lambda ours, theirs: np.mean(ours != theirs), alone.masks, state.masks)
    assert max(jax.tree.leaves(different)) < 0.002  # two weights may be equal but for rounding


def test_the_number_of_devices_changes_no_result(make_config, dataset, monkeypatch):
    """Three models on two devices, so that one place is padding, against one device: equal but for rounding."""
    config = make_config("sup_gmp", models=3, sparsities=(0.9,))
    config = dataclasses.replace(config, sup=dataclasses.replace(config.sup, learning_rate=LearningRate(1e-3)))
    assert jax.local_device_count() == 2
    split = fit(config, dataset)
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: first)
    whole = fit(config, dataset)
    for ours, theirs in zip(split, whole, strict=True):
        assert_close(ours.metrics, theirs.metrics, rtol=1e-4)
    state, other = split[-1].state, whole[-1].state
    assert_close((state.params, state.batch_stats), (other.params, other.batch_stats), rtol=1e-3)
    assert [len(leaf) for leaf in jax.tree.leaves(state.masks)][:1] == [3]
    jax.tree.map(np.testing.assert_array_equal, state.masks, other.masks)


def test_the_split_step_passes_nothing_between_devices(make_config, dataset):
    program = programs.make_programs(make_config("sup_gmp"), "sup", dataset)(4, 32)
    text = program.as_text()
    assert "num_partitions=2" in text
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in text


def test_states_leave_the_devices_whole(make_config, dataset):
    """Slicing an array that is split over devices is a collective, which a busy CPU may abort for coming late."""
    config = make_config("scl_gmp")
    start = population.init(config, "scl", population.members(config), dataset)
    states = [start, *(now.state for now in population.fit(config, population.members(config), dataset))]
    assert {type(leaf) for leaf in jax.tree.leaves(states)} == {np.ndarray}


def test_the_chunk_size_changes_no_result(make_config, dataset):
    config = make_config("sup_gmp", models=3, sparsities=(0.9,))
    # Small steps: at the usual rate a network doubles a difference of one rounding at every other one.
    config = dataclasses.replace(config, sup=dataclasses.replace(config.sup, learning_rate=LearningRate(1e-3)))
    together = fit(config, dataset)
    chunked = fit(dataclasses.replace(config, population=PopulationConfig(models_per_program=2)), dataset)
    assert [p.step for p in together] == [p.step for p in chunked]
    assert_close(together[-1].state.params, chunked[-1].state.params, rtol=1e-3, atol=1e-3)
    assert_close(together[-1].metrics, chunked[-1].metrics, rtol=1e-2, atol=1e-3)


def test_masks_only_shrink_with_exact_counts_at_every_update(make_config, dataset):
    config = dataclasses.replace(make_config("sup_gmp"), log_every_steps=1)
    previous, updates = None, 0
    for now in fit_states(config, dataset):
        step, state = now
        for path, mask in jax.tree_util.tree_leaves_with_path(state.masks):
            if not prune.convolution_and_head_kernels(path, mask[0]):
                assert mask.all()
                continue
            progress = np.clip((min(max(last_update(step), 0), 6) - 1) / 5, 0, 1)
            for member, final in enumerate([0.5, 0.5, 0.9, 0.9]):
                expected = round(np.float32(final) * (1 - (1 - progress) ** 3) * mask[member].size)
                assert (~mask[member]).sum() == expected, (step, path)
            weights = lookup(state.params, path)
            assert (weights[~mask] == 0).all()
        if previous is not None:
            shrunk = jax.tree.map(lambda new, old: (old | ~new).all(), state.masks, previous)
            assert jax.tree.all(shrunk)
            updates += not all(jax.tree.leaves(jax.tree.map(np.array_equal, state.masks, previous)))
        previous = state.masks
    assert updates == 3  # at steps 3, 5 and 6; the target at step 1 is 0


def fit_states(config, dataset):
    who = population.members(config)
    for now in population.fit(config, who, dataset):
        yield now.step - 1, jax.device_get(now.state)


def last_update(step):
    return max((s for s in (1, 3, 5, 6) if s <= step), default=0)


def lookup(tree, path):
    for entry in path:
        tree = tree[entry.key]
    return tree


def population_arguments(config, dataset, name):
    who = population.members(config)
    return (
        programs.state_shapes(config, name, len(who), *dataset.shapes),
        *(who.seeds, who.sparsities, np.zeros((len(who), len(dataset.train_labels)), np.int32)),
        *(
            (np.int32(0), np.int32(1)),
            tuple(map(np.int32, train.schedule_steps(config, name))),
            dataset.train_images,
            dataset.train_labels,
        ),
    )


def primitives(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from primitives(inner)


def test_pruning_is_still_a_branch_in_the_populations_program(make_config, dataset):
    """A batched predicate would turn the `cond` into a select that ranks every weight at every step."""
    config = make_config("sup_gmp")
    step = programs.make_step(config, "sup", dataset)
    jaxpr = jax.make_jaxpr(lambda *a: step(*a, batch_size=32))(*population_arguments(config, dataset, "sup"))
    ranking = "bitcast_convert_type"  # how the threshold search reads the magnitudes

    def count(inner):
        return sum(e.primitive.name == ranking and e.invars[0].aval.ndim == 2 for e in primitives(inner))

    branches = [b.jaxpr for e in primitives(jaxpr.jaxpr) if e.primitive.name == "cond" for b in e.params["branches"]]
    inside = sum(map(count, branches))
    assert inside == 10  # 9 convolutions and the head
    assert count(jaxpr.jaxpr) == inside


def test_the_compiled_step_has_no_grouped_convolution(make_config, dataset):
    text = programs.make_programs(make_config("sup_gmp"), "sup", dataset)(4, 32).as_text()
    # Per device 2 models; the images need no gradient; on CPU 1x1 and the smallest are matrix products instead.
    assert text.count(" convolution(") == 2 * (3 * 9 - 1 - (3 * 4 if jax.default_backend() == "cpu" else 0))
    assert "feature_group_count=" not in text
    assert "batch_group_count=" not in text


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what XLA fuses on CPU")
def test_no_transposition_computes_its_operand_anew(make_config, dataset):
    """XLA would fuse normalisation and ReLU into the transpositions before the kernel's gradient, 5 times slower."""
    text = programs.make_programs(make_config("sup_gmp"), "sup", dataset)(2, 28).as_text()
    bodies = re.findall(r"^%\S*fused_computation\S* .*?^}", text, re.MULTILINE | re.DOTALL)
    # The images of a batch, here 28, become the last axis.
    transposing = [body for body in bodies if re.search(r"f32\[\d+,\d+,\d+,28\]\S* (transpose|copy)\(", body)]
    assert len(transposing) == 5  # of 9 convolutions; the others are matrix products
    for body in transposing:
        assert not re.search(r" (multiply|maximum|subtract)\(", body), body


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what XLA counts on CPU")
def test_a_populations_step_costs_what_its_members_cost(make_config, dataset):
    config = make_config("sup_gmp")
    alone = jax.jit(train.make_step(config, "sup", 100, 10), static_argnames="batch_size")
    state, *rest = population_arguments(config, dataset, "sup")
    member = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), state)
    seeds, sparsities, orders, (step, _), *shared = rest
    lowered = alone.lower(member, seeds[0], sparsities[0], orders[0], step, *shared, batch_size=32)
    single = lowered.compile(programs.CPU_OPTIONS).cost_analysis()["flops"]
    program = programs.make_programs(config, "sup", dataset)
    plan = programs.plan(config, "sup", len(population.members(config)), dataset, program)
    assert plan.flops / plan.models_per_program == pytest.approx(single, rel=0.02)


def test_steps_in_a_loop_are_the_same_steps(make_config, dataset):
    """As on accelerators: three at a time, fewer before a smaller batch, a report or the end."""
    config = make_config("sup_gmp")
    rate = dataclasses.replace(config.sup, learning_rate=LearningRate(1e-3))
    config = dataclasses.replace(config, sup=rate, log_every_steps=4)
    looped = dataclasses.replace(config, population=PopulationConfig(models_per_program=4, steps_per_call=3))
    heard = []
    reports = list(
        population.fit(looped, population.members(looped), dataset, on_step=lambda stage, step: heard.append(step))
    )
    assert heard == [3, 4, 7, 8]
    alone = fit(config, dataset)
    for ours, theirs in zip(reports, alone, strict=True):
        assert_close(ours.metrics, theirs.metrics, rtol=1e-3)
    assert_close(reports[-1].state.params, alone[-1].state.params, rtol=1e-3)
    jax.tree.map(np.testing.assert_array_equal, reports[-1].state.masks, alone[-1].state.masks)


def test_the_second_step_does_not_recompile(make_config, dataset):
    config = make_config("sup_gmp")
    who = population.members(config)
    step = programs.make_step(config, "sup", dataset)
    state = jax.device_put(population.init(config, "sup", who, dataset))
    rest = list(population_arguments(config, dataset, "sup")[1:])
    for index in range(3):
        rest[3] = (np.int32(index), np.int32(1))
        state, _ = step(state, *rest, batch_size=32)
    assert step._cache_size() == 1


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_of_every_preset_survives_json_and_traces_one_step(preset, experiment, dataset):
    config = dataclasses.replace(PRESETS[preset], experiment=EXPERIMENTS[experiment], models=2)
    assert from_json(to_json(config), "test") == config
    height, channels = (8, 1) if preset == "digits" else (32, 3)
    images = np.zeros((2000, height, height, channels), np.uint8)
    stand_in = dataclasses.replace(dataset, train_images=images, train_labels=np.zeros(2000, np.int32))
    for name in config.experiment.stages:
        step = programs.make_step(config, name, stand_in)
        state, metrics = jax.eval_shape(
            lambda *a, s=step, n=name: s(*a, batch_size=config.stage(n).batch_size),
            *population_arguments(config, stand_in, name),
        )
        assert state == programs.state_shapes(config, name, len(population.members(config)), *stand_in.shapes)
        assert all(value.shape == (len(population.members(config)),) for value in metrics.values())


def test_a_frozen_encoder_keeps_its_weights_and_statistics(make_config, dataset):
    config = make_config("scl_dense")
    reports = fit(config, dataset)
    border = next(p for p in reports if p.ends_stage)
    assert border.stage == "scl"
    assert_close(border.state.params["encoder"], reports[-1].state.params["encoder"], rtol=0)
    assert_close(border.state.batch_stats, reports[-1].state.batch_stats, rtol=0)
    assert "projection" not in reports[-1].state.params


def test_one_shot_prunes_once_globally_then_keeps_the_masks(make_config, dataset):
    dense = fit(make_config("sup_dense"), dataset)[-1].state
    config = make_config("sup_one_shot")
    start = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), dense)
    reports = fit(config, dataset, state=start)
    expected = jax.vmap(lambda s, p, m: prune.global_masks(p, m, s, prune.convolution_and_head_kernels))(
        population.members(config).sparsities, start.params, start.masks
    )
    jax.tree.map(np.testing.assert_array_equal, reports[-1].state.masks, expected)
    np.testing.assert_allclose(reports[-1].metrics["sparsity"], [0.5, 0.5, 0.9, 0.9], atol=1e-4)


def test_every_seed_sees_every_image_once_an_epoch_in_an_order_of_its_own():
    orders = np.array([train.epoch_order(seed, "sup", epoch, 50) for seed in (0, 1) for epoch in (0, 1)])
    assert (np.sort(orders, axis=1) == np.arange(50)).all()
    assert len({tuple(order) for order in orders}) == 4


def test_training_learns_digits(make_config, dataset):
    config = make_config("sup_dense", log_every_steps=4)
    config = dataclasses.replace(config, sup=dataclasses.replace(config.sup, epochs=20))
    accuracy = fit(config, dataset)[-1].metrics["accuracy"]
    assert (accuracy > 0.5).all()


def test_the_authors_updates_come_at_multiples_and_end_short_of_the_target(make_config, dataset):
    config = make_config("sup_gmp", sparsities=(0.9,), log_every_steps=1)
    config = dataclasses.replace(config, prune=dataclasses.replace(config.prune, at_multiples=True))
    sparsities = np.array([now.metrics["sparsity"][0] for now in fit(config, dataset)])  # begin 1, end 6, every 2
    expected = {step: 0.9 * (1 - (1 - (step - 2) / 5) ** 3) for step in (2, 4, 6)}  # those of steps 1, 3, 5
    assert np.flatnonzero(np.diff(sparsities, prepend=0)).tolist() == [4, 6]  # the first target is 0
    np.testing.assert_allclose(sparsities[list(expected)], list(expected.values()), atol=1e-3)


def test_head_schedule_prunes_the_head_of_a_contrastive_model(make_config, dataset):
    """And no more of the encoder, whose last update was short of the target."""
    config = make_config("scl_gmp", sparsities=(0.5,))
    pruning = dataclasses.replace(config.prune, head=Schedule(2, 6, 2), at_multiples=True)
    config = dataclasses.replace(config, prune=pruning)
    states = {now.stage: now.state for now in population.fit(config, population.members(config), dataset)}
    masks, encoder = states["head"].masks, states["scl"].masks["encoder"]
    assert (~masks["head"]["Dense_0"]["kernel"]).sum() == 2 * round(0.5 * 640)
    assert masks["head"]["Dense_0"]["bias"].all()
    assert 0.49 < prune.sparsity(encoder, lambda path, leaf: path[-1].key == "kernel") < 0.5
    jax.tree.map(np.testing.assert_array_equal, masks["encoder"], encoder)


def test_a_state_that_training_has_left_behind_is_refused(make_config, dataset):
    first, *_ = fit(make_config("sup_dense", log_every_steps=1), dataset)
    with pytest.raises(RuntimeError, match="gone on from step 1"):
        _ = first.state


def test_bfloat16_computes_the_step_but_keeps_float32_masters(make_config, dataset):
    config = make_config("sup_gmp", compute_dtype="bfloat16", sparsities=(0.5,))
    ours, reference = (fit(c, dataset)[-1] for c in (config, make_config("sup_gmp", sparsities=(0.5,))))
    assert {leaf.dtype for leaf in jax.tree.leaves(ours.state.params)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(ours.metrics["loss"], reference.metrics["loss"], rtol=0.3)


def test_a_member_that_diverges_is_frozen_and_disturbs_no_other(make_config, dataset):
    """One of eight gets a weight so large that its activations overflow; it was pruned before, and is not again."""
    config = make_config("sup_gmp", models=8, sparsities=(0.9,))
    who = population.members(config)
    middle = fit_until(config, dataset, 4)
    planted = jax.tree.map(np.array, middle)
    planted.params["encoder"]["stem"]["kernel"][5, 0, 0, 0, 0] = 1e38
    *_, sound = population.fit(config, who, dataset, middle, 4)
    first, *_, end = population.fit(config, who, dataset, planted, 4)
    assert end.state.frozen_at.tolist() == [-1, -1, -1, -1, -1, 4, -1, -1]
    others = np.arange(8) != 5
    for ours, theirs, before in zip(*map(jax.tree.leaves, (end.state, sound.state, planted)), strict=True):
        np.testing.assert_array_equal(ours[others], theirs[others])
        if ours is not end.state.frozen_at:
            np.testing.assert_array_equal(ours[5], before[5])
    for report in (first, end):
        assert np.isnan(report.metrics["loss"]).tolist() == (~others).tolist()


def fit_until(config, dataset, step):
    return next(now.state for now in population.fit(config, population.members(config), dataset) if now.step == step)


def test_a_collapsed_contrastive_encoder_is_frozen_after_so_many_steps(make_config, dataset):
    """A projection that gives every image the same embedding leaves no gradient to get away from it."""
    config = make_config("scl_dense", models=2, supcon=SupCon(collapse_steps=3))
    who = population.members(config)
    state = jax.tree.map(np.array, population.init(config, "scl", who, dataset))
    last = state.params["projection"]["Dense_1"]
    last["kernel"][1], last["bias"][1] = 0, 1
    end = fit(config, dataset)[-1]
    state = dataclasses.replace(fit_until(config, dataset, 3), params=state.params)
    reports = list(population.fit(config, who, dataset, state, 3))
    collapsed = losses.collapsed_supcon(8, 0.5, 0.07)  # the epoch's last batch has 4 images
    assert reports[0].metrics["loss"][1] == pytest.approx(collapsed, rel=1e-5)
    assert reports[-1].state.frozen_at.tolist() == [-1, 5]
    assert reports[-1].state.frozen_at.dtype == np.int32
    assert np.isfinite(reports[-1].metrics["loss"]).tolist() == [True, False]
    assert end.state.frozen_at.tolist() == [-1, -1]


def test_frozen_parents_have_frozen_children(make_config, dataset):
    config = make_config("sup_one_shot", models=2, sparsities=(0.5,))
    dense = fit(make_config("sup_dense"), dataset)[-1].state
    dense = dataclasses.replace(dense, frozen_at=np.array([-1, 3], np.int32))
    end = fit(config, dataset, state=dense)[-1]
    assert end.state.frozen_at.tolist() == [-1, 3]
    assert np.isnan(end.metrics["loss"]).tolist() == [False, True]


def test_progress_can_be_had_at_any_step(make_config, dataset):
    """As a signal asks for it; what follows is the same."""
    config = make_config("scl_gmp")
    usual, early = fit(config, dataset), fit(config, dataset, report_now=lambda: True)
    assert [now.step for now in early] == list(range(1, 17))
    jax.tree.map(np.testing.assert_array_equal, early[-1].state, usual[-1].state)
