"""The measures of a population against loops over its models, and which of them are computed."""

import contextlib
import dataclasses
import gc
import json
import re
import weakref

import jax
import numpy as np
import pytest

from prunejax.config import MeasureSettings, UserError, to_json
from prunejax.measures import MEASURES, ArraySpec, Column, Measure, evaluate, load_measures, metrics
from prunejax.measures.calibration import expected_calibration_error
from prunejax.measures.evaluation import outdated
from prunejax.measures.neighbors import knn_predict, prediction_depth
from prunejax.measures.outputs import streamed
from prunejax.runs.restored import RestoredPopulation
from prunejax.training import population
from prunejax.training.inference import apply_in_batches, make_apply
from prunejax.training.members import members_of
from prunejax.training.spec import make_specs

SETTINGS = MeasureSettings(probe_models=2, neighbors=5)
BUILT_IN = ["calibration", "depth", "mean_quality", "predictions", "purity", "quality", "umap"]
CHEAP = ("calibration", "quality")
"""What is measured in tests that are not about the probes."""


@pytest.fixture(scope="module")
def trained(dataset, make_config):
    """Three untrained seeds at two sparsities, as if trained.

    Model 4 diverged, model 5 represents all images by 0.
    """
    config = make_config("sup_gmp", models=3)
    members = members_of(config)
    state = population.init(make_specs(config, dataset)["sup"], members)
    for norm in ("scale", "bias"):
        weights = state.params["encoder"]["final_norm"][norm].copy()
        weights[5] = 0
        state.params["encoder"]["final_norm"][norm] = weights
    state = dataclasses.replace(state, failed_at=np.array([-1, -1, -1, -1, 3, -1], np.int32))
    return RestoredPopulation(
        config=config,
        seeds=members.seeds,
        sparsities=members.sparsities,
        state=state,
        step=8,
        total_steps=8,
        class_names=dataset.class_names,
        data_checksum=dataset.checksum,
    )


def test_models_are_applied_on_all_devices(trained, dataset):
    """Also where they do not divide the devices; each as if it were alone."""
    assert jax.local_device_count() == 2
    images = dataset.test_images
    for count in (6, 3, 1):
        state = jax.tree.map(lambda leaf, count=count: leaf[:count], trained.state)
        (outputs,) = apply_in_batches(trained.config, state, images)
        assert outputs.logits.shape[:2] == (count, len(images))
        if count == 6:
            assert len(outputs.logits.sharding.device_set) == 2
        for row in range(count):
            one = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], trained.state)
            (alone,) = apply_in_batches(trained.config, one, images)
            np.testing.assert_allclose(
                outputs.representations[row], alone.representations[0], rtol=1e-5, atol=1e-6
            )


@pytest.fixture(scope="module")
def run_dir(trained, dataset, tmp_path_factory):
    """A run directory with all measures."""
    directory = tmp_path_factory.mktemp("runs") / "sup_gmp"
    directory.mkdir()
    (directory / "config.json").write_text(to_json(trained.config))
    evaluate(trained, dataset, directory, SETTINGS)
    return directory


@pytest.fixture(scope="module")
def measures(run_dir):
    return load_measures(run_dir)


@pytest.fixture
def registry(monkeypatch):
    """The registry of measures, as it is again after the test."""
    assert list(MEASURES) == BUILT_IN
    monkeypatch.setattr(MEASURES, "_entries", dict(MEASURES._entries))
    monkeypatch.setattr(MEASURES, "_added_in", dict(MEASURES._added_in))
    return MEASURES


@pytest.fixture
def calls(registry):
    """The names of the measures whose functions are called, in order, once for every model."""
    called = []
    for measure in registry.values():

        def function(outputs, context, measure=measure):
            called.append(measure.name)
            return measure.function(outputs, context)

        registry._entries[measure.name] = measure._replace(function=function)
    return called


def mean_logit(outputs, context):
    return {"mean_logit": outputs.logits.mean(1), "largest": outputs.logits.max()}


OUTSIDERS = Measure(
    name="logit",
    version=3,
    arrays={
        "mean_logit": ArraySpec("f", ("models", "examples")),
        "largest": ArraySpec("f", ("models",)),
    },
    function=mean_logit,
    settings=("umap_seed",),
    columns=(Column("largest", "Largest logit"),),
)


