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
    Sweep,
    UserError,
    differences,
    expand,
    from_json,
    load_config,
    override,
    to_json,
    validate,
)
from prunejax.config.files import RENAMED
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
        ("population.models_per_program=4", "no field 'population'"),
        ("", "expected FIELD=VALUE"),
    ],
)
def test_an_override_that_cannot_be_is_refused_in_one_line(assignment, message):
    with pytest.raises(UserError) as refused:
        override(Config(), [assignment])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("old", RENAMED)
def test_an_override_by_the_old_name_of_a_field_is_refused_with_the_new_one(old):
    with pytest.raises(UserError) as refused:
        override(Config(), [f"{old}=3"])
    assert str(refused.value) == f"--set={old}=3: {old} is called {RENAMED[old]} now"


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
    pruning=st.none()
    | st.builds(
        Pruning,
        st.none() | st.text(),
        st.text(),
        st.text(),
        start=st.none() | st.integers(0, 10**6) | st.floats(0, 1, exclude_max=True),
    ),
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
    read = from_json(to_json(config), "here")
    assert read == config
    if pruning is not None:  # a step is one still, and a fraction one: 0 and 0.0 are equal
        assert type(read.experiment.pruning.start) is type(pruning.start)


def test_a_field_that_was_added_since_has_its_default():
    fields = json.loads(to_json(Config()))
    del fields["model"]["name"]
    del fields["display"]
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


PRUNED = Experiment("gmp", "supcon", Pruning("scl"), "scl_dense", "GMP", "sup_gmp")
OLD_NAMES = {
    "appearance": {
        "label": "SCL",
        "colour": "#D55E00",
        "architecture": "WideResNet-16-2",
        "first_stage_steps": 7,
    },
    "execution.fork": False,
    "experiment.against": "another",
    "experiment.dense": "another_dense",
    "experiment.pruning.select": "global",
    "experiment.pruning.spare": ["stem"],
}
"""Fields as version 0.2.0 named them, with values that are not the defaults."""


def group_of(fields, path):
    """The group that the last name of a path is in, and that name."""
    *groups, name = path.split(".")
    for group in groups:
        fields = fields[group]
    return fields, name


def rename(fields, old):
    """As version 0.2.0 wrote one of the fields."""
    group, name = group_of(fields, RENAMED[old])
    del group[name]
    group, name = group_of(fields, old)
    group[name] = OLD_NAMES[old]


@pytest.mark.parametrize("old", RENAMED)
def test_a_field_by_its_old_name_is_read_as_the_new_one(old):
    start = dataclasses.replace(Config(), experiment=PRUNED)
    written = json.loads(to_json(start))
    rename(written, old)
    expected = json.loads(to_json(start))
    group, name = group_of(expected, RENAMED[old])
    assert group[name] != OLD_NAMES[old]
    group[name] = OLD_NAMES[old]
    read = from_json(json.dumps(written), "here")
    assert read == from_json(json.dumps(expected), "here")
    assert json.loads(to_json(read)) == expected


@pytest.mark.parametrize("pruning", [Pruning("scl"), None])
def test_a_whole_file_of_old_names_is_read(pruning):
    """With no begins of pruning, which every file of that version that is read has."""
    start = dataclasses.replace(Config(), experiment=dataclasses.replace(PRUNED, pruning=pruning))
    fields = json.loads(to_json(start))
    for old in OLD_NAMES:
        if pruning or not old.startswith("experiment.pruning"):
            rename(fields, old)
    if pruning:
        fields["experiment"]["pruning"]["begins"] = []
    read = from_json(json.dumps(fields), "here")
    assert read.display.label == "SCL"
    assert read.display.first_stage_steps == 7
    assert read.execution.warm_start is False
    assert (read.experiment.baseline, read.experiment.dense_parent) == ("another", "another_dense")
    assert read.experiment.pruning == (pruning and Pruning("scl", "magnitude", "global", ("stem",)))


def test_an_old_name_of_a_wrong_value_is_refused_by_its_new_one():
    text = changed(lambda f: rename(f, "appearance") or f["appearance"].update(label=3))
    with pytest.raises(UserError, match=r"'display\.label' takes text, not 3"):
        from_json(text, "here")


def test_a_run_with_several_starts_of_pruning_is_refused_with_the_version_that_reads_it():
    fields = json.loads(to_json(dataclasses.replace(Config(), experiment=PRUNED)))
    fields["experiment"]["pruning"]["begins"] = [0, 0.5]
    with pytest.raises(UserError) as refused:
        from_json(json.dumps(fields), "some/config.json")
    message = str(refused.value)
    assert message.startswith("some/config.json: a population of several start steps")
    assert "pruning.begins" in message
    assert "prunejax 0.2.0 reads" in message
    assert "\n" not in message


