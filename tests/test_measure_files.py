"""The files of a run's measures: read back the same, and refused by name."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest

from prunejax.config import MeasureSettings, UserError, to_json
from prunejax.measures import MEASURES, ArraySpec, Column, decisive_settings, load_measures
from prunejax.measures.record import BLANK, DTYPES, Record, Subject, shape_of
from prunejax.measures.results import RunMeasures
from prunejax.measures.store import file_of, read, write

BUILT_IN = ("calibration", "depth", "mean_quality", "predictions", "purity", "quality", "umap")
SETTINGS = MeasureSettings(neighbors=5, umap_seed=3)
PROBED = np.array([True, True, False, True, False, True])
"""Of three seeds at two sparsities, of which model 4 diverged, two each."""


def make_subject():
    rng = np.random.default_rng(0)
    return Subject(
        seeds=np.array([0, 1, 2] * 2, np.int32),
        sparsities=np.repeat(np.array([0.5, 0.9], np.float32), 3),
        failed=np.arange(6) == 4,
        labels=rng.integers(0, 10, 60).astype(np.int32),
        class_names=np.array([f"digit {label}" for label in range(10)]),
        data_checksum=np.array("0123456789abcdef"),
    )


def make_record(name, subject, settings=SETTINGS):
    """What a built-in measure might have found."""
    measure = MEASURES[name]
    rng = np.random.default_rng(len(name))
    rows = {"all": ~subject.failed, "probed": PROBED, "first": np.ones(2, bool)}
    measured = rows[measure.models]
    arrays = {}
    for array, spec in measure.arrays.items():
        shape = shape_of(spec, subject.sizes)
        found = rng.integers(1, 9, shape) if spec.kind == "i" else rng.random(shape)
        arrays[array] = found.astype(DTYPES[spec.kind])
        arrays[array][~measured] = BLANK[spec.kind]
    return Record(
        name=name,
        version=measure.version,
        settings=decisive_settings(measure, settings),
        specs=measure.arrays,
        columns=measure.columns,
        subject=subject,
        arrays=arrays,
        measured=measured,
    )


@pytest.fixture(scope="module")
def config(make_config):
    return make_config("sup_gmp", models=3)


@pytest.fixture
def run_dir(config, tmp_path):
    """A run's directory with all measures, though without a checkpoint."""
    directory = tmp_path / "sup_gmp"
    directory.mkdir()
    (directory / "config.json").write_text(to_json(config))
    for name in BUILT_IN:
        write(make_record(name, make_subject()), directory)
    return directory


def rewrite(path, **changes):
    """Writes a file again with other arrays; None takes one out."""
    with np.load(path) as archive:
        content = dict(archive)
    for name, value in changes.items():
        content.pop(name)
        if value is not None:
            content[name] = value
    np.savez(path, allow_pickle=True, **content)


# ----------------------------------------------------------------- written and read


def test_a_measure_is_read_back_the_same(run_dir):
    for name in BUILT_IN:
        written = make_record(name, make_subject())
        again = read(file_of(run_dir, name))
        assert (again.name, again.version) == (written.name, written.version)
        assert again.settings == written.settings
        assert again.specs == written.specs
        assert again.columns == written.columns
        np.testing.assert_array_equal(again.measured, written.measured)
        for array, values in written.arrays.items():
            assert again.arrays[array].dtype == values.dtype
            np.testing.assert_array_equal(again.arrays[array], values)
        for field in dataclasses.fields(Subject):
            ours = getattr(again.subject, field.name)
            theirs = getattr(written.subject, field.name)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
    assert {path.name for path in (run_dir / "measures").iterdir()} == {
        f"{name}.npz" for name in BUILT_IN
    }


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(127, np.int8), (128, np.int16), (2**15 - 1, np.int16), (2**15, np.int32)],
)
def test_integers_are_kept_in_as_few_bytes_as_hold_them(tmp_path, largest, dtype):
    record = make_record("depth", make_subject())
    depth = record.arrays["depth"].copy()
    depth[0, 0] = largest
    write(dataclasses.replace(record, arrays={"depth": depth}), tmp_path)
    with np.load(file_of(tmp_path, "depth")) as archive:
        assert archive["depth"].dtype == dtype
        assert archive["labels"].dtype == np.int8
    again = read(file_of(tmp_path, "depth"))
    assert again.arrays["depth"].dtype == np.int32
    np.testing.assert_array_equal(again.arrays["depth"], depth)


def test_all_measures_of_a_run_come_with_their_settings(run_dir, config):
    run = load_measures(run_dir)
    assert run.name == "sup_gmp"
    assert run.failures == {}
    assert run.config == dataclasses.replace(config, measure=SETTINGS)
    assert run.failed.tolist() == [False] * 4 + [True, False]
    assert run.class_names[3] == "digit 3"
    assert run.data_checksum == "0123456789abcdef"
    assert run.dims["umap"] == ("levels", "examples", 2)
    assert {column.array for column in run.columns} == {"ece", "depth", "purity", "mean_q"}
    np.testing.assert_array_equal(run.measured["depth"], PROBED)


