"""Methods: the stages of an experiment and what each minimises; and that all of them train."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from prunejax.config import Experiment, Pruning, UserError
from prunejax.methods import (
    METHODS,
    Method,
    cross_entropy,
    is_one_shot,
    objective_of,
    stage_settings,
    stages_of,
)
from prunejax.methods.entry import accuracy_of
from prunejax.methods.sup import CLASSIFICATION
from prunejax.training import population
from prunejax.training.members import members_of
from prunejax.training.spec import check, make_spec

BUILT_IN = list(METHODS)
DENSE, GRADUAL, ONE_SHOT = (
    None,
    Pruning(schedule="sup"),
    Pruning(schedule=None, allocation="global"),
)


@pytest.fixture
def add_method(monkeypatch):
    """`add_method(stages)`: the name of a method with these stages, for one test."""

    def add(stages):
        method = Method("added", "Added", "#000000", CLASSIFICATION, stages)
        METHODS.values()  # the room's own are there before
        monkeypatch.setitem(METHODS._entries, "added", method)
        return "added"

    return add


def config_of(make_config, method, pruning=DENSE):
    experiment = Experiment("own", method=method, pruning=pruning, dense_parent="dense")
    return dataclasses.replace(make_config("sup_dense"), experiment=experiment)


def test_the_papers_methods_and_simclr_are_built_in():
    methods = [METHODS[name] for name in ("cross_entropy", "supcon", "simclr")]
    assert [method.label for method in methods] == ["Sup", "SCL", "SimCLR"]
    assert len({method.colour for method in methods}) == 3


# ------------------------------------------------------------------- stages


@pytest.mark.parametrize(
    ("method", "stages"),
    [("cross_entropy", ("sup",)), ("supcon", ("scl", "head")), ("simclr", ("scl", "head"))],
)
def test_a_dense_or_gradually_pruned_experiment_has_the_stages_of_its_method(
    make_config, method, stages
):
    for pruning in (DENSE, GRADUAL):
        config = config_of(make_config, method, pruning)
        assert stages_of(config) == stages
        assert not is_one_shot(config.experiment)


@pytest.mark.parametrize("method", BUILT_IN)
def test_a_one_shot_experiment_is_fine_tuned_whatever_its_method(make_config, method):
    config = config_of(make_config, method, ONE_SHOT)
    assert is_one_shot(config.experiment)
    assert stages_of(config) == ("finetune",)
    assert objective_of(config, "finetune") is CLASSIFICATION


@pytest.mark.parametrize("method", BUILT_IN)
@pytest.mark.parametrize("pruning", [DENSE, GRADUAL])
def test_the_first_stage_is_the_methods_and_all_later_ones_classify(make_config, method, pruning):
    config = config_of(make_config, method, pruning)
    first, *later = stages_of(config)
    assert objective_of(config, first) is METHODS[method].objective
    for stage in later:
        assert objective_of(config, stage) is CLASSIFICATION


def test_classification_is_cross_entropy_of_one_view(make_config):
    assert CLASSIFICATION.make_loss(make_config("sup_dense")) is cross_entropy
    assert CLASSIFICATION.views == 1
    assert CLASSIFICATION.network == "head"
    assert CLASSIFICATION.augment == "sup_augment"
    assert CLASSIFICATION.collapsed_loss is None


def test_a_stage_has_the_settings_of_its_name(make_config):
    config = make_config("scl_dense")
    for name in ("sup", "scl", "head", "finetune"):
        assert stage_settings(config, name) is getattr(config, name)


def test_a_method_of_ones_own_has_the_stages_it_names(make_config, add_method):
    config = config_of(make_config, add_method(("sup", "finetune")))
    assert stages_of(config) == ("sup", "finetune")
    check(config)


# -------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (("sup", "suo"), r"'added' has a stage 'suo'; there are: sup, scl, head, finetune"),
        (("supcon",), r"has a stage 'supcon'"),  # a field, but of no stage
        (("sup", "head", "sup"), r"has the stages \('sup', 'head', 'sup'\).*none twice"),
        ((), r"has the stages \(\); it needs one"),
    ],
)
def test_a_method_with_an_unknown_or_repeated_stage_is_refused(
    make_config, add_method, stages, message
):
    config = config_of(make_config, add_method(stages))
    for refuse in (stages_of, check):
        with pytest.raises(UserError, match=message) as told:
            refuse(config)
        assert "\n" not in str(told.value)


def test_a_method_that_there_is_not_is_refused_with_the_nearest(make_config):
    config = config_of(make_config, "supcom")
    with pytest.raises(UserError, match=r"no method 'supcom'; did you mean 'supcon'\?"):
        check(config)


# ---------------------------------------------------------------- training


def test_accuracy_is_the_fraction_of_largest_logits_that_are_the_labels():
    logits = jnp.array([[3.0, 1, 2], [0, 5, 1], [1, 0, 0], [2, 2, 9]])
    assert accuracy_of(logits, np.array([0, 1, 2, 2])) == 0.75


@pytest.mark.parametrize("method", BUILT_IN)
def test_a_population_trains_by_every_method(make_config, dataset, method):
    """Two members, two steps a stage: the weights move, the losses are finite and their own."""
    config = config_of(make_config, method)
    changes = {}
    for name in stages_of(config):
        changes[name] = dataclasses.replace(getattr(config, name), epochs=1, batch_size=50)
    config = dataclasses.replace(config, **changes)
    members = members_of(config)
    first = make_spec(config, stages_of(config)[0], *dataset.shapes, 2)
    before = population.init(first, members).params["encoder"]

    ends = {now.stage: now for now in population.fit(config, members, dataset) if now.ends_stage}
    assert tuple(ends) == stages_of(config)
    last = ends[stages_of(config)[-1]]
    assert set(last.state.params) == {"encoder", "head"}
    assert 0 <= last.metrics["accuracy"].min() <= last.metrics["accuracy"].max() <= 1
    for end in ends.values():
        assert np.isfinite(end.metrics["loss"]).all()
        assert end.metrics["loss"][0] != end.metrics["loss"][1]
    moved = last.state.params["encoder"]["stem"]["kernel"] != before["stem"]["kernel"]
    assert moved.mean() > 0.9
