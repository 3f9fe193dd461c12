"""The pruner of a stage: what it prunes, when and to what; and that what is wrong is named."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from naive_pruning import equations, equations_in_branches, naive_updates, tree

from prunejax import pruning as prune
from prunejax.config import Experiment, Prune, Pruning, Schedule, UserError
from prunejax.pruning import (
    ALLOCATIONS,
    SCORES,
    Allocation,
    Pruner,
    ScheduleSteps,
    Score,
    expected_sparsity,
    make_pruner,
    schedule_steps,
)
from prunejax.pruning.masks import name_of
from prunejax.pruning.schedules import NEVER
from prunejax.training import programs
from prunejax.training.spec import check, make_spec, make_specs

KEY = jax.random.key(0)
MAGNITUDE, LAYERWISE = SCORES["magnitude"], ALLOCATIONS["layerwise"]
GRADUAL = Pruning(schedule="sup")


@pytest.fixture(scope="session")
def config_of(make_config):
    """`config_of(pruning, method, prune_head, **fields)`, the fields those of a configuration."""

    def make(pruning, method="cross_entropy", prune_head=True, **fields):
        experiment = Experiment(
            "own", method=method, pruning=pruning, dense_parent="dense", prune_head=prune_head
        )
        return dataclasses.replace(make_config("sup_dense", **fields), experiment=experiment)

    return make


def pruner_of(score=MAGNITUDE, allocation=LAYERWISE, prunable=prune.convolution_kernels):
    return Pruner(score, allocation, prunable, power=3, at_multiples=False)


def update(pruner, params, sparsity=0.5, gradients=None):
    return pruner.update(params, prune.init_masks(params), sparsity, KEY, gradients)


def chosen_leaves(pruner, params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {name_of(path) for path, leaf in leaves if pruner.prunable(path, leaf)}


def refusal(function, *arguments):
    """The message of the UserError that a call raises, of one line."""
    with pytest.raises(UserError) as told:
        function(*arguments)
    message = str(told.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------- what it prunes


@pytest.mark.parametrize("score", list(SCORES))
@pytest.mark.parametrize("allocation", ["layerwise", "global", "erk"])
def test_params_are_zero_where_the_new_masks_say_so(score, allocation):
    params = tree()
    pruner = pruner_of(SCORES[score], ALLOCATIONS[allocation])
    pruned, masks = update(pruner, params, 0.75, gradients=tree(seed=1))
    assert prune.sparsity(masks) == pytest.approx(0.75, abs=1e-3)
    leaves = zip(*map(jax.tree.leaves, (pruned, params, masks)), strict=True)
    for ours, before, mask in leaves:
        np.testing.assert_array_equal(ours, np.where(mask, before, 0))


def test_each_stage_prunes_the_leaves_of_the_paper(config_of):
    params = tree()
    convolutions = {"encoder/stem/kernel", "encoder/conv/kernel"}
    head = {"head/Dense_0/kernel"}
    sup = config_of(GRADUAL)
    assert chosen_leaves(make_pruner(sup, "sup"), params) == convolutions | head
    scl = config_of(Pruning(schedule="scl"), "supcon", prune_head=False)
    assert chosen_leaves(make_pruner(scl, "scl"), params) == convolutions
    with_head = dataclasses.replace(scl.prune, head=Schedule(2, 6, 2))
    scl = dataclasses.replace(scl, prune=with_head)
    assert chosen_leaves(make_pruner(scl, "head"), params) == head
    at_once = config_of(Pruning(schedule=None))
    assert chosen_leaves(make_pruner(at_once, "finetune"), params) == convolutions | head


def test_a_head_that_comes_after_the_pruned_stage_is_not_counted_as_pruned(config_of):
    """Else such a run would end with another sparsity than its schedule's."""
    config = config_of(Pruning(schedule="scl"), "supcon", prune_head=True)
    convolutions = {"encoder/stem/kernel", "encoder/conv/kernel"}
    assert chosen_leaves(make_pruner(config, "scl"), tree()) == convolutions
    leaves = jax.tree_util.tree_leaves_with_path(tree())
    spec = make_spec(config, "head", (8, 8, 1), 10, 4)
    assert {name_of(path) for path, leaf in leaves if spec.counted(path, leaf)} == convolutions


