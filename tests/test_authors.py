"""`cifar10_authors` does as the released code: rates, the count of steps, the count of depth.

What the code does is in facts and numbers here, not in its lines: FIDELITY of this project, and
what PyTorch's own schedulers return.
"""

import dataclasses
import json
import math
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.presets import PRESETS
from prunejax.config import (
    Config,
    LearningRate,
    MeasureSettings,
    Prune,
    Schedule,
    UserError,
    from_json,
    load_config,
    override,
    to_json,
    validate,
)
from prunejax.measures import MEASURES, load_measures
from prunejax.measures.entry import Context, Features, ModelOutputs, decisive_settings
from prunejax.measures.evaluation import outdated
from prunejax.measures.neighbors import last_wrong_probe, prediction_depth
from prunejax.measures.store import file_of, read, write
from prunejax.pruning import expected_sparsity, make_pruner, schedule_steps
from prunejax.pruning.schedules import NEVER, ScheduleSteps, gradual_updates, last_update
from prunejax.training import population
from prunejax.training.members import members_of
from prunejax.training.optim import make_learning_rate
from prunejax.training.spec import make_specs

AUTHORS = PRESETS["cifar10_authors"]
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
NEW_FIELDS = (
    ("prune", "count_from"),
    ("measure", "depth_count"),
    *((stage, "learning_rate", "chained") for stage in ("sup", "scl", "head", "finetune")),
)


def without_new_fields(config):
    """The JSON of a configuration as it was before the fields."""
    fields = json.loads(to_json(config))
    for *path, name in NEW_FIELDS:
        node = fields
        for step in path:
            node = node[step]
        del node[name]
    return json.dumps(fields)


def test_older_configurations_mean_what_they_did():
    for name in ("cifar10", "cifar10_small", "digits"):
        assert from_json(without_new_fields(PRESETS[name]), "old") == PRESETS[name]
    assert from_json(without_new_fields(AUTHORS), "old") != AUTHORS


# ------------------------------------------------------------------ the head's rates

OF_PYTORCH = {
    0: 0.1,
    1: 0.0999753526902683,
    30: 0.07940987335200905,
    59: 0.03611439425334052,
    60: 0.006926251767714751,
    74: 0.0032163731354537795,
    75: 0.0006044222361526936,
    89: 0.0002018154494820542,
    90: 5.0627941429034726e-05,
    95: 8.758053323485743e-05,
    99: 9.950223954896122e-05,
}
"""By epoch, of PyTorch 2.14's MultiStepLR(milestones=[60, 75, 90], gamma=0.2), and after it in each
epoch CosineAnnealingLR(T_max=100, eta_min=1e-4), from 0.1."""


def rates(config, epochs):
    learning_rate = make_learning_rate(config, epochs, 1)
    return [float(learning_rate(epoch)) for epoch in range(epochs)]


def test_the_heads_rates_are_those_of_pytorchs_two_schedulers():
    head = AUTHORS.head
    ours = rates(head.learning_rate, head.epochs)
    for epoch, expected in OF_PYTORCH.items():
        assert ours[epoch] == pytest.approx(expected, rel=1e-6), epoch


def test_the_heads_cosine_ends_at_a_thousandth_of_the_initial_rate():
    plan = AUTHORS.head.learning_rate
    assert plan.final == pytest.approx(plan.initial * 0.1**3)
    assert rates(plan, AUTHORS.head.epochs)[-1] == pytest.approx(1e-4, rel=0.01)


def test_chained_rates_by_hand():
    """From 9 to 1 in 4 epochs, on a cosine of 1, (2 + sqrt 2) / 4, 1/2 and (2 - sqrt 2) / 4."""
    plan = LearningRate(9.0, milestone_epochs=(2,), factor=0.25, final=1.0, chained=True)
    first = 1 + 8 * (2 + math.sqrt(2)) / 4
    second = 1 + (first / 4 - 1) * (1 / 2) / ((2 + math.sqrt(2)) / 4)
    third = 1 + (second - 1) * (2 - math.sqrt(2)) / 2
    np.testing.assert_allclose(rates(plan, 4), [9, first, second, third], rtol=1e-6)