# ------------------------------------------------------------------ the numbers


def test_predictions_and_q_scores_are_those_of_the_restored_population(trained, dataset, measures):
    predictions = trained.predict(dataset.test_images)
    np.testing.assert_array_equal(measures.predictions[:4], predictions[:4])
    scores = metrics.q_score(trained.representations(dataset.test_images))
    for name, expected in zip(("q", "z", "l1"), scores, strict=True):
        ours = measures.values(name)
        np.testing.assert_allclose(ours[:4], expected[:4], rtol=1e-5)
        assert not ours[5].any()
    np.testing.assert_allclose(measures.values("mean_q"), measures.values("q").mean(1), rtol=1e-5)


def test_calibration_is_that_of_the_linear_heads_logits(trained, dataset, measures):
    apply = jax.jit(make_apply(trained.config))
    for row in (0, 3):
        _, logits, _ = apply(model(trained, row), dataset.test_images)
        expected = expected_calibration_error(logits, dataset.test_labels)
        np.testing.assert_allclose(measures.values("ece")[row], expected, rtol=1e-4)


def test_prediction_depth_is_that_of_probes_fitted_layer_by_layer(trained, dataset, measures):
    apply = jax.jit(make_apply(trained.config))
    _, _, fit = apply(model(trained, 1), dataset.train_images)
    _, _, test = apply(model(trained, 1), dataset.test_images)
    votes = []
    for fitted, tested in zip(fit, test, strict=True):
        votes.append(knn_predict(fitted, dataset.train_labels, tested, 5))
    expected = prediction_depth(np.stack(votes), dataset.test_labels)
    np.testing.assert_array_equal(measures.values("depth")[1], expected)


def model(trained, row):
    return jax.tree.map(lambda leaf: leaf[row], trained.state)


def test_the_target_of_depth_can_be_the_models_own_prediction(trained, dataset, measures, tmp_path):
    settings = dataclasses.replace(SETTINGS, depth_target="prediction")
    own = evaluate(trained, dataset, tmp_path, settings, measures=["depth"]).values("depth")
    assert (own[0] != measures.values("depth")[0]).any()
    shapes = jax.eval_shape(make_apply(trained.config), model(trained, 0), dataset.test_images)
    assert own.max() <= len(shapes[2])


def test_probes_can_be_fitted_on_a_part_of_the_training_images(trained, dataset, tmp_path):
    settings = dataclasses.replace(SETTINGS, depth_examples=20)
    fewer = evaluate(trained, dataset, tmp_path, settings, measures=["depth"])
    assert fewer.values("depth")[0].all()
    assert fewer.failures == {}


# ------------------------------------------------------------------- which models


def test_only_the_asked_number_of_models_is_probed_and_none_that_diverged(measures):
    probed = [True, True, False, True, False, True]
    for name in ("depth", "purity"):
        assert measures.measured[name].tolist() == probed
    assert measures.values("depth").any(1).tolist() == probed
    assert np.isfinite(measures.values("purity")).tolist() == probed
    assert measures.values("umap").shape == (2, 60, 2)
    assert np.isfinite(measures.values("umap")).all()


def test_a_diverged_model_is_left_out_and_counted(measures):
    assert measures.failed.tolist() == [False] * 4 + [True, False]
    assert np.isnan(measures.values("q")[4]).all()
    assert np.isnan(measures.values("ece")[4])
    assert not measures.predictions[4].any()
    assert measures.levels == [0.5, 0.9]
    assert measures.at(0.9).seeds.tolist() == [0, 2]
    assert measures.trained(0.9) == 3
    assert len(measures.at(0.9).accuracy) == 2
    assert measures.at(0.9).only_measured("depth").seeds.tolist() == [0, 2]


def test_what_failed_neither_votes_nor_has_an_accuracy(measures):
    """Its predictions are there as zeros."""
    gone = measures.failed
    assert gone.any()
    assert not gone.all()
    assert np.isnan(measures.accuracy).tolist() == gone.tolist()
    kept = measures.predictions[~gone]
    classes = len(measures.class_names)
    np.testing.assert_array_equal(measures.modal_class, metrics.modal_class(kept, classes))
    only = dataclasses.replace(measures, failed=~gone)
    expected = metrics.pruning_identified_exemplars(measures.predictions[gone], kept, classes)
    np.testing.assert_array_equal(measures.pies(only), expected)
    with pytest.raises(ValueError, match="no models to vote"):
        np.asarray(dataclasses.replace(measures, failed=gone | True).modal_class)