@pytest.mark.parametrize("allocation", ["layerwise", "global", "erk"])
def test_excluded_parts_stay_dense_and_the_others_have_the_sparsity(config_of, allocation):
    params = tree()
    pruning = Pruning(schedule="sup", allocation=allocation, exclude=("stem", "head"))
    pruner = make_pruner(config_of(pruning), "sup")
    masks = update(pruner, params, 0.75)[1]
    assert masks["encoder"]["stem"]["kernel"].all()
    assert masks["head"]["Dense_0"]["kernel"].all()
    assert (~masks["encoder"]["conv"]["kernel"]).sum() == 864
    assert prune.sparsity(masks, pruner.prunable) == 0.75


def test_score_and_allocation_are_those_the_experiment_names(config_of):
    for score in SCORES:
        for allocation in ALLOCATIONS:
            pruning = Pruning(schedule="sup", score=score, allocation=allocation)
            pruner = make_pruner(config_of(pruning), "sup")
            assert (pruner.score.name, pruner.allocation.name) == (score, allocation)


# ---------------------------------------------------------- when, to what


def test_schedules_are_those_of_the_stages(config_of):
    prune_settings = Prune(
        sup=Schedule(1, 9, 3), scl=Schedule(2, 8, 2), scl_delayed=Schedule(4, 8, 2)
    )

    def steps(pruning, method, stage, **changes):
        settings = dataclasses.replace(prune_settings, **changes)
        return schedule_steps(config_of(pruning, method, prune=settings), stage, 100)

    assert steps(GRADUAL, "cross_entropy", "sup") == ScheduleSteps(1, 9, 3)
    assert steps(Pruning("scl"), "supcon", "scl") == ScheduleSteps(2, 8, 2)
    assert steps(Pruning("scl_delayed"), "simclr", "scl") == ScheduleSteps(4, 8, 2)
    assert steps(Pruning("scl"), "supcon", "head") == NEVER
    head = Schedule(3, 7, 1)
    assert steps(Pruning("scl"), "supcon", "head", head=head) == ScheduleSteps(3, 7, 1)
    assert steps(Pruning("scl"), "supcon", "scl", head=head) == ScheduleSteps(2, 8, 2)
    assert steps(None, "supcon", "scl") == NEVER
    assert steps(None, "supcon", "head", head=head) == NEVER
    assert steps(Pruning(None), "cross_entropy", "finetune") == NEVER


@pytest.mark.parametrize("at_multiples", [False, True])
@pytest.mark.parametrize("allocation", ["layerwise", "global", "erk", "2:4"])
def test_the_expected_sparsity_is_that_of_simulated_updates(config_of, allocation, at_multiples):
    """Step by step, an update whenever a naive schedule says so; half a weight a leaf apart."""
    schedule = Schedule(3, 24, 4)
    settings = Prune(sup=schedule, at_multiples=at_multiples)
    pruning = Pruning(schedule="sup", allocation=allocation, exclude=("stem",))
    config = config_of(pruning, prune=settings)
    pruner = make_pruner(config, "sup")
    updates = naive_updates(3, 24, 4, 0.5, at_multiples)
    assert len(updates) == (6 if at_multiples else 7)
    prune_to = jax.jit(pruner.update)
    params = tree()
    masks = prune.init_masks(params)
    assert expected_sparsity(config, "sup", 100, 0, 0.5) == 0
    for step in range(30):
        if step in updates:
            params, masks = prune_to(params, masks, updates[step], KEY)
        expected = expected_sparsity(config, "sup", 100, step + 1, 0.5)
        found = float(prune.sparsity(masks, pruner.prunable))
        assert found == pytest.approx(expected, abs=1.01 / (1152 + 80)), step
    assert expected == pytest.approx(0.5, abs=2e-3)


@pytest.mark.parametrize(
    ("allocation", "achievable"), [("global", 0.3), ("erk", 0.3), ("2:4", 0.25)]
)
def test_one_shot_pruning_is_expected_from_the_start(config_of, allocation, achievable):
    config = config_of(Pruning(schedule=None, allocation=allocation))
    for steps in (0, 1, 100):
        assert expected_sparsity(config, "finetune", 100, steps, 0.3) == achievable


