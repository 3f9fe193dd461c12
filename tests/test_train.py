"""One model and a population: the contract of DESIGN, on digits."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import EXPERIMENTS

from experiments.presets import PRESETS
from prunejax import methods
from prunejax import pruning as prune
from prunejax.config import Execution, Schedule, SupCon, from_json, override, to_json
from prunejax.training import population, programs
from prunejax.training import step as single
from prunejax.training.members import members_of
from prunejax.training.plan import make_plan, step_flops
from prunejax.training.spec import make_specs
from prunejax.training.step import PerModel

ON_CPU = jax.default_backend() == "cpu"
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "collective-permute",
    "reduce-scatter",
)
UPDATES = (1, 3, 5, 6)
"""The steps at which `make_config` prunes."""


def fit(config, dataset, **arguments):
    """Every progress of a population that is trained to its end."""
    return list(population.fit(config, members_of(config), dataset, **arguments))


def fit_until(config, dataset, step):
    """The state after so many steps."""
    for progress in population.fit(config, members_of(config), dataset):
        if progress.step == step:
            return progress.state
    raise AssertionError(f"no report at step {step}")


def task_of(config, dataset, stage):
    return make_specs(config, dataset)[stage]


def compiled_text(config, dataset, models, batch_size):
    """The program of the stage `sup` as XLA has compiled it."""
    spec = task_of(config, dataset, "sup")
    program = programs.make_programs(spec, dataset)
    return program(models, batch_size).as_text()


def with_small_steps(config, stage):
    """At a usual rate a network doubles a difference of one rounding at every other step."""
    return override(config, [f"{stage}.learning_rate.initial=0.001"])


def assert_close(ours, theirs, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, theirs)


# ------------------------------------------- alone, split and cut, the results are the same


def train_alone(config, dataset, row):
    """The state of one member at the end, by the unvmapped step."""
    members = members_of(config)
    seed = int(members.seeds[row])
    state = None
    for name, spec in make_specs(config, dataset).items():
        state = single.init(spec, seed, state)
        step_fn = jax.jit(
            single.make_step(spec),
            static_argnames="batch_size",
            compiler_options=programs.CPU_OPTIONS,  # other kernels round otherwise
        )
        shared = programs.shared_arguments(spec, dataset)
        for step in range(8):
            epoch, within = divmod(step, 4)
            order = single.epoch_order(seed, name, epoch, 100)
            member = PerModel(seed, members.sparsities[row], order)
            batch_size = 4 if within == 3 else 32
            state, _ = step_fn(state, member, step, shared, batch_size=batch_size)
    return state


@pytest.mark.parametrize("experiment", ["sup_gmp", "scl_gmp"])
def test_a_member_equals_the_same_model_alone(make_config, dataset, experiment):
    """Including the unvmapped step, the last partial batch, and the change of stages."""
    # At its usual rate the contrastive loss amplifies a difference of one rounding to another model
    # in five steps.
    config = with_small_steps(make_config(experiment), "scl")
    end = fit(config, dataset)[-1].state
    row = 3  # seed 1, sparsity 0.9

    ours = jax.tree.map(lambda leaf: leaf[row], end)
    alone = train_alone(config, dataset, row)
    assert_close(ours.params, alone.params, rtol=1e-3, atol=1e-4)

    def share_that_differs(mask, other):
        return np.mean(mask != other)

    different = jax.tree.map(share_that_differs, ours.masks, alone.masks)
    assert max(jax.tree.leaves(different)) < 0.002  # two weights may be equal but for rounding


def test_the_number_of_devices_changes_no_result(make_config, dataset, monkeypatch):
    """Three models on two devices, so that one place is padding, against one device.

    They are equal but for rounding.
    """
    config = make_config("sup_gmp", models=3, sparsities=(0.9,))
    config = with_small_steps(config, "sup")
    assert jax.local_device_count() == 2
    split = fit(config, dataset)
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: first)
    whole = fit(config, dataset)

    for ours, theirs in zip(split, whole, strict=True):
        assert_close(ours.metrics, theirs.metrics, rtol=1e-4)
    state, other = split[-1].state, whole[-1].state
    assert_close(state.params, other.params, rtol=1e-3)
    assert_close(state.batch_stats, other.batch_stats, rtol=1e-3)
    assert len(jax.tree.leaves(state.masks)[0]) == 3
    jax.tree.map(np.testing.assert_array_equal, state.masks, other.masks)


def test_the_chunk_size_changes_no_result(make_config, dataset):
    config = make_config("sup_gmp", models=3, sparsities=(0.9,))
    config = with_small_steps(config, "sup")
    in_chunks = dataclasses.replace(config, execution=Execution(models_per_program=2))
    together = fit(config, dataset)
    chunked = fit(in_chunks, dataset)
    steps = [progress.step for progress in together]
    assert steps == [progress.step for progress in chunked]
    assert_close(together[-1].state.params, chunked[-1].state.params, rtol=1e-3, atol=1e-3)
    assert_close(together[-1].metrics, chunked[-1].metrics, rtol=1e-2, atol=1e-3)


def test_steps_in_a_loop_are_the_same_steps(make_config, dataset):
    """As on accelerators: three at a time, fewer before a smaller batch, a report or the end."""
    config = with_small_steps(make_config("sup_gmp", log_every_steps=4), "sup")
    execution = Execution(models_per_program=4, steps_per_call=3, warm_start=False)
    looped = dataclasses.replace(config, execution=execution)
    calls = []
    reports = fit(looped, dataset, on_step=lambda stage, step: calls.append(step))
    assert calls == [3, 4, 7, 8]

    alone = fit(config, dataset)
    for ours, theirs in zip(reports, alone, strict=True):
        assert_close(ours.metrics, theirs.metrics, rtol=1e-3)
    # Weights near 0 are sums of which one rounding is more than a thousandth.
    assert_close(reports[-1].state.params, alone[-1].state.params, rtol=1e-3, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, reports[-1].state.masks, alone[-1].state.masks)


def test_progress_can_be_had_at_any_step(make_config, dataset):
    """As a signal asks for it; what follows is the same."""
    config = make_config("scl_gmp")
    usual = fit(config, dataset)
    early = fit(config, dataset, report_now=lambda: True)
    assert [progress.step for progress in early] == list(range(1, 17))
    jax.tree.map(np.testing.assert_array_equal, early[-1].state, usual[-1].state)


def test_states_leave_the_devices_whole(make_config, dataset):
    """Slicing an array that is split over devices is a collective.

    A busy CPU may abort one whose devices come late.
    """
    config = make_config("scl_gmp")
    start = population.init(task_of(config, dataset, "scl"), members_of(config))
    states = [start]
    for progress in population.fit(config, members_of(config), dataset):
        states.append(progress.state)
    assert {type(leaf) for leaf in jax.tree.leaves(states)} == {np.ndarray}


def test_a_state_that_training_has_left_behind_is_refused(make_config, dataset):
    reports = fit(make_config("sup_dense", log_every_steps=1), dataset)
    with pytest.raises(RuntimeError, match="gone on from step 1"):
        _ = reports[0].state


# ------------------------------------------------------------------- compiled programs


def test_the_split_step_passes_nothing_between_devices(make_config, dataset):
    text = compiled_text(make_config("sup_gmp"), dataset, models=4, batch_size=32)
    assert "num_partitions=2" in text
    for collective in COLLECTIVES:
        assert collective not in text


def test_pruning_is_still_a_branch_in_the_populations_program(make_config, dataset):
    """A batched predicate would turn the `cond` into a select.

    That would rank every weight at every step.
    """
    config = make_config("sup_gmp")
    spec = task_of(config, dataset, "sup")
    step = programs.make_step(spec)
    arguments = programs.argument_shapes(spec, 100, len(members_of(config)))
    jaxpr = jax.make_jaxpr(lambda *given: step(*given, batch_size=32))(*arguments).jaxpr

    in_branches = 0
    for equation in equations(jaxpr):
        if equation.primitive.name == "cond":
            for branch in equation.params["branches"]:
                in_branches += count_rankings(branch.jaxpr)
    assert in_branches == 10  # 9 convolutions and the head
    assert count_rankings(jaxpr) == in_branches


def equations(jaxpr):
    """Every equation, also of the programs within."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            candidates = value if isinstance(value, (tuple, list)) else [value]
            for candidate in candidates:
                inner = getattr(candidate, "jaxpr", candidate)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def count_rankings(jaxpr):
    """How often the magnitudes of all models' weights are ranked."""
    count = 0
    for equation in equations(jaxpr):
        # How the threshold search reads the magnitudes.
        if equation.primitive.name == "bitcast_convert_type":
            count += equation.invars[0].aval.ndim == 2
    return count