def test_a_model_whose_outputs_are_not_finite_is_left_out_as_if_it_had_diverged(
    trained, dataset, tmp_path
):
    state = jax.tree.map(np.copy, trained.state)
    state.params["encoder"]["final_norm"]["scale"][0, 3] = np.inf
    broken = dataclasses.replace(trained, state=state)
    found = evaluate(broken, dataset, tmp_path, SETTINGS)
    assert found.failures == {}
    assert found.failed.tolist() == [True] + [False] * 3 + [True, False]
    assert found.measured["depth"].tolist() == [False, True, True, True, False, True]
    assert np.isnan(found.values("ece")[0])


def test_a_model_that_maps_all_images_to_zero_can_be_probed(trained, dataset, tmp_path):
    alone = dataclasses.replace(
        trained,
        state=jax.tree.map(lambda leaf: leaf[5:], trained.state),
        seeds=trained.seeds[5:],
        sparsities=trained.sparsities[5:],
    )
    found = evaluate(alone, dataset, tmp_path, SETTINGS)
    assert not found.values("q").any()
    assert np.isfinite(found.values("umap")).all()
    assert 0 <= found.values("purity")[0] <= 1


def test_where_all_models_diverged_nothing_is_measured_and_nothing_fails(
    trained, dataset, tmp_path
):
    state = dataclasses.replace(trained.state, failed_at=np.zeros(6, np.int32))
    found = evaluate(dataclasses.replace(trained, state=state), dataset, tmp_path, SETTINGS)
    assert found.failures == {}
    for measured in found.measured.values():
        assert not measured.any()
    assert len(found.at(0.5).accuracy) == 0


# ------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("settings", "failures"),
    [
        (
            MeasureSettings(neighbors=60),
            {"purity": "measure.neighbors is 60; 60 test images have not that many neighbours"},
        ),
        (
            MeasureSettings(neighbors=5, depth_examples=4),
            {"depth": "measure.neighbors is 5; 4 training images have not that many neighbours"},
        ),
        (
            MeasureSettings(neighbors=5, depth_examples=101),
            {"depth": "measure.depth_examples is 101, but there are 100 training images"},
        ),
    ],
)
def test_probes_that_the_data_cannot_fill_fail_alone(
    trained, dataset, tmp_path, settings, failures
):
    found = evaluate(trained, dataset, tmp_path, settings, measures=["depth", "purity", "quality"])
    assert found.failures == failures
    (failed,) = failures
    (other,) = {"depth", "purity"} - {failed}
    assert found.has("q")
    assert found.has(other)
    assert not found.has(failed)
    written = {path.stem for path in (tmp_path / "measures").glob("*.npz")}
    assert written == {"predictions", "quality", other}


def test_other_data_unfinished_runs_and_unknown_measures_are_refused(trained, dataset, tmp_path):
    with pytest.raises(UserError, match="checksum x; this is"):
        evaluate(dataclasses.replace(trained, data_checksum="x"), dataset, tmp_path)
    with pytest.raises(UserError, match="is at step 7 of 8"):
        evaluate(dataclasses.replace(trained, step=7), dataset, tmp_path)
    with pytest.raises(UserError, match="did you mean 'depth'"):
        evaluate(trained, dataset, tmp_path, measures=["dept"])
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_that_is_one_line(trained, dataset, tmp_path):
    (tmp_path / "measures").write_text("a file, where there should be a directory")
    with pytest.raises(UserError, match=r"predictions\.npz: cannot write there"):
        evaluate(trained, dataset, tmp_path, measures=[])


# --------------------------------------------------- only what is missing or outdated


