"""Configuration: overrides, the JSON round trip, and refusals that name the field."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.presets import PRESETS
from experiments.registry import EXPERIMENTS
from prunejax.config import Config, Schedule, UserError, from_json, load_config, override, to_json, validate


def test_the_defaults_are_the_papers_table_2():
    config = Config()
    assert (config.sup.epochs, config.sup.batch_size, config.sup.learning_rate.initial) == (205, 128, 1.0)
    assert (config.scl.epochs, config.scl.batch_size, config.scl.learning_rate.initial) == (500, 1024, 0.05)
    assert config.sup.weight_decay == config.scl.weight_decay == 5e-4
    assert config.prune.sup == Schedule(1000, 20000, 500)
    assert config.prune.scl == Schedule(125, 2476, 62)
    assert config.supcon.temperature == 0.5


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_named_after_themselves_and_valid(preset):
    assert PRESETS[preset].preset == preset
    train, channels = (1408, 1) if preset == "digits" else (50000, 3)
    train = PRESETS[preset].data.train_examples or train
    for experiment in EXPERIMENTS.values():
        validate(dataclasses.replace(PRESETS[preset], experiment=experiment), train, channels)


@pytest.mark.parametrize(
    ("assignment", "read"),
    [
        ("optim.momentum=0.8", lambda c: c.optim.momentum == 0.8),
        ("compute_dtype=bfloat16", lambda c: c.compute_dtype == "bfloat16"),
        ("scl.epochs=3", lambda c: c.scl.epochs == 3),
        ("sup.nesterov=true", lambda c: c.sup.nesterov is True),
        ("data.train_examples=none", lambda c: c.data.train_examples is None),
        ("data.train_examples=512", lambda c: c.data.train_examples == 512),
        ("sup.learning_rate.milestone_epochs=1,2", lambda c: c.sup.learning_rate.milestone_epochs == (1, 2)),
        ("sup.learning_rate.milestone_epochs=", lambda c: c.sup.learning_rate.milestone_epochs == ()),
        ("scl_augment.resized_crop_scale=0.3,1", lambda c: c.scl_augment.resized_crop_scale == (0.3, 1.0)),
        ("prune.head=500,10000,250", lambda c: c.prune.head == Schedule(500, 10000, 250)),
        ("experiment.prune_head=false", lambda c: c.experiment.prune_head is False),
        ("prune.scl.begin_step=7", lambda c: c.prune.scl.begin_step == 7),
        ("population.models_per_program=4", lambda c: c.population.models_per_program == 4),
    ],
)
def test_any_field_can_be_overridden(assignment, read):
    assert read(override(Config(), [assignment]))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.momentun=0.8", "did you mean 'momentum'"),
        ("momentum=0.8", "There are: preset"),
        ("optim.momentum", "expected FIELD=VALUE"),
        ("optim.momentum=high", "takes a finite number, not 'high'"),
        ("optim.momentum=NaN", "takes a finite number"),
        ("models=2.5", "takes a whole number"),
        ("sup.nesterov=1", "takes true or false"),
        ("compute_dtype=float16", "takes one of float32, bfloat16"),
        ("optim=0.8", "takes all its fields at once: momentum"),
        ("prune.head=500,10000", "takes all its fields at once: begin_step, end_step, every_steps"),
        ("prune.head=500,10000,often", "'head.every_steps' takes a whole number, not 'often'"),
        ("models.x=1", "'models' is 30 and has no field 'x'"),
        ("scl_augment.resized_crop_scale=0.3", "takes 2 values"),
        ("", "expected FIELD=VALUE"),
    ],
)
def test_a_misspelt_or_ill_typed_override_says_what_there_is(assignment, message):
    with pytest.raises(UserError) as refused:
        override(Config(), [assignment])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["sparsities=1.0"], "sparsity 1 is outside [0, 1)"),
        (["sparsities=-0.1"], "outside [0, 1)"),
        (["sparsities=0.5,0.5"], "none twice"),
        (["sparsities="], "at least one"),
        (["models=0"], "models is 0"),
        (["seed=-1"], "seed is -1"),
        (["model.depth=12"], "6n+4"),
        (["scl.batch_size=0"], "scl.batch_size is 0"),
        (["prune.scl.end_step=125"], "begin_step < end_step"),
        (["prune.scl.every_steps=0"], "every_steps > 0"),
        (["scl.epochs=1"], "beyond stage 'scl', which has 49 steps"),
        (["supcon.temperature=0"], "supcon.temperature is 0"),
        (["data.mean=0.5"], "one value per channel"),
        (["data.mean=0.5", "data.std=0.5"], "have 3 channels"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused_by_name(assignments, message):
    config = override(dataclasses.replace(Config(), experiment=EXPERIMENTS["scl_gmp"]), assignments)
    with pytest.raises(UserError) as refused:
        validate(config, 50000, 3)
    assert message in str(refused.value)


def test_colour_augmentation_of_gray_images_is_refused():
    config = override(Config(), ["data.mean=0.5", "data.std=0.5"])
    with pytest.raises(UserError, match="no colour"):
        validate(config, 50000, 1)


@given(
    models=st.integers(1, 99),
    sparsities=st.lists(st.floats(0, 0.99), min_size=1, unique=True).map(tuple),
    momentum=st.floats(0, 1),
    examples=st.none() | st.integers(1, 10**6),
)
def test_json_round_trip_is_exact(models, sparsities, momentum, examples):
    config = dataclasses.replace(
        Config(),
        models=models,
        sparsities=sparsities,
        optim=dataclasses.replace(Config().optim, momentum=momentum),
        data=dataclasses.replace(Config().data, train_examples=examples),
    )
    assert from_json(to_json(config), "here") == config


def corrupt(change):
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
        corrupt(lambda f: f.pop("models")),
        corrupt(lambda f: f.update(extra=1)),
        corrupt(lambda f: f.update(models="30")),
        corrupt(lambda f: f.update(models=True)),
        corrupt(lambda f: f["data"].update(mean=0.5)),
        corrupt(lambda f: f.update(compute_dtype="float16")),
    ],
)
def test_another_files_json_is_refused_by_name(text):
    with pytest.raises(UserError, match=r"^some/config\.json: not a configuration"):
        from_json(text, "some/config.json")


def test_a_directory_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(UserError, match="is this a run directory"):
        load_config(tmp_path)