def test_a_file_that_is_half_written_is_not_seen(run_dir):
    (run_dir / "measures" / ".other.123.npz").write_bytes(b"PK")
    assert load_measures(run_dir).failures == {}


def test_a_missing_measure_is_named_with_what_to_do(run_dir):
    file_of(run_dir, "depth").unlink()
    run = load_measures(run_dir)
    assert list(run.failures) == ["depth"]
    assert run.failures["depth"].endswith("depth.npz is missing; run experiments.evaluate first")
    assert not run.has("depth")
    assert run.has("purity")


def test_without_predictions_there_are_no_measures(run_dir):
    file_of(run_dir, "predictions").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"predictions\.npz cannot be read \(.*\); run "):
        load_measures(run_dir)
    file_of(run_dir, "predictions").unlink()
    with pytest.raises(UserError, match=r"predictions\.npz is missing; run experiments.evaluate"):
        load_measures(run_dir)


# ----------------------------------------------------------------------- damage


@pytest.mark.parametrize("name", ["predictions", "depth", "umap"])
def test_a_damaged_file_is_refused_by_name(run_dir, name):
    path = file_of(run_dir, name)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    survived = 0
    for number in range(300):
        damaged = bytearray(whole)
        if number % 2:
            damaged = damaged[: rng.integers(len(whole))]
        else:
            for _ in range(3):
                damaged[len(damaged) - rng.integers(1, 2500)] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):  # anything else fails the test
            read(path)
            survived += 1
    assert survived < 30  # a flipped byte of no consequence, for instance a time stamp


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "predictions"])
def test_damage_costs_only_the_measure_whose_file_it_is(run_dir, name):
    path = file_of(run_dir, name)
    path.write_bytes(path.read_bytes()[:-100])
    run = load_measures(run_dir)
    assert list(run.failures) == [name]
    assert str(path) in run.failures[name]
    assert "\n" not in run.failures[name]
    expected = {array for other in BUILT_IN if other != name for array in MEASURES[other].arrays}
    assert set(run.arrays) == expected


WRONG = [
    ("quality", "q", np.zeros((6, 59), np.float32), "q is float32 [6, 59], which does not fit"),
    ("quality", "q", np.zeros((6, 60), np.int32), "q is int32 [6, 60], which does not fit"),
    ("quality", "q", np.full((6, 60), -1, np.float32), "q holds values that cannot be"),
    ("quality", "z", None, "it lacks 'z'"),
    ("depth", "depth", np.zeros((6, 60), np.int32), "depth holds values that cannot be"),
    ("depth", "measured", np.ones(5, bool), "measured is bool [5], which does not fit"),
    ("depth", "measured", np.ones(6), "measured is float64 [6], which does not fit"),
    ("purity", "purity", np.full(6, 1.5, np.float32), "purity holds values that cannot be"),
    ("purity", "purity", np.full(6, np.nan, np.float32), "purity holds values that cannot be"),
    ("umap", "umap", np.zeros((1, 60, 2), np.float32), "umap is float32 [1, 60, 2]"),
    ("umap", "umap", np.zeros((2, 60, 3), np.float32), "umap is float32 [2, 60, 3]"),
    ("predictions", "predictions", np.full((6, 60), 10, np.int32), "predictions holds values"),
    ("predictions", "seeds", np.zeros(5, np.int32), "does not fit the other arrays"),
    ("predictions", "labels", np.zeros(60, np.float32), "labels is float32"),
    ("predictions", "labels", np.full(60, 10, np.int32), "labels holds values that cannot be"),
    ("predictions", "labels", np.zeros(0, np.int32), "there are no examples"),
    ("predictions", "sparsities", np.full(6, np.nan, np.float32), "sparsities holds values"),
    ("predictions", "sparsities", np.full(6, 1, np.float32), "sparsities holds values"),
    ("predictions", "failed", np.zeros(6, np.int32), "failed is int32"),
    ("predictions", "class_names", np.array([object()] * 10), "Object arrays cannot be loaded"),
    ("depth", "settings", np.array("{}{"), "settings are not those of this version"),
    ("depth", "settings", np.array(json.dumps({"k": 3})), "settings are not those of this version"),
    ("depth", "settings", np.array("[3]"), "settings are not those of this version"),
    ("depth", "settings", np.array(json.dumps({"neighbors": 0})), "measure.neighbors is 0"),
    ("depth", "spec", np.array("3"), "not subscriptable"),
    ("depth", "spec", np.array('{"arrays": {}, "columns": []}'), "its arrays differ"),
    ("depth", "spec", np.array('{"arrays": {"depth": {"kind": "i"}}}'), "it lacks 'dims'"),
    ("depth", "version", np.array("two"), "invalid literal"),
    ("depth", "version", np.array(2), "depth is of version 2, not 1"),
]