def test_what_is_there_is_not_measured_again(trained, dataset, run_dir, calls, measures):
    before = {path: path.read_bytes() for path in (run_dir / "measures").iterdir()}
    again = evaluate(trained, dataset, run_dir, SETTINGS)
    assert calls == []
    assert {path: path.read_bytes() for path in (run_dir / "measures").iterdir()} == before
    for name, array in again.arrays.items():
        np.testing.assert_array_equal(array, measures.values(name))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"umap_seed": 1}, {"umap": 2}),
        ({"neighbors": 4}, {"depth": 4, "purity": 4}),
        ({"probe_models": 1}, {"depth": 2, "purity": 2}),
        ({"depth_examples": 50}, {"depth": 4}),
        ({"depth_target": "prediction"}, {"depth": 4}),
    ],
)
def test_other_settings_make_only_those_measures_again_that_depend_on_them(
    trained, dataset, run_dir, calls, tmp_path, changes, expected
):
    copy = copy_of(run_dir, tmp_path)
    settings = dataclasses.replace(SETTINGS, **changes)
    evaluate(trained, dataset, copy, settings)
    assert {name: calls.count(name) for name in set(calls)} == expected
    assert load_measures(copy).config.measure == settings
    assert load_measures(copy).failures == {}


def copy_of(run_dir, tmp_path):
    copy = tmp_path / run_dir.name
    (copy / "measures").mkdir(parents=True)
    (copy / "config.json").write_bytes((run_dir / "config.json").read_bytes())
    for path in (run_dir / "measures").iterdir():
        (copy / "measures" / path.name).write_bytes(path.read_bytes())
    return copy


def test_a_missing_a_damaged_and_a_measure_of_another_version_are_made_again(
    trained, dataset, run_dir, calls, registry, tmp_path, measures
):
    copy = copy_of(run_dir, tmp_path)
    (copy / "measures" / "calibration.npz").unlink()
    (copy / "measures" / "purity.npz").write_bytes(b"PK")
    registry._entries["umap"] = registry["umap"]._replace(version=2)
    found = evaluate(trained, dataset, copy, SETTINGS)
    assert set(calls) == {"calibration", "purity", "umap"}
    assert found.failures == {}
    for name in ("ece", "purity", "umap"):
        np.testing.assert_array_equal(found.values(name), measures.values(name))


def test_measures_of_other_models_are_made_again(trained, dataset, run_dir, calls, tmp_path):
    copy = copy_of(run_dir, tmp_path)
    others = dataclasses.replace(trained, seeds=trained.seeds + 1)
    found = evaluate(others, dataset, copy, SETTINGS, measures=CHEAP)
    assert set(calls) == {"predictions", *CHEAP}
    assert found.seeds.tolist() == [1, 2, 3, 1, 2, 3]
    # What was not asked for is of the models before, and so does not go with these.
    assert set(found.failures) == {"depth", "mean_quality", "purity", "umap"}
    assert "of other models or other data" in found.failures["depth"]


def test_measures_of_other_data_are_made_again(trained, dataset, run_dir, calls, tmp_path):
    copy = copy_of(run_dir, tmp_path)
    other = dataclasses.replace(dataset, train_labels=dataset.train_labels[::-1].copy())
    on_other = dataclasses.replace(trained, data_checksum=other.checksum)
    evaluate(on_other, other, copy, SETTINGS, measures=CHEAP)
    assert set(calls) == {"predictions", *CHEAP}


def test_what_is_outdated_is_known_without_a_checkpoint(
    trained, dataset, run_dir, make_config, monkeypatch
):
    checksums = {"data_checksum": dataset.checksum}
    monkeypatch.setattr("prunejax.measures.evaluation.load_provenance", lambda run_dir: checksums)
    config = dataclasses.replace(trained.config, measure=SETTINGS)
    assert outdated(run_dir, config) == []
    other_seed = dataclasses.replace(SETTINGS, umap_seed=1)
    assert outdated(run_dir, dataclasses.replace(config, measure=other_seed)) == ["umap"]
    assert outdated(run_dir, dataclasses.replace(config, models=2)) == BUILT_IN
    checksums["data_checksum"] = "x"
    assert outdated(run_dir, config, CHEAP) == ["predictions", *CHEAP]