def test_the_compiled_step_has_no_grouped_convolution(make_config, dataset):
    text = compiled_text(make_config("sup_gmp"), dataset, models=4, batch_size=32)
    # Forward, and the gradients of the kernel and of the input; the images need no gradient.
    each_model = 3 * 9 - 1
    if ON_CPU:
        each_model -= 3 * 4  # 1x1 and the smallest are matrix products instead
        # An input gradient under a stride of two, by its four phases: one of them is 1x1.
        each_model += 3 - 1
    assert text.count(" convolution(") == 2 * each_model  # models on each device
    assert "feature_group_count=" not in text
    assert "batch_group_count=" not in text


@pytest.mark.skipif(not ON_CPU, reason="what XLA fuses on CPU")
def test_no_transposition_computes_its_operand_anew(make_config, dataset):
    """XLA would fuse normalisation and ReLU into the transpositions before the kernel's gradient.

    That is 5 times slower.
    """
    text = compiled_text(make_config("sup_gmp"), dataset, models=2, batch_size=28)
    bodies = re.findall(r"^%\S*fused_computation\S* .*?^}", text, re.MULTILINE | re.DOTALL)
    # The images of a batch, here 28, become the last axis.
    transposition = re.compile(r"f32\[\d+,\d+,\d+,28\]\S* (transpose|copy)\(")
    transposing = [body for body in bodies if transposition.search(body)]
    assert len(transposing) == 5  # of 9 convolutions; the others are matrix products
    for body in transposing:
        assert not re.search(r" (multiply|maximum|subtract)\(", body), body