def test_a_dense_experiment_is_expected_to_stay_so(config_of):
    assert expected_sparsity(config_of(None), "sup", 100, 100, 0.0) == 0


# ------------------------------------------------------ in a training step


@pytest.mark.parametrize("score", list(SCORES))
@pytest.mark.parametrize("allocation", list(ALLOCATIONS))
def test_pruning_stays_a_branch_in_the_populations_program(config_of, dataset, score, allocation):
    """A batched predicate would turn the `cond` into a select that ranks weights at every step."""
    pruning = Pruning(schedule="sup", score=score, allocation=allocation, exclude=("stem",))
    config = config_of(pruning)
    spec = make_specs(config, dataset)["sup"]
    step = programs.make_step(spec)
    arguments = programs.argument_shapes(spec, len(dataset.train_labels), 4)
    program = jax.make_jaxpr(lambda *given: step(*given, batch_size=32))(*arguments).jaxpr
    leaves = 9  # 8 convolutions besides the stem, and the head
    rankings = {"layerwise": leaves, "erk": leaves, "global": 1, "2:4": 2 * leaves}
    inside = sum(map(ranks_weights, equations_in_branches(program)))
    assert inside == rankings.get(allocation, inside) > 0
    assert sum(map(ranks_weights, equations(program))) == inside
    if score == "random":
        drawing = [one.primitive.name for one in equations_in_branches(program)]
        assert drawing.count("random_bits") == len(jax.tree.leaves(arguments[0].params))


def ranks_weights(equation):
    """Whether it sorts, or reads the bits of the scores of a population, as the rankings do."""
    if equation.primitive.name == "bitcast_convert_type":
        return equation.params["new_dtype"] == jnp.uint32 and equation.invars[0].aval.ndim == 2
    return equation.primitive.name == "sort"


# ----------------------------------------------------------------- bad input


def test_a_score_that_lacks_a_leaf_is_named():
    def without_stem(params, gradients, key):
        encoder = {name: part for name, part in params["encoder"].items() if name != "stem"}
        return {**params, "encoder": encoder}

    message = refusal(update, pruner_of(Score("own", without_stem)), tree())
    assert "score 'own' lacks the leaf 'encoder/stem/kernel'" in message


def test_a_score_with_a_leaf_too_many_is_named():
    def with_another(params, gradients, key):
        return {**params, "another": jnp.zeros(3)}

    message = refusal(update, pruner_of(Score("own", with_another)), tree())
    assert "score 'own' has the leaf 'another'" in message


def test_a_score_that_is_no_tree_is_refused():
    for wrong in (None, jnp.zeros(3)):
        pruner = pruner_of(Score("own", lambda params, gradients, key, wrong=wrong: wrong))
        assert "score 'own'" in refusal(update, pruner, tree())


def test_a_score_of_another_shape_is_named_with_both_shapes():
    def summed(params, gradients, key):
        return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=-1), params)

    params = {"conv": {"kernel": jnp.ones((3, 3, 4, 5))}}
    message = refusal(update, pruner_of(Score("own", summed)), params)
    assert "score 'own' returns conv/kernel of shape (3, 3, 4)" in message
    assert "(3, 3, 4, 5)" in message


def test_masks_of_another_structure_or_shape_are_named():
    def one_leaf(scores, masks, sparsity, prunable):
        return {"encoder": masks["encoder"]}

    def per_output(scores, masks, sparsity, prunable):
        return jax.tree.map(lambda mask: mask.any(axis=0), masks)

    message = refusal(update, pruner_of(allocation=Allocation("own", one_leaf)), tree())
    assert "allocation 'own' lacks the leaf 'head/Dense_0/bias'" in message
    params = {"conv": {"kernel": jnp.ones((3, 3, 4, 5))}}
    message = refusal(update, pruner_of(allocation=Allocation("own", per_output)), params)
    assert "allocation 'own' returns conv/kernel of shape (3, 4, 5)" in message


def test_masks_that_are_not_bool_are_named():
    def as_numbers(scores, masks, sparsity, prunable):
        return jax.tree.map(lambda mask: mask.astype(jnp.float32), masks)

    message = refusal(update, pruner_of(allocation=Allocation("own", as_numbers)), tree())
    assert "allocation 'own' returns encoder/conv/kernel as float32, not bool" in message