def test_an_interruption_keeps_the_measures_that_were_done(trained, dataset, registry, tmp_path):
    def interrupted(outputs, context):
        raise KeyboardInterrupt

    depth = registry["depth"]
    registry._entries["depth"] = depth._replace(function=interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(trained, dataset, tmp_path, SETTINGS)
    written = {path.stem for path in (tmp_path / "measures").glob("*.npz")}
    assert written == {"calibration", "mean_quality", "predictions", "quality", "umap"}


# ------------------------------------------------------------- an outsider's measure


def test_an_entry_is_measured_kept_and_read_where_nobody_knows_it(
    trained, dataset, run_dir, registry, tmp_path
):
    copy = copy_of(run_dir, tmp_path)
    registry.add(OUTSIDERS)
    found = evaluate(trained, dataset, copy, SETTINGS)
    assert (copy / "measures" / "logit.npz").exists()
    registry._entries.pop("logit")
    read = load_measures(copy)
    assert read.failures == {}
    for run in (found, read):
        assert run.dims["mean_logit"] == ("models", "examples")
        assert run.values("mean_logit").shape == (6, 60)
        assert run.values("largest").dtype == np.float32
        assert run.measured["largest"].tolist() == [True] * 4 + [False, True]
        assert np.isnan(run.values("largest")[4])
        assert Column("largest", "Largest logit") in run.columns
        assert run.at(0.9).values("mean_logit").shape == (2, 60)


def test_an_entry_of_all_models_may_read_their_probes(trained, dataset, registry, tmp_path):
    def function(outputs, context):
        assert len(outputs.train_probes) == len(outputs.probes)
        assert len(outputs.train_probes[0]) == len(context.train_labels)
        return {"width": np.int64(sum(probe.shape[1] for probe in outputs.probes))}

    registry.add(
        Measure("width", 1, {"width": ArraySpec("i", ("models",))}, function, frozenset({"probes"}))
    )
    found = evaluate(trained, dataset, tmp_path, SETTINGS, measures=["width"])
    assert found.failures == {}
    assert found.values("width")[0] > 0
    assert found.measured["width"].tolist() == [True] * 4 + [False, True]


def raises_value_error(outputs, context):
    raise ValueError("no\ngood")


def raises_its_own(outputs, context):
    class OddError(Exception):
        pass

    raise OddError


WRONG = {
    "raises": (raises_value_error, r"ValueError: no good \(test_measures\.py, line \d+\)"),
    "raises its own": (raises_its_own, r"OddError: +\(test_measures\.py, line \d+\)"),
    "refuses": (
        lambda outputs, context: MEASURES["nothing"],
        "no measure 'nothing'",
    ),
    "returns no dict": (lambda outputs, context: 3, "returns int, not a dict"),
    "returns other names": (
        lambda outputs, context: {"mean": 0.0},
        r"returns \['mean'\], not \['largest', 'mean_logit'\]",
    ),
    "returns another shape": (
        lambda outputs, context: {"mean_logit": outputs.logits, "largest": 0.0},
        r"returns mean_logit of float32 \[60, 10\], not float32 \[60\]",
    ),
    "returns another kind": (
        lambda outputs, context: {"mean_logit": outputs.logits.argmax(1), "largest": 0.0},
        r"returns mean_logit of int64 \[60\], not float32 \[60\]",
    ),
}


@pytest.mark.parametrize(("function", "message"), WRONG.values(), ids=WRONG)
def test_a_measure_that_goes_wrong_is_named_and_the_others_are_written(
    trained, dataset, registry, tmp_path, function, message
):
    registry.add(OUTSIDERS._replace(function=function))
    found = evaluate(trained, dataset, tmp_path, SETTINGS, measures=[*CHEAP, "logit"])
    assert list(found.failures) == ["logit"]
    assert re.search(message, found.failures["logit"])
    assert "\n" not in found.failures["logit"]
    assert found.has("ece")
    assert not found.has("mean_logit")
    written = {path.stem for path in (tmp_path / "measures").glob("*.npz")}
    assert written == {"predictions", *CHEAP}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "my logit"}, "its name is 'my logit'"),
        ({"settings": ("neighbours",)}, r"settings \['neighbours'\] are no fields"),
        ({"arrays": {"q": ArraySpec("f", ("models",))}}, "array 'q' is one of quality"),
        ({"arrays": {"labels": ArraySpec("f", ("models",))}}, "'labels' has a name that every"),
        ({"arrays": {"a": ArraySpec("f", ("levels",))}}, "first dimension of its array 'a' must"),
        ({"arrays": {"a": ArraySpec("f", ("models", "dim"))}}, "'a': dimension 'dim' is none of"),
        ({"arrays": {"a": ArraySpec("c", ("models",))}}, "'a': kind 'c' is none of"),
        ({"columns": (Column("b", "B"),)}, "its columns must be among them"),
    ],
)
def test_an_entry_that_cannot_be_kept_is_named_and_the_others_are_written(
    trained, dataset, registry, tmp_path, changes, message
):
    entry = OUTSIDERS._replace(columns=())._replace(**changes)
    registry.add(entry)
    found = evaluate(trained, dataset, tmp_path, SETTINGS, measures=[*CHEAP, entry.name])
    assert list(found.failures) == [entry.name]
    assert re.search(message, found.failures[entry.name])
    assert found.has("ece")


