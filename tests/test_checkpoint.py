"""Saved, resumed and restored: bit for bit, and refused where that would be wrong."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import prunejax
from prunejax import checkpoint, evaluate, population, programs, rundir
from prunejax.config import UserError, override


def run(config, dataset, workdir, state=None, stop_after=None):
    """Trains `config` in its run directory, resuming what is there; saves at every report. Returns the last one."""
    run_dir, who = workdir / config.experiment.name, population.members(config)
    steps = population.stage_steps(config, len(dataset.train_labels))
    before = checkpoint.newest(run_dir) if rundir.check_run(run_dir, config, dataset) else None
    done, state = (before.step, before.state) if before else (0, state)
    shapes = programs.state_shapes(config, checkpoint.stage_of(steps, done), len(who), *dataset.shapes)
    with (
        rundir.open_run(run_dir, config, dataset, steps, shapes),
        checkpoint.open_manager(run_dir, config, done, before.damaged if before else ()) as manager,
    ):
        for count, now in enumerate(population.fit(config, who, dataset, state, done), 1):
            checkpoint.save(manager, config, now.step, now.state)
            if count == stop_after:
                break
    return checkpoint.load_population(run_dir)


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("stop_after", [1, 2, 4, 5])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(make_config, dataset, tmp_path, stop_after):
    """Stopped within an epoch, at its end, at the border of two stages, and in the second stage."""
    config = make_config("scl_gmp")
    whole = run(config, dataset, tmp_path / "whole")
    parts = run(config, dataset, tmp_path / "parts", stop_after=stop_after)
    assert parts.step == [3, 4, 7, 8, 11][stop_after - 1]
    parts = run(config, dataset, tmp_path / "parts")
    assert parts.step == whole.step == 16
    assert_equal(parts.state, whole.state)


def test_a_checkpoint_is_not_overwritten_by_the_steps_after_it(make_config, dataset, tmp_path):
    """The step donates its buffers while an asynchronous save may still be reading them."""
    config = dataclasses.replace(make_config("sup_gmp"), log_every_steps=1)
    config = override(config, ["checkpoint.keep=8"])
    who, states = population.members(config), {}
    run(config, dataset, tmp_path)
    for now in population.fit(config, who, dataset):
        states[now.step] = now.state
    checkpoints = tmp_path / "sup_gmp" / "checkpoints"
    for step in range(8, 0, -1):
        assert_equal(checkpoint.load_population(tmp_path / "sup_gmp").state, states[step])
        shutil.rmtree(checkpoints / str(step))


@pytest.fixture(scope="module")
def trained(make_config, dataset, tmp_path_factory):
    """A work directory with a finished dense run."""
    workdir = tmp_path_factory.mktemp("runs")
    run(make_config("sup_dense"), dataset, workdir)
    return workdir


def test_a_population_is_restored_to_numpy_and_predicts(make_config, dataset, trained):
    restored = prunejax.load_population(trained / "sup_dense")
    assert restored.config == make_config("sup_dense")
    assert (restored.seeds.tolist(), restored.sparsities.tolist()) == ([0, 1], [0.0, 0.0])
    assert {type(leaf) for leaf in jax.tree.leaves(restored.state)} == {np.ndarray}
    predictions, representations = (f(dataset.test_images) for f in (restored.predict, restored.representations))
    assert (predictions.shape, predictions.dtype) == ((2, 60), np.int32)
    assert (representations.shape, representations.dtype) == ((2, 60, 64), np.float32)
    head = restored.state.params["head"]["Dense_0"]
    logits = np.einsum("med,mdc->mec", representations, head["kernel"]) + head["bias"][:, None]
    assert (logits.argmax(-1) == predictions).mean() > 0.98


def test_a_contrastive_encoder_under_way_has_representations_but_no_predictions(make_config, dataset, tmp_path):
    encoder = run(make_config("scl_dense"), dataset, tmp_path, stop_after=1)
    assert encoder.representations(dataset.test_images).shape == (2, 60, 64)
    with pytest.raises(UserError, match="no linear head at step 3"):
        encoder.predict(dataset.test_images)
    with pytest.raises(UserError, match="stands at step 3 of 16"):
        evaluate.evaluate(encoder, dataset)


def test_one_shot_takes_each_members_own_parent(make_config, dataset, trained):
    config = make_config("sup_one_shot")
    who = population.members(config)
    dense = prunejax.load_population(trained / "sup_dense")
    start = checkpoint.load_parent(config, trained, who, dataset.checksum)
    assert who.seeds.tolist() == [0, 1, 0, 1]
    assert_equal(start, jax.tree.map(lambda leaf: leaf[[0, 1, 0, 1]], dense.state))


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["sup.epochs=5"], "sup.epochs: 5, not 2"),
        (["model.depth=16"], "model.depth: 16, not 10"),
        (["models=3"], r"no models of the seeds \[2\]"),
    ],
)
def test_a_parent_made_otherwise_is_refused(make_config, dataset, trained, assignments, message):
    config = override(make_config("sup_one_shot"), assignments)
    with pytest.raises(UserError, match=message):
        checkpoint.load_parent(config, trained, population.members(config), dataset.checksum)


def test_a_parent_that_is_missing_unfinished_or_of_other_data_is_refused(make_config, dataset, trained, tmp_path):
    config = make_config("sup_one_shot")
    who = population.members(config)
    with pytest.raises(UserError, match="is missing; train it first: --experiment=sup_dense"):
        checkpoint.load_parent(config, tmp_path, who, dataset.checksum)
    with pytest.raises(UserError, match="data checksum"):
        checkpoint.load_parent(config, trained, who, "another")
    run(make_config("sup_dense"), dataset, tmp_path, stop_after=1)
    with pytest.raises(UserError, match="stands at step 3 of 8"):
        checkpoint.load_parent(config, tmp_path, who, dataset.checksum)


def files(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_directory_of_another_run_is_refused_and_left_as_it_is(make_config, dataset, trained):
    before = files(trained)
    with pytest.raises(UserError, match=r"holds another run \(optim\.momentum: 0\.8, not 0\.9\)"):
        run(override(make_config("sup_dense"), ["optim.momentum=0.8"]), dataset, trained)
    labels = dataset.train_labels[::-1].copy()
    with pytest.raises(UserError, match="data checksum"):
        run(make_config("sup_dense"), dataclasses.replace(dataset, train_labels=labels), trained)
    assert files(trained) == before


def test_a_disk_without_room_is_refused_before_anything_is_written(make_config, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(rundir.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match="MiB are free"):
        run(make_config("sup_dense"), dataset, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_provenance_tells_where_a_run_came_from(dataset, trained):
    provenance = json.loads((trained / "sup_dense" / "provenance.json").read_text())
    assert provenance["data_checksum"] == dataset.checksum
    session = provenance["sessions"][-1]
    assert session["versions"]["jax"] == jax.__version__
    assert session["device"]["platform"] == jax.devices()[0].platform
    assert {"started", "commit", "command"} <= session.keys()
