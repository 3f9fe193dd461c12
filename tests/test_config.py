"""Configuration: overrides, the JSON round trip, and refusals that name the field."""

import dataclasses
import json

import numpy as np
import pytest
from conftest import EXPERIMENTS
from hypothesis import given
from hypothesis import strategies as st

from experiments.presets import PRESETS
from prunejax.config import (
    Config,
    Experiment,
    Pruning,
    Schedule,
    UserError,
    differences,
    from_json,
    load_config,
    override,
    to_json,
    validate,
)
from prunejax.data import Dataset
from prunejax.training.spec import check, make_specs


def test_the_defaults_are_the_papers_table_2():
    config = Config()
    sup, scl = config.sup, config.scl
    assert (sup.epochs, sup.batch_size, sup.learning_rate.initial) == (205, 128, 1.0)
    assert (scl.epochs, scl.batch_size, scl.learning_rate.initial) == (500, 1024, 0.05)
    assert sup.weight_decay == scl.weight_decay == 5e-4
    assert config.prune.sup == Schedule(1000, 20000, 500)
    assert config.prune.scl == Schedule(125, 2476, 62)
    assert config.supcon.temperature == 0.5


def images_like(preset):
    """As many black images, of as many channels, as the preset trains on."""
    count = PRESETS[preset].data.train_examples or (1408 if preset == "digits" else 50000)
    shape = (8, 8, 1) if preset == "digits" else (32, 32, 3)
    images = np.broadcast_to(np.uint8(0), (count, *shape))
    return Dataset(
        name="black",
        class_names=tuple("0123456789"),
        train_images=images,
        train_labels=np.zeros(count, np.int32),
        test_images=images[:1],
        test_labels=np.zeros(1, np.int32),
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_named_after_themselves_and_valid(preset):
    assert PRESETS[preset].preset == preset
    for experiment in EXPERIMENTS.values():
        config = dataclasses.replace(PRESETS[preset], experiment=experiment)
        check(config)
        make_specs(config, images_like(preset))


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_has_a_milestone_that_is_never_reached(preset):
    for name in ("sup", "scl", "head", "finetune"):
        stage = getattr(PRESETS[preset], name)
        assert all(epoch < stage.epochs for epoch in stage.learning_rate.milestone_epochs)


@pytest.mark.parametrize(
    ("assignment", "read"),
    [
        ("optim.momentum=0.8", lambda c: c.optim.momentum == 0.8),
        ("compute_dtype=bfloat16", lambda c: c.compute_dtype == "bfloat16"),
        ("scl.epochs=3", lambda c: c.scl.epochs == 3),
        ("sup.nesterov=true", lambda c: c.sup.nesterov is True),
        ("data.train_examples=none", lambda c: c.data.train_examples is None),
        ("data.train_examples=512", lambda c: c.data.train_examples == 512),
        ("data.name=123", lambda c: c.data.name == "123"),
        (
            "sup.learning_rate.milestone_epochs=1,2",
            lambda c: c.sup.learning_rate.milestone_epochs == (1, 2),
        ),
        (
            "sup.learning_rate.milestone_epochs=",
            lambda c: c.sup.learning_rate.milestone_epochs == (),
        ),
        (
            "scl_augment.resized_crop_scale=0.3,1",
            lambda c: c.scl_augment.resized_crop_scale == (0.3, 1.0),
        ),
        ("prune.head=500,10000,250", lambda c: c.prune.head == Schedule(500, 10000, 250)),
        ("experiment.prune_head=false", lambda c: c.experiment.prune_head is False),
        ("prune.scl.begin_step=7", lambda c: c.prune.scl.begin_step == 7),
        ("execution.models_per_program=4", lambda c: c.execution.models_per_program == 4),
        # Its name in version 0.1.0.
        ("population.models_per_program=4", lambda c: c.execution.models_per_program == 4),
    ],
)
def test_any_field_can_be_overridden(assignment, read):
    assert read(override(Config(), [assignment]))


def test_another_data_set_takes_the_statistics_of_the_old_one_away():
    config = override(Config(), ["data.name=mine.npz"])
    assert (config.data.mean, config.data.std) == (None, None)
    kept = override(Config(), ["data.name=cifar10"])
    assert kept.data == Config().data
    given_too = override(Config(), ["data.mean=0.5", "data.std=0.2", "data.name=mine.npz"])
    assert (given_too.data.mean, given_too.data.std) == ((0.5,), (0.2,))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.momentun=0.8", "did you mean 'momentum'"),
        ("momentum=0.8", "There are: preset"),
        ("optim.momentum", "expected FIELD=VALUE"),
        ("optim.momentum=high", "takes a finite number, not 'high'"),
        ("optim.momentum=NaN", "takes a finite number"),
        ("optim.momentum=1.5", "optim.momentum is 1.5; it must be at most 1"),
        ("models=2.5", "takes a whole number"),
        ("models=0", "models is 0; it must be above 0"),
        ("seed=-1", "seed is -1; it must be at least 0"),
        ("sup.nesterov=1", "takes true or false"),
        ("compute_dtype=float16", "takes one of float32, bfloat16"),
        ("optim=0.8", "is a group of fields; set one of them: momentum"),
        (
            "prune.head=500,10000",
            "takes all its fields at once: begin_step, end_step, every_steps",
        ),
        ("prune.head=500,10000,often", "'head.every_steps' takes a whole number, not 'often'"),
        ("models.x=1", "'models' is 30 and has no field 'x'"),
        ("scl_augment.resized_crop_scale=0.3", "takes 2 values"),
        ("scl_augment.jitter=0.4,0.4,-0.1,0.1", "jitter.2 is -0.1; it must be at least 0"),
        ("sup.learning_rate.milestone_epochs=5,-1", "milestone_epochs.1 is -1"),
        ("sup.learning_rate.milestone_epochs=5,300", "epoch 300 is never reached"),
        ("sup.learning_rate.milestone_epochs=205", "epoch 205 is never reached"),
        ("sup.learning_rate.initial=-0.1", "sup.learning_rate.initial is -0.1"),
        ("scl.batch_size=0", "scl.batch_size is 0"),
        ("prune.scl.every_steps=0", "prune.scl.every_steps is 0"),
        ("supcon.temperature=0", "supcon.temperature is 0"),
        ("sparsities=1.0", "sparsities.0 is 1.0; it must be below 1"),
        ("sparsities=0.5,-0.1", "sparsities.1 is -0.1"),
        ("", "expected FIELD=VALUE"),
    ],
)
def test_an_override_that_cannot_be_is_refused_in_one_line(assignment, message):
    with pytest.raises(UserError) as refused:
        override(Config(), [assignment])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_shortening_a_stage_for_a_trial_needs_no_second_flag():
    assert override(Config(), ["sup.epochs=2"]).sup.epochs == 2


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["sparsities=0.5,0.5"], "none twice"),
        (["sparsities=0.9,0.900000001"], "none twice"),
        (["sparsities="], "at least one"),
        (["model.depth=12"], "6n+4"),
        (["model.name=wide_resnett"], "did you mean 'wide_resnet'"),
        (["prune.scl.end_step=125"], "begin_step < end_step"),
        (["data.mean=0.5"], "one value per channel"),
        (["data.std=none"], "give both, or neither"),
        (["scl_augment.resized_crop_scale=0.9,0.5"], "needs 0 < low <= high"),
        (["seed=2147483640"], "seeds must lie in [0, 2**31)"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(assignments, message):
    start = dataclasses.replace(Config(), experiment=EXPERIMENTS["scl_gmp"])
    with pytest.raises(UserError) as refused:
        check(override(start, assignments))
    assert message in str(refused.value)


def test_a_schedule_without_any_update_is_refused():
    """Between steps 130 and 180 there is no multiple of 200."""
    start = dataclasses.replace(Config(), experiment=EXPERIMENTS["scl_gmp"])
    schedule = ["prune.scl.begin_step=130", "prune.scl.end_step=180", "prune.scl.every_steps=200"]
    check(override(start, schedule))
    with pytest.raises(UserError, match="no multiple of 200 lies in it"):
        check(override(start, [*schedule, "prune.at_multiples=true"]))


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["scl.epochs=1"], "beyond stage 'scl', which has 49 steps"),
        (["data.mean=0.5", "data.std=0.5"], "have 3 channels"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused(assignments, message):
    start = dataclasses.replace(Config(), experiment=EXPERIMENTS["scl_gmp"])
    with pytest.raises(UserError, match=message):
        make_specs(override(start, assignments), images_like("cifar10"))


@pytest.mark.parametrize("channels", [1, 4])
def test_colour_augmentation_of_images_without_colour_is_refused(channels):
    values = ",".join(["0.5"] * channels)
    config = override(Config(), [f"data.mean={values}", f"data.std={values}"])
    with pytest.raises(UserError, match="no colour to change"):
        validate(config, channels)


@given(
    models=st.integers(1, 99),
    sparsities=st.lists(st.floats(0, 0.99), min_size=1, unique=True).map(tuple),
    momentum=st.floats(0, 1),
    examples=st.none() | st.integers(1, 10**6),
    pruning=st.none() | st.builds(Pruning, st.none() | st.text(), st.text(), st.text()),
)
def test_json_round_trip_is_exact(models, sparsities, momentum, examples, pruning):
    config = dataclasses.replace(
        Config(),
        models=models,
        sparsities=sparsities,
        experiment=Experiment("x", pruning=pruning),
        optim=dataclasses.replace(Config().optim, momentum=momentum),
        data=dataclasses.replace(Config().data, train_examples=examples),
    )
    assert from_json(to_json(config), "here") == config


def test_a_field_that_was_added_since_has_its_default():
    fields = json.loads(to_json(Config()))
    del fields["model"]["name"]
    del fields["appearance"]
    assert from_json(json.dumps(fields), "here") == Config()


def changed(change):
    fields = json.loads(to_json(Config()))
    change(fields)
    return json.dumps(fields)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        changed(lambda f: f["sup"].pop("epochs")),
        changed(lambda f: f.update(extra=1)),
        changed(lambda f: f.update(population={})),
        changed(lambda f: f.update(models="30")),
        changed(lambda f: f.update(models=True)),
        changed(lambda f: f["data"].update(mean=0.5)),
        changed(lambda f: f["optim"].update(momentum=float("nan"))),
        changed(lambda f: f.update(compute_dtype="float16")),
    ],
)
def test_another_files_json_is_refused_by_name(text):
    with pytest.raises(UserError, match=r"^some/config\.json: not a configuration") as refused:
        from_json(text, "some/config.json")
    assert "\n" not in str(refused.value)


def test_only_what_decides_results_makes_two_runs_differ():
    ours = Config()
    shown_otherwise = override(ours, ["log_every_steps=7", "measure.neighbors=3"])
    named = dataclasses.replace(ours.experiment, label="plain")
    shown_otherwise = dataclasses.replace(shown_otherwise, experiment=named)
    assert differences(ours, shown_otherwise) == []
    theirs = override(ours, ["optim.momentum=0.5", "seed=3"])
    assert differences(ours, theirs) == ["optim.momentum: 0.9, not 0.5", "seed: 0, not 3"]
    assert differences(ours, theirs, apart=("seed",)) == ["optim.momentum: 0.9, not 0.5"]


def test_a_directory_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(UserError, match="is this a run directory"):
        load_config(tmp_path)