def test_values_beyond_an_entrys_bounds_are_refused(trained, dataset, registry, tmp_path):
    for name, value in (("low", -0.5), ("high", 1.5), ("nan", np.nan)):
        spec = ArraySpec("f", ("models",), low=0, high=1)
        registry.add(
            Measure(name, 1, {f"of_{name}": spec}, lambda _, __, n=name, v=value: {f"of_{n}": v})
        )
    found = evaluate(trained, dataset, tmp_path, SETTINGS, measures=["low", "high", "nan"])
    for name in ("low", "high", "nan"):
        assert f"of_{name} holds values that cannot be" in found.failures[name]


def test_a_failure_in_one_process_is_a_failure_in_all(trained, dataset, monkeypatch, tmp_path):
    def gather_texts(text):
        return [text, json.dumps({"quality": "ValueError: elsewhere"})]

    monkeypatch.setattr("prunejax.training.hosts.gather_texts", gather_texts)
    monkeypatch.setattr("prunejax.training.hosts.require_same", lambda what, text: None)
    found = evaluate(trained, dataset, tmp_path, SETTINGS, measures=CHEAP)
    assert found.failures == {"quality": "ValueError: elsewhere"}
    assert not found.has("q")
    assert found.has("ece")


def test_where_the_predictions_fail_there_are_no_measures(trained, dataset, registry, tmp_path):
    predictions = registry["predictions"]
    registry._entries["predictions"] = predictions._replace(function=raises_value_error)
    with pytest.raises(UserError, match="sup_gmp: no predictions: ValueError: no good"):
        evaluate(trained, dataset, tmp_path, SETTINGS, measures=CHEAP)


# ------------------------------------------------------------ memory and progress


def test_no_more_than_two_chunks_of_models_are_held(trained, dataset):
    execution = dataclasses.replace(trained.config.execution, models_per_program=2)
    config = dataclasses.replace(trained.config, execution=execution)
    in_twos = dataclasses.replace(trained, config=config)
    rows = np.arange(6)
    held = []
    for outputs in streamed(in_twos, rows, dataset, SETTINGS, lambda count: None):
        chunk = outputs.representations.base
        assert chunk.shape[0] == 2
        held.append(weakref.ref(chunk))
        del outputs, chunk
        gc.collect()
        alive = {id(reference()) for reference in held if reference() is not None}
        assert len(alive) <= 2
    assert len(held) == 6


def test_progress_counts_every_image_of_every_model_and_every_model_probed(
    trained, dataset, tmp_path
):
    seen = []

    @contextlib.contextmanager
    def track(unit, total):
        parts = []
        yield parts.append
        seen.append((unit, total, parts))

    evaluate(trained, dataset, tmp_path, SETTINGS, track)
    assert [(unit, total) for unit, total, _ in seen] == [
        ("images", 360),
        ("models", 2),
        ("models", 4),
    ]
    for _, total, parts in seen:
        assert sum(parts) == pytest.approx(total)
    # Each probe of a model counts, not only the model.
    assert len(seen[-1][2]) > 2 * 4


def test_a_progress_that_is_reported_twice_over_is_counted_once(
    trained, dataset, registry, tmp_path
):
    def function(outputs, context):
        context.progress(0.9)
        context.progress(0.9)
        return {"none": 0.0}

    registry.add(
        Measure("eager", 1, {"none": ArraySpec("f", ("models",))}, function, models="probed")
    )
    parts = []
    evaluate(
        trained,
        dataset,
        tmp_path,
        SETTINGS,
        lambda unit, total: contextlib.nullcontext(parts.append if unit == "models" else abs),
        ["eager"],
    )
    assert sum(parts) == pytest.approx(4)
