"""Populations over eight devices: run by `test_devices.py` in a process that has so many."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from test_checkpoint import run
from test_train import COLLECTIVES, assert_close, fit, task_of, with_small_steps

import prunejax
from prunejax.config import Execution, UserError
from prunejax.methods import stages_of
from prunejax.training import devices, programs
from prunejax.training.members import members_of

PASSED = re.compile(rf"= (.*) (?:{'|'.join(COLLECTIVES)})(?:-start)?\(")
"""What a collective returns, in a compiled program."""


@pytest.fixture
def use_devices(monkeypatch):
    """`use_devices(count)` leaves so many of the eight."""
    whole = jax.devices()

    def use(count):
        monkeypatch.setattr(jax, "devices", lambda: whole[:count])

    return use


def slow(config, **execution):
    """`config` with small steps, computed in the way that `execution` says."""
    for stage in stages_of(config):
        config = with_small_steps(config, stage)
    return dataclasses.replace(config, execution=Execution(**execution))


def assert_same_result(ours, theirs):
    assert_close(ours.params, theirs.params, rtol=1e-3, atol=1e-5)
    assert_close(ours.batch_stats, theirs.batch_stats, rtol=1e-3, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, ours.masks, theirs.masks)


# -------------------------------------------------------------------------------- results


def test_five_models_on_four_devices_equal_one_device(make_config, dataset, use_devices):
    config = slow(make_config("sup_gmp", models=5, sparsities=(0.9,)))
    use_devices(4)
    split = fit(config, dataset)[-1]
    assert dict(split.plan.mesh.shape) == {"models": 4, "batch": 1}
    assert len(split.plan.chunks) == 2
    assert len(jax.tree.leaves(split.arrays)[0]) == 5
    use_devices(1)
    whole = fit(config, dataset)[-1]
    assert_close(split.metrics, whole.metrics, rtol=1e-4)
    assert {len(leaf) for leaf in jax.tree.leaves(split.state)} == {5}
    assert_same_result(split.state, whole.state)


@pytest.mark.parametrize("experiment", ["sup_gmp", "scl_gmp"])
def test_one_model_on_four_devices_equals_one_device(make_config, dataset, use_devices, experiment):
    """Each device has a quarter of the batch.

    Statistics, loss and gradients are nevertheless the whole batch's.
    """
    config = slow(make_config(experiment, models=1, sparsities=(0.9,)), devices_per_model=4)
    use_devices(4)
    split = fit(config, dataset)
    assert dict(split[-1].plan.mesh.shape) == {"models": 1, "batch": 4}
    use_devices(1)
    whole = fit(dataclasses.replace(config, execution=Execution()), dataset)
    for ours, theirs in zip(split, whole, strict=True):
        assert_close(ours.metrics, theirs.metrics, rtol=1e-4)
    assert_same_result(split[-1].state, whole[-1].state)


def test_written_on_eight_devices_it_is_resumed_on_three_and_on_one(
    make_config, dataset, tmp_path, use_devices
):
    config = slow(make_config("sup_gmp", models=5, sparsities=(0.9,)))
    whole = run(config, dataset, tmp_path / "whole")
    assert run(config, dataset, tmp_path / "parts", stop_after=1).step == 3
    use_devices(3)
    assert run(config, dataset, tmp_path / "parts", stop_after=1).step == 4
    use_devices(1)
    parts = run(config, dataset, tmp_path / "parts")
    assert parts.step == whole.step == 8
    assert {len(leaf) for leaf in jax.tree.leaves(parts.state)} == {5}
    assert_same_result(parts.state, whole.state)
    restored = prunejax.load_population(tmp_path / "whole" / "sup_gmp")
    assert {type(leaf) for leaf in jax.tree.leaves(restored.state)} == {np.ndarray}
    assert members_of(config).seeds.tolist() == restored.seeds.tolist()


# ------------------------------------------------------------- what passes between devices


def test_devices_that_share_a_batch_pass_statistics_embeddings_and_gradients_but_no_features(
    make_config, dataset
):
    config = make_config("scl_gmp", models=1, sparsities=(0.9,))
    spec = task_of(slow(config, devices_per_model=8), dataset, "scl")
    text = programs.make_programs(spec, dataset)(1, 32).as_text()
    sizes = []
    for returned in PASSED.findall(text):
        if "u8[" not in returned:  # but for the images themselves
            sizes += array_sizes(returned)

    assert len(sizes) > 20
    assert max(sizes) <= 3 * 3 * 64 * 64  # the largest kernel's gradient
    features = 64 * 8 * 8 * 16  # what the stem makes of both views
    assert sum(sizes) < features + 100_000  # all parameters, once


def array_sizes(returned):
    """The number of elements of each array, for instance of `(f32[3,3,16], f32[])`."""
    sizes = []
    for shape in re.findall(r"\[([\d,]*)\]", returned):
        lengths = [int(length) for length in shape.split(",") if length]
        sizes.append(np.prod(lengths))
    return sizes


def test_the_step_over_eight_devices_passes_nothing(make_config, dataset):
    config = make_config("sup_gmp", models=8, sparsities=(0.9,))
    spec = task_of(config, dataset, "sup")
    text = programs.make_programs(spec, dataset)(8, 32).as_text()
    assert "num_partitions=8" in text
    assert not PASSED.search(text)


# ------------------------------------------------------------------- meshes and chunks


@pytest.mark.parametrize(
    ("models", "sharing", "expected"),
    [
        (1, None, (1, 1)),
        (3, None, (3, 1)),
        (9, None, (8, 1)),
        (1, 8, (1, 8)),
        (3, 2, (3, 2)),
        (5, 2, (4, 2)),
    ],
)
def test_the_mesh_follows_the_members(models, sharing, expected):
    mesh = devices.make_mesh(Execution(devices_per_model=sharing), models)
    assert (mesh.shape["models"], mesh.shape["batch"]) == expected


def test_devices_that_cannot_be_shared_evenly_are_refused():
    with pytest.raises(UserError, match="devices_per_model is 3, which does not divide 8 devices"):
        devices.make_mesh(Execution(devices_per_model=3), 1)


@pytest.mark.parametrize(
    ("count", "most", "rows"),
    [(5, 4, 4), (9, 4, 4), (8, 8, 4), (7, 2, 2), (1, 8, 1), (30, 8, 8)],
)
def test_chunks_hold_every_member_in_the_order_in_which_they_are_joined(count, most, rows):
    chunks = devices.chunk_rows(count, most, rows)
    assert {len(chunk) % rows for chunk in chunks} == {0}
    # A row of the mesh joins what it has of every chunk.
    joined = []
    for row in range(rows):
        for chunk in chunks:
            joined += chunk.reshape(rows, -1)[row].tolist()
    expected = np.minimum(np.arange(len(joined)), count - 1)
    np.testing.assert_array_equal(joined, expected)