@pytest.mark.skipif(not ON_CPU, reason="what XLA counts on CPU")
def test_a_populations_step_costs_what_its_members_cost(make_config, dataset):
    spec = task_of(make_config("sup_gmp"), dataset, "sup")
    states, members, steps, shared = programs.argument_shapes(spec, 100, 4)

    def of_one(leaf):
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)

    state, member = jax.tree.map(of_one, (states, members))
    alone = jax.jit(single.make_step(spec), static_argnames="batch_size")
    lowered = alone.lower(state, member, steps.first, shared, batch_size=32)
    flops = lowered.compile(programs.CPU_OPTIONS).cost_analysis()["flops"]
    # The count is the same whatever computes the convolutions.
    for convolution in ("unrolled", "onednn"):
        config = make_config("sup_gmp", execution=Execution(convolution=convolution))
        spec = task_of(config, dataset, "sup")
        program = programs.make_programs(spec, dataset)
        plan = make_plan(spec, 4, dataset, program)
        found = step_flops(spec, dataset, program, plan)
        assert found / plan.models_per_program == pytest.approx(flops, rel=0.02)


def test_the_second_step_does_not_recompile(make_config, dataset):
    config = make_config("sup_gmp")
    spec, members = task_of(config, dataset, "sup"), members_of(config)
    step = programs.make_step(spec)
    state = jax.device_put(population.init(spec, members))
    orders = np.zeros((len(members), 100), np.int32)
    per_model = PerModel(members.seeds, members.sparsities, orders)
    shared = programs.shared_arguments(spec, dataset)
    for index in range(3):
        steps = programs.Steps(np.int32(index), np.int32(1))
        state, _ = step(state, per_model, steps, shared, batch_size=32)
    assert step._cache_size() == 1


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_of_every_preset_survives_json_and_traces_one_step(
    preset, experiment, dataset
):
    config = dataclasses.replace(PRESETS[preset], experiment=EXPERIMENTS[experiment], models=2)
    assert from_json(to_json(config), "test") == config

    height, channels = (8, 1) if preset == "digits" else (32, 3)
    images = np.zeros((2000, height, height, channels), np.uint8)
    labels = np.zeros(2000, np.int32)
    stand_in = dataclasses.replace(dataset, train_images=images, train_labels=labels)
    known = dataclasses.replace(config.data, mean=(0.5,) * channels, std=(0.25,) * channels)
    config = dataclasses.replace(config, data=known)
    # What is not asked here is whether so few images make steps enough for the schedule.
    for name in ("sup", "scl", "head", "finetune"):
        config = override(config, [f"{name}.epochs=20000"])

    count = len(members_of(config))
    for spec in make_specs(config, stand_in).values():
        state, metrics = traced_step(spec, 2000, count)
        assert state == programs.state_shapes(spec, count)
        assert all(value.shape == (count,) for value in metrics.values())


def traced_step(spec, num_train, count):
    """The shapes of what a population's step returns."""
    step = programs.make_step(spec)
    batch_size = spec.settings.batch_size
    arguments = programs.argument_shapes(spec, num_train, count)
    return jax.eval_shape(lambda *given: step(*given, batch_size=batch_size), *arguments)