@pytest.mark.parametrize(
    "plan",
    [
        LearningRate(0.5),
        LearningRate(0.5, (1, 3)),
        LearningRate(0.5, final=0.1),
        LearningRate(0.5, (0, 2, 2), factor=0.3, final=0.0),
    ],
)
def test_chained_or_not_is_the_same_where_no_milestone_meets_a_final_rate(plan):
    chained = dataclasses.replace(plan, chained=True)
    np.testing.assert_allclose(rates(chained, 5), rates(plan, 5), rtol=1e-5)


def test_a_traced_step_has_its_epochs_chained_rate():
    plan = LearningRate(0.5, (1,), final=0.1, chained=True)
    traced = jax.jit(make_learning_rate(plan, 3, 4))
    by_step = [float(traced(step)) for step in range(12)]
    assert by_step == np.repeat(rates(plan, 3), 4).tolist()


# ---------------------------------------------------------------- the count of steps


def updates_of_a_counter(begin, end, every, final):
    """`{optimizer steps before it: target}`, with 1 added to a counter before it is looked at.

    Updates come when the counter, from begin to end, is a multiple of every; their targets are
    those of begin, begin + every, ..., one at each.
    """
    updates = {}
    for steps_before in range(end + every):
        counter = steps_before + 1
        if begin <= counter <= end and counter % every == 0:
            along = len(updates) * every / (end - begin)
            updates[steps_before] = final * (1 - (1 - along) ** 3)
    return updates


def updates_at(steps, **how):
    """Whether masks are updated at each of the first steps, and each step's target."""
    due, targets = traced_updates(steps, 0.9, **how)
    return np.asarray(due), np.asarray(targets)


@partial(jax.jit, static_argnames=("at_multiples", "count_from", "count"))
def traced_updates(steps, final, *, at_multiples, count_from, count):
    """As `updates_at`."""
    updates = gradual_updates(steps, final, 3, at_multiples, count_from)
    numbers = np.arange(count)
    return jax.vmap(updates.due)(numbers), jax.vmap(updates.target)(numbers)


@pytest.mark.parametrize("name", ["sup", "scl", "scl_delayed", "head"])
def test_the_presets_updates_are_those_of_a_counter_that_starts_at_1(name):
    schedule = getattr(AUTHORS.prune, name)
    steps = ScheduleSteps(schedule.begin_step, schedule.end_step, schedule.every_steps)
    due, targets = updates_at(
        steps,
        at_multiples=AUTHORS.prune.at_multiples,
        count_from=AUTHORS.prune.count_from,
        count=schedule.end_step + 1000,
    )
    expected = updates_of_a_counter(*steps, 0.9)
    found = np.flatnonzero(due).tolist()
    assert found == list(expected)
    np.testing.assert_allclose(targets[found], list(expected.values()), rtol=1e-5, atol=1e-6)


def test_the_update_at_step_1000_comes_after_999_optimizer_steps():
    due, _ = updates_at(
        ScheduleSteps(1000, 20000, 500), at_multiples=True, count_from=1, count=20001
    )
    assert np.flatnonzero(due).tolist() == list(range(999, 20000, 500))


@settings(max_examples=100, deadline=None)
@given(
    begin=st.integers(1, 30),
    length=st.integers(1, 40),
    every=st.integers(1, 12),
    at_multiples=st.booleans(),
)
def test_counting_from_1_brings_every_update_one_step_earlier(begin, length, every, at_multiples):
    steps = ScheduleSteps(begin, begin + length, every)
    count = partial(updates_at, steps, at_multiples=at_multiples, count=100)
    due_from_0, targets_from_0 = count(count_from=0)
    due_from_1, targets_from_1 = count(count_from=1)
    earlier = np.flatnonzero(due_from_1)
    assert (earlier + 1).tolist() == np.flatnonzero(due_from_0).tolist()
    np.testing.assert_array_equal(targets_from_1[earlier], targets_from_0[earlier + 1])