@pytest.mark.parametrize(("measure", "array", "value", "message"), WRONG)
def test_wrong_arrays_are_refused_by_name_and_nothing_is_unpickled(
    run_dir, measure, array, value, message
):
    path = file_of(run_dir, measure)
    rewrite(path, **{array: value})
    if measure == "predictions":
        with pytest.raises(UserError) as refused:
            load_measures(run_dir)
        told = str(refused.value)
    else:
        told = load_measures(run_dir).failures[measure]
    assert message in told
    assert str(path) in told
    assert "\n" not in told
    assert told.endswith("run experiments.evaluate again")


def test_an_array_instead_of_an_archive_is_refused(run_dir):
    with file_of(run_dir, "depth").open("wb") as file:
        np.save(file, np.zeros(3))
    assert "depth.npz cannot be read" in load_measures(run_dir).failures["depth"]


def test_a_measure_of_other_models_is_left_out(run_dir):
    others = dataclasses.replace(make_subject(), seeds=np.arange(6, dtype=np.int32))
    write(make_record("depth", others), run_dir)
    run = load_measures(run_dir)
    assert list(run.failures) == ["depth"]
    assert "is of other models or other data than the predictions" in run.failures["depth"]


def test_measures_that_were_made_with_different_settings_are_not_mixed(run_dir):
    other = dataclasses.replace(SETTINGS, neighbors=7)
    write(make_record("purity", make_subject(), other), run_dir)
    run = load_measures(run_dir)
    assert list(run.failures) == ["purity"]
    assert "was made with measure.neighbors=7, other measures with 5" in run.failures["purity"]
    assert run.config.measure.neighbors == 5


def test_a_measure_that_nobody_registered_is_read_by_its_file_alone(run_dir):
    record = dataclasses.replace(
        make_record("purity", make_subject()),
        name="mine",
        settings={},
        specs={"mine": ArraySpec("b", ("models", "classes"))},
        columns=(Column("mine", "Mine"),),
        arrays={"mine": np.ones((6, 10), bool)},
    )
    write(record, run_dir)
    run = load_measures(run_dir)
    assert run.failures == {}
    assert run.values("mine").all()
    assert run.columns[-1] == Column("mine", "Mine")
    # Two measures of one name of an array would hide each other.
    write(dataclasses.replace(record, name="other"), run_dir)
    assert "has an array 'mine' that another" in load_measures(run_dir).failures["other"]


# ------------------------------------------------------------------ what a report reads


@pytest.fixture
def run(run_dir):
    return load_measures(run_dir)


def test_the_models_of_one_level_come_without_those_that_failed(run):
    assert run.levels == [0.5, 0.9]
    cell = run.at(0.9)
    assert cell.levels == [0.9]
    assert cell.seeds.tolist() == [0, 2]
    assert run.trained(0.9) == 3
    assert cell.values("umap").shape == (1, 60, 2)
    np.testing.assert_array_equal(cell.values("umap")[0], run.values("umap")[1])
    np.testing.assert_array_equal(cell.values("depth"), run.values("depth")[[3, 5]])
    assert cell.only_measured("depth").seeds.tolist() == [0, 2]
    assert cell.only_measured("umap").seeds.tolist() == [0, 2]
    with pytest.raises(ValueError, match="not in list"):
        run.at(0.7)


def test_a_level_none_of_whose_models_is_left_still_has_its_row_of_levels(run):
    none = dataclasses.replace(run, failed=np.ones(6, bool)).at(0.5)
    assert none.levels == [0.5]
    assert len(none.accuracy) == 0
    assert none.values("umap").shape == (1, 60, 2)
    assert none.only_measured("depth") is None


def test_only_the_levels_of_measured_models_are_kept(run):
    measured = dict(run.measured)
    measured["depth"] = np.arange(6) < 2
    probed = dataclasses.replace(run, measured=measured).only_measured("depth")
    assert probed.levels == [0.5]
    assert probed.values("umap").shape == (1, 60, 2)
    measured["umap"] = np.array([False, True])
    embedded = dataclasses.replace(run, measured=measured).only_measured("umap")
    assert embedded.levels == [0.9]
    assert embedded.values("depth").shape == (3, 60)


def test_an_array_that_is_not_there_is_a_key_error(run):
    assert not run.has("nothing")
    assert run.only_measured("nothing") is None
    with pytest.raises(KeyError, match="nothing"):
        run.values("nothing")


def test_accuracy_modal_class_and_pies_are_those_of_the_predictions(config):
    def run_of(predictions):
        predictions = np.array(predictions, np.int32)
        models = len(predictions)
        return RunMeasures(
            config=config,
            seeds=np.arange(models, dtype=np.int32),
            sparsities=np.zeros(models, np.float32),
            failed=np.zeros(models, bool),
            labels=np.array([0, 1, 1, 0], np.int32),
            class_names=("a", "b"),
            data_checksum="x",
            arrays={"predictions": predictions},
            dims={"predictions": ("models", "examples")},
            measured={"predictions": np.ones(models, bool)},
        )

    dense = run_of([[0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    pruned = run_of([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 1, 0]])
    np.testing.assert_allclose(dense.accuracy, [1, 0.75, 0.75])
    assert dense.modal_class.tolist() == [0, 1, 1, 0]
    assert pruned.pies(dense).tolist() == [True, True, False, False]