# ------------------------------------------------------------------------------ pruning


def test_masks_only_shrink_with_exact_counts_at_every_update(make_config, dataset):
    config = make_config("sup_gmp", log_every_steps=1)
    previous, updates = None, 0
    for progress in population.fit(config, members_of(config), dataset):
        state = jax.device_get(progress.state)
        assert_exact_counts(state, progress.step - 1)
        if previous is not None:
            shrunk = jax.tree.map(lambda new, old: (old | ~new).all(), state.masks, previous)
            assert jax.tree.all(shrunk)
            unchanged = jax.tree.map(np.array_equal, state.masks, previous)
            updates += not jax.tree.all(unchanged)
        previous = state.masks
    assert updates == 3  # at steps 3, 5 and 6; the target at step 1 is 0


def assert_exact_counts(state, step):
    """As many weights of each prunable leaf are pruned, and 0, as the schedule says."""
    last_update = max((update for update in UPDATES if update <= step), default=0)
    along = np.clip((last_update - 1) / 5, 0, 1)
    for path, mask in jax.tree_util.tree_leaves_with_path(state.masks):
        if not prune.convolution_and_head_kernels(path, mask[0]):
            assert mask.all()
            continue
        for member, final in enumerate([0.5, 0.5, 0.9, 0.9]):
            target = np.float32(final) * (1 - (1 - along) ** 3)
            expected = round(target * mask[member].size)
            assert (~mask[member]).sum() == expected, (step, path)
        weights = lookup(state.params, path)
        assert (weights[~mask] == 0).all()


def lookup(tree, path):
    for entry in path:
        tree = tree[entry.key]
    return tree


def test_one_shot_prunes_once_globally_then_keeps_the_masks(make_config, dataset):
    dense = fit(make_config("sup_dense"), dataset)[-1].state
    config = make_config("sup_one_shot")
    start = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), dense)
    pruned = population.initial_state(config, members_of(config), dataset, start)
    end = fit(config, dataset, state=pruned)[-1]

    @jax.vmap
    def globally(params, masks, sparsity):
        return prune.global_masks(params, masks, sparsity, prune.convolution_and_head_kernels)

    expected = globally(start.params, start.masks, members_of(config).sparsities)
    jax.tree.map(np.testing.assert_array_equal, end.state.masks, expected)
    np.testing.assert_allclose(end.metrics["sparsity"], [0.5, 0.5, 0.9, 0.9], atol=1e-4)


def test_the_authors_updates_come_at_multiples_and_end_short_of_the_target(make_config, dataset):
    """The schedule begins at 1, ends at 6, and has updates every 2 steps."""
    config = make_config("sup_gmp", sparsities=(0.9,), log_every_steps=1)
    config = override(config, ["prune.at_multiples=true"])
    reports = fit(config, dataset)
    sparsities = np.array([progress.metrics["sparsity"][0] for progress in reports])

    changed = np.flatnonzero(np.diff(sparsities, prepend=0))
    assert changed.tolist() == [4, 6]  # the target at step 2 is 0
    for step in (2, 4, 6):
        along = (step - 2) / 5  # the targets are those of steps 1, 3 and 5
        expected = 0.9 * (1 - (1 - along) ** 3)
        np.testing.assert_allclose(sparsities[step], expected, atol=1e-3)


def test_head_schedule_prunes_the_head_of_a_contrastive_model(make_config, dataset):
    """And no more of the encoder, whose last update was short of the target."""
    config = make_config("scl_gmp", sparsities=(0.5,))
    pruning = dataclasses.replace(config.prune, head=Schedule(2, 6, 2), at_multiples=True)
    config = dataclasses.replace(config, prune=pruning)
    states = {}
    for progress in population.fit(config, members_of(config), dataset):
        states[progress.stage] = progress.state

    masks = states["head"].masks
    head = masks["head"]["Dense_0"]
    assert (~head["kernel"]).sum() == 2 * round(0.5 * 640)
    assert head["bias"].all()
    encoder = states["scl"].masks["encoder"]
    assert 0.49 < prune.sparsity(encoder, lambda path, leaf: path[-1].key == "kernel") < 0.5
    jax.tree.map(np.testing.assert_array_equal, masks["encoder"], encoder)


# ----------------------------------------------------------------------------- learning


def test_training_learns_digits(make_config, dataset):
    config = make_config("sup_dense", log_every_steps=4)
    config = override(config, ["sup.epochs=20"])
    accuracy = fit(config, dataset)[-1].metrics["accuracy"]
    assert (accuracy > 0.5).all()


