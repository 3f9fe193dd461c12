"""Saved, resumed and restored: bit for bit, and refused where that would be wrong."""

import dataclasses
import json
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import prunejax
from prunejax import data, runs
from prunejax.config import Pruning, UserError, differences, override
from prunejax.measures import evaluate
from prunejax.runs import checkpoint, directory
from prunejax.training import population
from prunejax.training.members import members_of


def run(config, dataset, workdir, stop_after=None):
    """Trains `config` in its run directory, resuming what is there; saves at every report.

    Stops after so many reports, if that is given. Returns the restored population.
    """
    run_dir = workdir / config.experiment.name
    config = override(config, ["checkpoint.every_steps=1"])
    reports = []

    def should_stop():
        return len(reports) == stop_after

    start = runs.begin(config, dataset, run_dir)
    runs.train(start, on_report=reports.append, should_stop=should_stop)
    return runs.load_population(run_dir)


def files(top):
    """The content of every file under a directory."""
    return {path: path.read_bytes() for path in top.rglob("*") if path.is_file()}


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


# ------------------------------------------------------------------------ saved and resumed


@pytest.mark.parametrize(("stop_after", "stopped_at"), [(1, 3), (2, 4), (4, 8), (5, 11)])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
    make_config, dataset, tmp_path, stop_after, stopped_at
):
    """Stopped within an epoch, at its end, at the border of two stages, and in the second stage."""
    config = make_config("scl_gmp")
    whole = run(config, dataset, tmp_path / "whole")
    parts = run(config, dataset, tmp_path / "parts", stop_after=stop_after)
    assert parts.step == stopped_at
    parts = run(config, dataset, tmp_path / "parts")
    assert parts.step == whole.step == 16
    assert_equal(parts.state, whole.state)


def test_a_checkpoint_is_not_overwritten_by_the_steps_after_it(make_config, dataset, tmp_path):
    """The step donates its buffers while an asynchronous save may still be reading them."""
    config = make_config("sup_gmp", log_every_steps=1)
    config = override(config, ["checkpoint.keep=8"])
    run(config, dataset, tmp_path)
    states = {}
    for progress in population.fit(config, members_of(config), dataset):
        states[progress.step] = progress.state

    run_dir = tmp_path / "sup_gmp"
    for step in range(8, 0, -1):
        newest = checkpoint.load_population(run_dir)
        assert_equal(newest.state, states[step])
        shutil.rmtree(run_dir / "checkpoints" / str(step))


def test_a_run_may_be_resumed_under_other_operational_settings(make_config, dataset, tmp_path):
    """How it is computed, saved, measured and shown is no part of what it is."""
    config = make_config("sup_gmp")
    run(config, dataset, tmp_path, stop_after=1)
    changes = ["execution.models_per_program=4", "log_every_steps=1", "measure.neighbors=7"]
    resumed = run(override(config, changes), dataset, tmp_path)
    assert resumed.step == resumed.total_steps
    assert resumed.config.execution.models_per_program == 4


def test_run_trains_to_the_end_resumes_and_then_does_nothing(make_config, dataset, tmp_path):
    config = make_config("scl_gmp")
    run(config, dataset, tmp_path, stop_after=2)
    outcome = prunejax.run(config, dataset, tmp_path / "scl_gmp")
    assert (outcome.step, outcome.total_steps, outcome.finished) == (16, 16, True)
    assert outcome.failed.tolist() == [False] * 4
    before = files(tmp_path)
    assert prunejax.run(config, dataset, str(tmp_path / "scl_gmp")).finished
    assert files(tmp_path) == before


def test_statistics_that_are_not_given_are_measured_and_kept(make_config, dataset, tmp_path):
    config = override(make_config("sup_dense"), ["data.mean=none", "data.std=none"])
    restored = run(config, dataset, tmp_path, stop_after=1)
    images = dataset.train_images / 255
    assert restored.config.data.mean == (round(images.mean(), 4),)
    assert restored.config.data.std == (round(images.std(), 4),)
    assert run(config, dataset, tmp_path).step == 8


# ------------------------------------------------------- a directory, and who may write there


@pytest.fixture(scope="module")
def trained(make_config, dataset, tmp_path_factory):
    """A work directory with a finished dense run."""
    workdir = tmp_path_factory.mktemp("runs")
    run(make_config("sup_dense"), dataset, workdir)
    return workdir


def test_provenance_tells_where_a_run_came_from(dataset, trained):
    provenance = json.loads((trained / "sup_dense" / "provenance.json").read_text())
    assert provenance["data_checksum"] == dataset.checksum
    session = provenance["sessions"][-1]
    assert session["versions"]["jax"] == jax.__version__
    assert session["device"]["platform"] == jax.devices()[0].platform
    assert {"started", "commit", "command"} <= session.keys()