@pytest.mark.parametrize("population", [{}, {"models_per_program": 4}, None])
def test_a_run_of_format_3_is_refused_with_the_version_that_reads_it(population):
    text = changed(lambda f: f.update(population=population))
    with pytest.raises(UserError) as refused:
        from_json(text, "some/config.json")
    message = str(refused.value)
    assert message.startswith("some/config.json: a run of version 0.1.0 (format 3)")
    assert "prunejax 0.2.0 reads it" in message
    assert "\n" not in message


# -------------------------------------------------------------- start steps of pruning


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (-1, "must be at least 0"),
        (1.0, "pruning.start"),
        (1.5, "pruning.start"),
        (True, "not True"),
    ],
)
def test_a_start_that_is_neither_a_step_nor_a_fraction_is_refused(start, message):
    fields = json.loads(to_json(dataclasses.replace(Config(), experiment=PRUNED)))
    fields["experiment"]["pruning"]["start"] = start
    with pytest.raises(UserError) as refused:
        from_json(json.dumps(fields), "here")
    assert "experiment.pruning.start" in str(refused.value)
    assert message in str(refused.value)


def pruned_from(start, schedule="scl"):
    pruning = Pruning(schedule, allocation="layerwise" if schedule else "global", start=start)
    return dataclasses.replace(Config(), experiment=dataclasses.replace(PRUNED, pruning=pruning))


def test_one_shot_pruning_has_no_start():
    validate(pruned_from(None, schedule=None))
    for start in (0, 0.5):
        with pytest.raises(UserError, match=rf"in one shot, and has a start step .* \({start}\)"):
            validate(pruned_from(start, schedule=None))


def test_a_start_before_the_first_step_is_refused():
    counted_from_1 = ["prune.count_from=1"]
    validate(pruned_from(0))
    validate(override(pruned_from(1), counted_from_1))
    validate(override(pruned_from(0.0), counted_from_1))
    with pytest.raises(UserError, match="start of pruning 0 is before the first step"):
        validate(override(pruned_from(0), counted_from_1))


SWEEP = Sweep(Experiment("when", pruning=Pruning("sup"), dense_parent="sup_dense"), (0, 0.25, 300))


def test_a_sweep_is_one_experiment_for_each_start_in_its_place():
    before, after = Experiment("sup_dense"), Experiment("last")
    first, *swept, last = expand([before, SWEEP, after])
    assert (first, last) == (before, after)
    assert [each.name for each in swept] == ["when_0", "when_0.25", "when_300"]
    assert [each.pruning.start for each in swept] == [0, 0.25, 300]
    assert [type(each.pruning.start) for each in swept] == [int, float, int]
    for each in swept:
        pruning = dataclasses.replace(each.pruning, start=None)
        assert dataclasses.replace(each, name="when", pruning=pruning) == SWEEP.experiment


def test_each_start_is_compared_with_the_same_start_of_a_swept_baseline():
    theirs = Experiment("other", pruning=Pruning("scl"), dense_parent="dense", baseline="when")
    swept = expand([Sweep(theirs, (0, 300, 7)), SWEEP])
    assert [each.baseline for each in swept[:3]] == ["when_0", "when_300", None]
    alone = dataclasses.replace(theirs, baseline="sup_gmp")
    assert [each.baseline for each in expand([Sweep(alone, (0, 7)), SWEEP])[:2]] == ["sup_gmp"] * 2


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (SWEEP._replace(starts=()), "start steps of pruning: none; give at least one"),
        (SWEEP._replace(starts=(3, 3)), "start steps of pruning: 3, 3; .* none twice"),
        (SWEEP._replace(starts=(0, 0.0)), "start steps of pruning: 0, 0.0; .* none twice"),
        (SWEEP._replace(starts=(0.5, 1.5)), r"experiment 'when_1\.5': .*pruning\.start"),
        (SWEEP._replace(starts=(-1,)), r"experiment 'when_-1': .*pruning\.start"),
        (Sweep(Experiment("dense"), (0,)), "'dense' has start steps of pruning and no schedule"),
        (
            Sweep(Experiment("shot", pruning=Pruning(None, allocation="global")), (0,)),
            "'shot' has start steps of pruning and no schedule",
        ),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(sweep, message):
    with pytest.raises(UserError, match=message) as refused:
        expand([sweep])
    assert "\n" not in str(refused.value)


# ------------------------------------------------------------------- runs of one study


def test_only_what_decides_results_makes_two_runs_differ():
    ours = Config()
    shown_otherwise = override(ours, ["log_every_steps=7", "measure.neighbors=3"])
    named = dataclasses.replace(ours.experiment, label="plain")
    shown_otherwise = dataclasses.replace(shown_otherwise, experiment=named)
    assert differences(ours, shown_otherwise) == []
    theirs = override(ours, ["optim.momentum=0.5", "seed=3"])
    assert differences(ours, theirs) == ["optim.momentum: 0.9, not 0.5", "seed: 0, not 3"]
    assert differences(ours, theirs, ignore=("seed",)) == ["optim.momentum: 0.9, not 0.5"]


def test_a_directory_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(UserError, match="is this a run directory"):
        load_config(tmp_path)