def test_every_seed_sees_every_image_once_an_epoch_in_an_order_of_its_own():
    orders = []
    for seed in (0, 1):
        for epoch in (0, 1):
            orders.append(single.epoch_order(seed, "sup", epoch, 50))
    assert (np.sort(orders, axis=1) == np.arange(50)).all()
    assert len({tuple(np.asarray(order)) for order in orders}) == 4


def test_a_frozen_encoder_keeps_its_weights_and_statistics(make_config, dataset):
    reports = fit(make_config("scl_dense"), dataset)
    border = next(progress for progress in reports if progress.ends_stage)
    assert border.stage == "scl"
    before, end = border.state, reports[-1].state
    assert_close(before.params["encoder"], end.params["encoder"], rtol=0)
    assert_close(before.batch_stats, end.batch_stats, rtol=0)
    assert "projection" not in end.params


def test_bfloat16_computes_the_step_but_keeps_float32_masters(make_config, dataset):
    half = make_config("sup_gmp", compute_dtype="bfloat16", sparsities=(0.5,))
    ours = fit(half, dataset)[-1]
    reference = fit(make_config("sup_gmp", sparsities=(0.5,)), dataset)[-1]
    assert {leaf.dtype for leaf in jax.tree.leaves(ours.state.params)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(ours.metrics["loss"], reference.metrics["loss"], rtol=0.3)


# ---------------------------------------------------------------- members that are frozen


def test_a_member_that_diverges_is_frozen_and_disturbs_no_other(make_config, dataset):
    """One of eight gets a weight so large that its activations overflow.

    It was pruned before, and is not again.
    """
    config = make_config("sup_gmp", models=8, sparsities=(0.9,))
    middle = fit_until(config, dataset, 4)
    planted = jax.tree.map(np.array, middle)
    planted.params["encoder"]["stem"]["kernel"][5, 0, 0, 0, 0] = 1e38
    sound = fit(config, dataset, state=middle, done=4)[-1]
    reports = fit(config, dataset, state=planted, done=4)
    end = reports[-1]
    assert end.state.failed_at.tolist() == [-1, -1, -1, -1, -1, 4, -1, -1]

    others = np.arange(8) != 5
    leaves = jax.tree.leaves(end.state)
    sound_leaves = jax.tree.leaves(sound.state)
    planted_leaves = jax.tree.leaves(planted)
    for ours, theirs, before in zip(leaves, sound_leaves, planted_leaves, strict=True):
        np.testing.assert_array_equal(ours[others], theirs[others])
        if ours is not end.state.failed_at:
            np.testing.assert_array_equal(ours[5], before[5])
    for progress in (reports[0], end):
        assert np.isnan(progress.metrics["loss"]).tolist() == (~others).tolist()


def test_a_collapsed_contrastive_encoder_is_frozen_after_so_many_steps(make_config, dataset):
    """A projection gives every image the same embedding; no gradient leads away from that."""
    config = make_config("scl_dense", models=2, supcon=SupCon(collapse_steps=3))
    spec = task_of(config, dataset, "scl")
    planted = jax.tree.map(np.array, population.init(spec, members_of(config)))
    last = planted.params["projection"]["Dense_1"]
    last["kernel"][1] = 0
    last["bias"][1] = 1
    middle = fit_until(config, dataset, 3)
    state = dataclasses.replace(middle, params=planted.params)
    reports = fit(config, dataset, state=state, done=3)

    collapsed = methods.collapsed_supcon(8, 0.5, 0.07)  # the epoch's last batch has 4 images
    assert reports[0].metrics["loss"][1] == pytest.approx(collapsed, rel=1e-5)
    end = reports[-1]
    assert end.state.failed_at.tolist() == [-1, 5]
    assert end.state.failed_at.dtype == np.int32
    assert np.isfinite(end.metrics["loss"]).tolist() == [True, False]
    undisturbed = fit(config, dataset)[-1]
    assert undisturbed.state.failed_at.tolist() == [-1, -1]


def test_frozen_parents_have_frozen_children(make_config, dataset):
    config = make_config("sup_one_shot", models=2, sparsities=(0.5,))
    dense = fit(make_config("sup_dense"), dataset)[-1].state
    dense = dataclasses.replace(dense, failed_at=np.array([-1, 3], np.int32))
    end = fit(config, dataset, state=dense)[-1]
    assert end.state.failed_at.tolist() == [-1, 3]
    assert np.isnan(end.metrics["loss"]).tolist() == [False, True]