@pytest.mark.parametrize("at_multiples", [False, True])
def test_the_newest_update_is_one_that_was_due(at_multiples):
    for begin, end, every in [(1, 6, 2), (3, 30, 4), (4, 30, 4)]:
        updates = gradual_updates(ScheduleSteps(begin, end, every), 0.9, 3, at_multiples, 1)
        newest = None
        for step in range(end + 2 * every):
            newest = step if updates.due(step) else newest
            assert last_update(updates, step) == newest, (begin, end, every, step)


@pytest.mark.parametrize("at_multiples", [False, True])
def test_a_schedule_that_never_comes_does_not_come_earlier(at_multiples):
    due, _ = updates_at(NEVER, at_multiples=at_multiples, count_from=1, count=50)
    assert not due.any()


def test_the_schedule_knows_the_sparsity_after_every_step(make_config, dataset):
    """Of masks that training has really made, to what checkpoints are held to."""
    config = make_config("sup_gmp", models=1, log_every_steps=1)
    config = override(config, ["prune.at_multiples=true", "prune.count_from=1"])
    members = members_of(config)
    steps = make_specs(config, dataset)["sup"].steps
    sparsities = [np.zeros(len(members))]
    for progress in population.fit(config, members, dataset):
        found = progress.metrics["sparsity"]
        for row, final in enumerate(members.sparsities.tolist()):
            expected = expected_sparsity(config, "sup", steps, progress.step, final)
            assert found[row] == pytest.approx(expected, abs=1e-3)
        sparsities.append(found)
    # The first update has the target 0; those at steps 4 and 6 of the schedule are seen.
    changed = np.diff(np.array(sparsities), axis=0) > 0
    assert np.flatnonzero(changed.all(1)).tolist() == [3, 5]


@pytest.mark.parametrize("at_multiples", [False, True])
@pytest.mark.parametrize("count_from", [0, 1])
def test_the_expected_sparsity_is_that_of_the_newest_update(make_config, at_multiples, count_from):
    """Which checkpoints are held against, whatever the count."""
    config = make_config("sup_gmp")
    pruning = Prune(sup=Schedule(3, 24, 4), at_multiples=at_multiples, count_from=count_from)
    config = dataclasses.replace(config, prune=pruning)
    updates = make_pruner(config, "sup").updates(schedule_steps(config, "sup", 40), 0.9)
    newest = 0.0
    for step in range(40):
        expected = expected_sparsity(config, "sup", 40, step, 0.9)
        assert expected == pytest.approx(newest, abs=1e-6)
        if updates.due(step):
            newest = float(updates.target(step))
    assert newest == pytest.approx(0.9, abs=0.01)


def test_a_schedule_that_begins_before_the_first_step_is_refused():
    at_once = dataclasses.replace(Config(), prune=Prune(sup=Schedule(0, 100, 10)))
    validate(at_once)
    with pytest.raises(UserError, match=r"prune\.sup\.begin_step is 0, before the first step"):
        validate(override(at_once, ["prune.count_from=1"]))
    validate(AUTHORS)
    with pytest.raises(UserError, match=r"count_from.* at most 1"):
        override(at_once, ["prune.count_from=2"])


# --------------------------------------------------------------- the count of depth

RIGHT = np.array(
    [
        [1, 1, 1, 1],  # always right
        [0, 1, 1, 1],
        [0, 0, 1, 1],
        [1, 0, 1, 1],  # wrong once more
        [1, 1, 1, 0],  # the very last is wrong
        [0, 0, 0, 0],
    ]
).T
"""Of each of 4 layers, whether the probe is right about each of 6 images."""