def test_a_directory_of_another_run_is_refused_and_left_as_it_is(make_config, dataset, trained):
    before = files(trained)
    config = make_config("sup_dense")
    other_config = override(config, ["optim.momentum=0.8"])
    with pytest.raises(UserError, match=r"holds another run \(optim\.momentum: 0\.8, not 0\.9\)"):
        run(other_config, dataset, trained)
    labels = dataset.train_labels[::-1].copy()
    other_data = dataclasses.replace(dataset, train_labels=labels)
    with pytest.raises(UserError, match="data checksum"):
        run(config, other_data, trained)
    assert files(trained) == before


def test_a_disk_without_room_is_refused_before_anything_is_written(
    make_config, dataset, tmp_path, monkeypatch
):
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr(directory.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="MiB are free"):
        run(make_config("sup_dense"), dataset, tmp_path / "new")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------- restored


def test_a_population_is_restored_to_numpy_and_predicts(make_config, dataset, trained):
    restored = prunejax.load_population(trained / "sup_dense")
    config = make_config("sup_dense")
    assert differences(restored.config, config) == []
    assert restored.config.data == config.data
    assert restored.config.display.label == "Sup"
    assert restored.seeds.tolist() == [0, 1]
    assert restored.sparsities.tolist() == [0.0, 0.0]
    assert {type(leaf) for leaf in jax.tree.leaves(restored.state)} == {np.ndarray}

    predictions = restored.predict(dataset.test_images)
    representations = restored.representations(dataset.test_images)
    assert (predictions.shape, predictions.dtype) == ((2, 60), np.int32)
    assert (representations.shape, representations.dtype) == ((2, 60, 64), np.float32)
    head = restored.state.params["head"]["Dense_0"]
    logits = np.einsum("med,mdc->mec", representations, head["kernel"]) + head["bias"][:, None]
    assert (logits.argmax(-1) == predictions).mean() > 0.98


def test_a_contrastive_encoder_under_way_has_representations_but_no_predictions(
    make_config, dataset, tmp_path
):
    encoder = run(make_config("scl_dense"), dataset, tmp_path, stop_after=1)
    assert encoder.representations(dataset.test_images).shape == (2, 60, 64)
    with pytest.raises(UserError, match="no linear head at step 3"):
        encoder.predict(dataset.test_images)
    with pytest.raises(UserError, match="is at step 3 of 16"):
        evaluate(encoder, dataset, tmp_path)


# ---------------------------------------------------------------- parents of one-shot runs


def test_one_shot_takes_each_members_own_parent(make_config, dataset, trained):
    config = make_config("sup_one_shot")
    members = members_of(config)
    assert members.seeds.tolist() == [0, 1, 0, 1]
    dense = prunejax.load_population(trained / "sup_dense")
    expected = jax.tree.map(lambda leaf: leaf[[0, 1, 0, 1]], dense.state)
    start = checkpoint.load_parent(config, trained, members, dataset.checksum)
    assert_equal(start, expected)


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
        checkpoint.load_parent(config, trained, members_of(config), dataset.checksum)


def test_a_parent_that_is_missing_unfinished_or_of_other_data_is_refused(
    make_config, dataset, trained, tmp_path
):
    config = make_config("sup_one_shot")
    members = members_of(config)
    with pytest.raises(UserError, match="is missing; train it first: --experiment=sup_dense"):
        checkpoint.load_parent(config, tmp_path, members, dataset.checksum)
    with pytest.raises(UserError, match="data checksum"):
        checkpoint.load_parent(config, trained, members, "another")
    run(make_config("sup_dense"), dataset, tmp_path, stop_after=1)
    with pytest.raises(UserError, match="is at step 3 of 8"):
        checkpoint.load_parent(config, tmp_path, members, dataset.checksum)


# ------------------------------------------------------------------- of an older version


OLD_RUN = Path(__file__).with_name("version_0.2.0.tar.xz")
"""A run of version 0.2.0: one SCL model pruned by GMP to 90%, with that version's field names."""


def test_a_run_of_version_0_2_is_restored_to_the_same_arrays_and_predictions(tmp_path):
    with tarfile.open(OLD_RUN) as archive:
        archive.extractall(tmp_path, filter="data")
    restored = prunejax.load_population(tmp_path / "scl_gmp")
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(restored.state)]
    assert data.digest(*leaves) == "5bb7866bf3ad07a4"
    assert (restored.step, restored.total_steps) == (44, 44)
    experiment = restored.config.experiment
    assert experiment.dense_parent == "scl_dense"
    assert experiment.baseline == "sup_gmp"
    assert experiment.pruning == Pruning("scl")

    # As version 0.2.0 predicts.
    digits = data.load(restored.config.data)
    predictions = restored.predict(digits.test_images)
    first = [5, 9, 7, 0, 0, 4, 7, 4, 0, 0, 0, 7, 7, 0, 7, 7, 7, 0, 0, 7]
    assert predictions[0, :20].tolist() == first