def test_a_prunable_leaf_without_a_gradient_is_named_and_no_other_is_needed():
    params = tree()
    trained = {"encoder": {"conv": {"kernel": np.ones((3, 3, 16, 8), np.float32)}}}
    saliency = SCORES["saliency"]
    message = refusal(update, pruner_of(saliency), params, 0.5, trained)
    assert "'saliency' needs gradients, and encoder/stem/kernel has none" in message

    def only_conv(path, leaf):
        return "conv" in name_of(path).split("/") and leaf.ndim == 4

    masks = update(pruner_of(saliency, prunable=only_conv), params, 0.5, trained)[1]
    assert (~masks["encoder"]["conv"]["kernel"]).sum() == 576


def test_a_leaf_that_n_of_m_does_not_divide_is_named_before_training(config_of, dataset):
    """The digits have one channel."""
    config = config_of(Pruning(schedule="sup", allocation="2:4"))
    message = refusal(programs.require_traceable, config, dataset)
    assert "encoder/stem/kernel has 1 input channels" in message
    excluded = config_of(Pruning(schedule="sup", allocation="2:4", exclude=("stem",)))
    programs.require_traceable(excluded, dataset)


@pytest.mark.parametrize("schedule", ["sup", None])
def test_sparsities_that_a_allocation_does_not_reach_are_refused_with_what_it_does(
    config_of, schedule
):
    pruning = Pruning(schedule=schedule, allocation="2:4")
    cases = [(0.9, 0.5, "0.5"), (0.3, 0.25, "0.25,0.5"), (0.7, 0.5, "0.5")]
    for asked, reached, hint in cases:
        message = refusal(check, config_of(pruning, sparsities=(0.5, asked)))
        assert f"'2:4' reaches {reached} and not the sparsity {asked}" in message
        assert message.endswith(f"use --sparsities={hint}")
    check(config_of(pruning, sparsities=(0.25, 0.5)))
    check(config_of(Pruning(schedule=schedule), sparsities=(0.3, 0.9)))


def test_an_unknown_score_allocation_or_schedule_is_refused(config_of):
    message = refusal(check, config_of(Pruning(schedule="sup", score="magnitud")))
    assert "no score 'magnitud'; did you mean 'magnitude'?" in message
    message = refusal(check, config_of(Pruning(schedule="sup", allocation="layer")))
    assert "no allocation 'layer'" in message
    assert "There are: erk, global, layerwise, 2:4" in message
    for unknown in ("scl_later", "power", "head"):  # `head` is None here
        message = refusal(check, config_of(Pruning(schedule=unknown)))
        assert f"'own' prunes by the schedule {unknown!r}" in message
        assert "sup, scl, scl_delayed" in message


@pytest.mark.parametrize("step", [6, 9])
def test_a_schedule_that_ends_before_it_begins_is_refused(config_of, step):
    config = config_of(GRADUAL, prune=Prune(sup=Schedule(step, 6, 2)))
    message = refusal(check, config)
    assert message.startswith(f"prune.sup is {step}/6/2; it needs begin_step < end_step")


def test_a_schedule_without_a_multiple_is_refused_where_updates_are_at_multiples(config_of):
    settings = Prune(sup=Schedule(5, 7, 4), at_multiples=True)
    message = refusal(check, config_of(GRADUAL, prune=settings))
    assert "no multiple of 4 lies in it" in message
    check(config_of(GRADUAL, prune=dataclasses.replace(settings, at_multiples=False)))
    check(config_of(GRADUAL, prune=Prune(sup=Schedule(5, 8, 4), at_multiples=True)))


def test_a_schedule_that_ends_after_its_stage_is_refused(config_of, dataset):
    """Two epochs of four steps: the last step is 7."""
    make_specs(config_of(GRADUAL, prune=Prune(sup=Schedule(1, 7, 2))), dataset)
    message = refusal(make_specs, config_of(GRADUAL, prune=Prune(sup=Schedule(1, 8, 2))), dataset)
    assert message.startswith("prune.sup.end_step is 8, beyond stage 'sup', which has 8 steps")