def test_depth_by_hand():
    target = np.full(6, 7, np.int32)
    votes = np.where(RIGHT, target, 3).astype(np.int32)
    assert prediction_depth(votes, target).tolist() == [1, 2, 3, 3, 4, 4]
    assert last_wrong_probe(votes, target).tolist() == [1, 1, 2, 2, 4, 4]


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([1, 2, 16]), st.integers(0, 2**32 - 1))
def test_the_codes_depth_is_one_less_unless_none_or_the_very_last_is_wrong(layers, seed):
    rng = np.random.default_rng(seed)
    votes = rng.integers(0, 3, (layers, 50)).astype(np.int32)
    target = rng.integers(0, 3, 50).astype(np.int32)
    ours, theirs = prediction_depth(votes, target), last_wrong_probe(votes, target)
    for image in range(50):
        wrong = np.flatnonzero(votes[:, image] != target[image])
        last = wrong[-1] if len(wrong) else 0
        assert theirs[image] == max(1, 1 + last)
        same = not len(wrong) or last == layers - 1
        assert ours[image] - theirs[image] == (0 if same else 1)


def measure_depth(**changes):
    """Of 20 images with the probes of two layers: the first is of noise, the second of labels."""
    labels = np.arange(20, dtype=np.int32) % 4
    noise = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    features = Features(
        representations=noise,
        logits=np.eye(4, dtype=np.float32)[labels],
        probes=[noise, 100 * np.eye(4, dtype=np.float32)[labels]],
    )
    outputs = ModelOutputs(on_test=lambda: features, on_train=lambda: features)
    settings_of = MeasureSettings(neighbors=3, **changes)
    return MEASURES["depth"].function(outputs, Context(labels, labels, 4, settings_of))["depth"]


def test_the_measure_counts_as_its_setting_says():
    by_default = measure_depth()
    assert set(by_default.tolist()) == {1, 2}
    assert measure_depth(depth_count="first_right").tolist() == by_default.tolist()
    # The last probe that is wrong is the first one, or none is.
    assert measure_depth(depth_count="last_wrong").tolist() == [1] * 20
    assert AUTHORS.measure.depth_count == "last_wrong"


# ----------------------------------------- measures that were made before the setting


@pytest.fixture
def old_run(tmp_path):
    """A run whose measures were made before depth had a way of counting."""
    results = sorted(RESULTS.glob("*/sup_gmp"))
    if not results:
        pytest.skip("no results are committed")
    for name in ("config.json", "provenance.json"):
        (tmp_path / name).write_bytes((results[0] / name).read_bytes())
    for measure in ("predictions", "depth", "purity"):
        record = read(file_of(results[0], measure))
        old = {name: value for name, value in record.settings.items() if name != "depth_count"}
        write(dataclasses.replace(record, settings=old), tmp_path)
    return tmp_path


def test_measures_made_before_a_setting_are_those_of_its_default(old_run):
    config = load_config(old_run)
    names = ["depth", "purity"]
    assert outdated(old_run, config, names) == []
    assert load_measures(old_run).config.measure.depth_count == "first_right"
    explicit = override(config, ["measure.depth_count=first_right"])
    assert outdated(old_run, explicit, names) == []


def test_another_setting_makes_only_its_own_measure_outdated(old_run):
    config = override(load_config(old_run), ["measure.depth_count=last_wrong"])
    assert outdated(old_run, config, ["depth", "purity"]) == ["depth"]


def test_committed_results_are_not_outdated():
    runs = [path.parent for path in sorted(RESULTS.glob("*/*/config.json"))]
    assert runs or not RESULTS.exists()
    for run in runs:
        measured = [path.stem for path in (run / "measures").glob("*.npz")]
        assert outdated(run, load_config(run), measured) == []


def test_depth_is_decided_by_how_it_is_counted():
    decided = decisive_settings(MEASURES["depth"], AUTHORS.measure)
    assert decided["depth_count"] == "last_wrong"
    assert MEASURES["depth"].version == 1
