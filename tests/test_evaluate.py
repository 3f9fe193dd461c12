"""The measures of a population against loops over its models, and what a damaged `measures.npz` answers."""

import contextlib
import dataclasses
import json

import jax
import numpy as np
import pytest

from prunejax import evaluate, metrics, population
from prunejax.checkpoint import Population
from prunejax.config import Measure, UserError
from prunejax.neighbors import knn_predict, prediction_depth

SETTINGS = Measure(probe_models=2, neighbors=5)


@pytest.fixture(scope="module")
def trained(dataset, make_config):
    """Three untrained seeds at two sparsities, as if trained: model 4 diverged, model 5 represents all images by 0."""
    config = make_config("sup_gmp", models=3)
    who = population.members(config)
    state = jax.device_get(population.init(config, "sup", who, dataset))
    for norm in ("scale", "bias"):
        state.params["encoder"]["final_norm"][norm] = state.params["encoder"]["final_norm"][norm].copy()
    state = dataclasses.replace(state, frozen_at=np.array([-1, -1, -1, -1, 3, -1], np.int32))
    state.params["encoder"]["final_norm"]["scale"][5] = 0
    names = (dataset.class_names, dataset.checksum)
    return Population(config, who.seeds, who.sparsities, state, 8, 8, *names)


@pytest.fixture(scope="module")
def measures(trained, dataset):
    return evaluate.evaluate(trained, dataset, SETTINGS)


def test_predictions_and_q_scores_are_those_of_the_restored_population(trained, dataset, measures):
    np.testing.assert_array_equal(measures.predictions[:4], trained.predict(dataset.test_images)[:4])
    for ours, expected in zip(
        (measures.q, measures.z, measures.l1),
        metrics.q_score(trained.representations(dataset.test_images)),
        strict=True,
    ):
        np.testing.assert_allclose(ours[:4], expected[:4], rtol=1e-5)
    assert not np.any([measures.q[5], measures.z[5], measures.l1[5]])


def test_prediction_depth_is_that_of_probes_fitted_layer_by_layer(trained, dataset, measures):
    apply = jax.jit(population.train.make_apply(trained.config))
    one = jax.tree.map(lambda leaf: leaf[1], trained.state)
    _, _, fit = apply(one, dataset.train_images)
    _, _, test = apply(one, dataset.test_images)
    votes = [knn_predict(f, dataset.train_labels, t, 5) for f, t in zip(fit, test, strict=True)]
    np.testing.assert_array_equal(measures.depth[1], prediction_depth(np.stack(votes), dataset.test_labels))


def test_the_target_of_depth_can_be_the_models_own_prediction(trained, dataset, measures):
    own = evaluate.evaluate(trained, dataset, dataclasses.replace(SETTINGS, depth_target="prediction"))
    assert (own.depth[0] != measures.depth[0]).any()
    last = len(jax.eval_shape(population.train.make_apply(trained.config), *_one(trained, dataset))[2])
    assert own.depth.max() <= last


def _one(trained, dataset):
    return jax.tree.map(lambda leaf: leaf[0], trained.state), dataset.test_images


def test_only_the_asked_number_of_models_is_probed_and_none_that_diverged(measures):
    assert measures.depth.any(1).tolist() == [True, True, False, True, False, True]
    assert np.isfinite(measures.purity).tolist() == [True, True, False, True, False, True]
    assert measures.umap.shape == (2, 60, 2)
    assert np.isfinite(measures.umap).all()


def test_a_diverged_model_is_left_out_and_counted(measures):
    assert measures.levels == [0.5, 0.9]
    assert measures.at(0.9).seeds.tolist() == [0, 2]
    assert (measures.trained(0.9), len(measures.at(0.9).accuracy)) == (3, 2)
    assert measures.at(0.9).probed.seeds.tolist() == [0, 2]


def test_a_model_that_maps_all_images_to_zero_can_be_probed(trained, dataset):
    dead = jax.tree.map(lambda leaf: leaf[5:], trained.state)
    alone = dataclasses.replace(trained, state=dead, seeds=trained.seeds[5:], sparsities=trained.sparsities[5:])
    measures = evaluate.evaluate(alone, dataset, SETTINGS)
    assert not measures.q.any()
    assert np.isfinite(measures.umap).all()
    assert 0 <= measures.purity[0] <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Measure(neighbors=60), "have not that many neighbours"),
        (Measure(neighbors=5, depth_examples=4), "4 training and 60 test images have not that many"),
        (Measure(depth_examples=101), "measure.depth_examples is 101, but there are 100"),
    ],
)
def test_probes_that_the_data_cannot_fill_are_refused(trained, dataset, settings, message):
    with pytest.raises(UserError, match=message):
        evaluate.evaluate(trained, dataset, settings)


def test_other_data_and_unfinished_runs_are_refused(trained, dataset):
    with pytest.raises(UserError, match="checksum x; this is"):
        evaluate.evaluate(dataclasses.replace(trained, data_checksum="x"), dataset, SETTINGS)
    with pytest.raises(UserError, match="stands at step 7 of 8"):
        evaluate.evaluate(dataclasses.replace(trained, step=7), dataset, SETTINGS)


def test_saved_measures_are_read_back_the_same(measures, tmp_path):
    evaluate.save(measures, tmp_path / "measures.npz")
    again = evaluate.load(tmp_path / "measures.npz")
    for field in dataclasses.fields(measures):
        ours, theirs = getattr(measures, field.name), getattr(again, field.name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["measures.npz"]


def test_a_damaged_file_is_refused_by_name(measures, tmp_path):
    path = tmp_path / "measures.npz"
    evaluate.save(measures, path)
    whole, rng, survived = path.read_bytes(), np.random.default_rng(0), 0
    for number in range(600):
        damaged = bytearray(whole[: rng.integers(len(whole))] if number % 2 else whole)
        for _ in range(3 if number % 2 == 0 else 0):
            damaged[len(damaged) - rng.integers(1, 1500)] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):  # anything else fails the test
            evaluate.load(path)
            survived += 1
    assert survived < 60  # a flipped byte of no consequence, for instance a time stamp


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("q", np.zeros((6, 59), np.float32), "q is float32 .6, 59., which does not fit"),
        ("seeds", np.zeros(5, np.int32), "does not fit the other arrays"),
        ("umap", np.zeros((1, 60, 2), np.float32), "umap is float32 .1, 60, 2."),
        ("labels", np.zeros(60, np.float32), "labels is float32"),
        ("predictions", np.full((6, 60), 10, np.int32), "predictions holds values that cannot be"),
        ("sparsities", np.full(6, np.nan, np.float32), "which does not fit|values that cannot be"),
        ("settings", np.array("{}{"), "settings are not those of this version"),
        ("settings", np.array(json.dumps({"k": 3})), "settings are not those of this version"),
        ("class_names", np.array([object()] * 10), "Object arrays cannot be loaded"),
    ],
)
def test_wrong_arrays_are_refused_by_name_and_nothing_is_unpickled(measures, tmp_path, name, value, message):
    path = tmp_path / "measures.npz"
    np.savez(path, allow_pickle=True, **(dataclasses.asdict(measures) | {name: value}))
    with pytest.raises(UserError, match=message):
        evaluate.load(path)
