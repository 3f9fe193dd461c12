"""Runs of some of the seeds, joined: as if they had been trained together."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from etils import epath
from report_studies import changed, make_study, save
from test_commands import call

from experiments.join import _staging
from prunejax.config import Config, UserError, load_config
from prunejax.measures import load_measures
from prunejax.measures.joined import join, read_part, write_joined
from prunejax.measures.store import file_of, note_failures
from prunejax.report.comparison import effect
from prunejax.report.resamples import Resamples
from prunejax.report.study import DenseAndPruned
from prunejax.runs.directory import check_run
from prunejax.runs.log import load_curves

LABELS = np.arange(12) % 3
SEEDS = 5


@pytest.fixture
def study():
    config = dataclasses.replace(Config(), models=SEEDS, sparsities=(0.5, 0.9))
    return make_study(LABELS, 3, SEEDS, config=config)


def of_seeds(run, seeds):
    """The part of a run with these seeds, as if it had been trained alone."""
    kept = np.isin(run.seeds, seeds)
    part = run._only(kept, np.ones(len(run.levels), bool))
    config = dataclasses.replace(run.config, seed=int(seeds[0]), models=len(seeds))
    return dataclasses.replace(part, config=config)


def save_parts(root, study, *parts, checksum="x"):
    """Work directories, each with the runs of some of the seeds."""
    found = []
    for number, seeds in enumerate(parts):
        for name, run in study.items():
            save(of_seeds(run, seeds), root / f"part_{number}" / name, checksum)
        found.append(root / f"part_{number}")
    return found


def joined_run(parts, name, target):
    write_joined(join([read_part(part / name) for part in parts]), target)
    return load_measures(target)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_joined_parts_are_the_whole(study, tmp_path, order):
    failed = np.zeros(2 * SEEDS, bool)
    failed[[1, 8]] = True
    study["scl_gmp"] = changed(study["scl_gmp"], failed=failed)
    parts = save_parts(tmp_path, study, [0, 1], [2], [3, 4])
    for name, whole in study.items():
        run = joined_run([parts[place] for place in order], name, tmp_path / "joined" / name)
        assert (run.config.seed, run.config.models) == (0, SEEDS)
        assert dataclasses.replace(run.config, measure=whole.config.measure) == whole.config
        for field in ("seeds", "sparsities", "failed", "labels"):
            np.testing.assert_array_equal(getattr(run, field), getattr(whole, field))
        assert set(run.arrays) == set(whole.arrays)
        for array, values in run.arrays.items():
            measured = whole.measured[array]
            np.testing.assert_array_equal(run.measured[array], measured)
            np.testing.assert_array_equal(values[measured], whole.arrays[array][measured])


def test_a_level_is_shown_by_the_lowest_seed_that_was_measured(study, tmp_path):
    parts = save_parts(tmp_path, {"sup_gmp": study["sup_gmp"]}, [0, 1], [2, 3, 4])
    other = changed(study["sup_gmp"], umap=study["sup_gmp"].arrays["umap"] + 1)
    measured = dict(study["sup_gmp"].measured) | {"umap": np.array([True, False])}
    first = dataclasses.replace(study["sup_gmp"], measured=measured)
    for part, run, seeds in zip(parts, (first, other), ([0, 1], [2, 3, 4]), strict=True):
        path = part / "sup_gmp"
        file_of(path, "umap").unlink()
        save(of_seeds(run, seeds), part / "again", "x")
        file_of(part / "again", "umap").rename(file_of(path, "umap"))
    found = joined_run(parts, "sup_gmp", tmp_path / "joined").arrays["umap"]
    np.testing.assert_array_equal(found[0], first.arrays["umap"][0])
    np.testing.assert_array_equal(found[1], other.arrays["umap"][1])


def test_curves_are_those_of_the_steps_that_all_parts_report(study, tmp_path):
    parts = save_parts(tmp_path, {"sup_gmp": study["sup_gmp"]}, [0, 1], [2, 3, 4])
    path = parts[1] / "sup_gmp" / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]))
    joined_run(parts, "sup_gmp", tmp_path / "joined")
    curves = load_curves(tmp_path / "joined", 2 * SEEDS)
    assert [line["step"] for line in curves] == [1, 2]
    # The first model of each part, and no other, had failed.
    assert np.flatnonzero(np.isnan(curves[1]["loss"])).tolist() == [0, 2]
    np.testing.assert_array_equal(np.delete(curves[1]["loss"], [0, 2]), 0.5)


def test_of_a_part_that_reports_more_often_the_means_by_steps_are_joined(study, tmp_path):
    parts = save_parts(tmp_path, {"sup_gmp": study["sup_gmp"]}, [0, 1], [2, 3, 4])
    seldom = {50: 6.0, 100: 5.0}
    often = {50: 6.0, 51: 0.0, 60: 5.0, 100: 1.0, 101: 9.0}
    for part, losses, models in zip(parts, (seldom, often), (4, 6), strict=True):
        lines = []
        for step, loss in losses.items():
            line = {"stage": "sup", "step": step, "loss": [loss] * models}
            # A metric that only one part has is that of no run.
            lines.append(json.dumps(line | ({} if losses is seldom else {"extra": [1.0] * models})))
        (part / "sup_gmp" / "metrics.jsonl").write_text("\n".join(lines))
    joined_run(parts, "sup_gmp", tmp_path / "joined")
    curves = load_curves(tmp_path / "joined", 2 * SEEDS)
    assert [(line["step"], *line) for line in curves] == [
        (50, "stage", "step", "loss"),
        (100, "stage", "step", "loss"),
    ]
    assert set(curves[0]["loss"]) == {6.0}
    assert set(curves[1]["loss"]) == {5.0, (1 * 0 + 9 * 5 + 40 * 1) / 50}


def test_provenance_has_the_sessions_of_all_parts(study, tmp_path):
    parts = save_parts(tmp_path, {"sup_gmp": study["sup_gmp"]}, [0, 1], [2, 3, 4])
    path = parts[1] / "sup_gmp" / "provenance.json"
    provenance = json.loads(path.read_text())
    provenance["sessions"] = [{"commit": "another"}]
    path.write_text(json.dumps(provenance))
    joined_run(parts, "sup_gmp", tmp_path / "joined")
    found = json.loads((tmp_path / "joined" / "provenance.json").read_text())
    assert [session["commit"] for session in found["sessions"]] == ["0123456789abcdef", "another"]


def replace_config(run_dir, **fields):
    config = dataclasses.replace(load_config(run_dir), **fields)
    (run_dir / "config.json").write_text(json.dumps(dataclasses.asdict(config)))


@pytest.mark.parametrize(
    ("seeds", "change", "told"),
    [
        (([0, 1], [1, 2]), None, "have seed 1"),
        (([0, 1], [0, 1]), None, "have seed 0"),
        (([0, 1], [3, 4]), None, "leave out the seeds from 2 to 2"),
        (([0, 1], [2]), {"compute_dtype": "bfloat16"}, "compute_dtype: bfloat16, not float32"),
    ],
)
def test_what_is_not_of_one_run_is_refused(study, tmp_path, seeds, change, told):
    parts = save_parts(tmp_path, {"sup_gmp": study["sup_gmp"]}, *seeds)
    if isinstance(change, dict):
        replace_config(parts[1] / "sup_gmp", **change)
    with pytest.raises(UserError, match=told):
        join([read_part(part / "sup_gmp") for part in parts])


def test_parts_of_other_data_are_refused(study, tmp_path):
    (first,) = save_parts(tmp_path / "first", {"sup_gmp": study["sup_gmp"]}, [0, 1])
    (second,) = save_parts(tmp_path / "second", {"sup_gmp": study["sup_gmp"]}, [2], checksum="y")
    with pytest.raises(UserError, match=r"differ \(data_checksum: y, not x\)"):
        join([read_part(part / "sup_gmp") for part in (first, second)])


def test_measures_of_other_data_are_refused(study, tmp_path):
    """Of runs that have the same checksum, and so claim to be of the same images."""
    run = study["sup_gmp"]
    (first,) = save_parts(tmp_path / "first", {"sup_gmp": run}, [0, 1])
    others = dataclasses.replace(run, labels=run.labels[::-1].copy())
    (second,) = save_parts(tmp_path / "second", {"sup_gmp": others}, [2])
    with pytest.raises(UserError, match="is of different data"):
        join([read_part(part / "sup_gmp") for part in (first, second)])


def tree(root):
    return sorted(str(path) for path in root.rglob("*"))


def test_the_command_joins_all_runs_or_none(study, tmp_path):
    names = ("sup_dense", "sup_gmp")
    parts = save_parts(tmp_path, {name: study[name] for name in names}, [0, 1], [2, 3, 4])
    target = tmp_path / "all"

    def run(*arguments):
        return call("join", f"--workdir={target}", *arguments)

    both = f"--parts={parts[0]},{parts[1]}"
    done = run(both)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{target / name}: 5 seeds from 0\n" for name in names)
    report = call("report", f"--workdir={target}")
    assert report.returncode == 0, report.stderr
    page = (target / "report" / "report.html").read_text()
    assert "n = 5 seeds a cell" in page

    before = tree(tmp_path)
    for arguments, told in (
        ([both], "is there already"),
        ([f"--parts={parts[0]}"], "name at least two"),
        ([], "name at least two"),
        ([f"--parts={parts[0]},{tmp_path / 'nothing'}"], "has no run sup_dense"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert told in done.stderr
        assert done.stderr.count("\n") == 1
        assert tree(tmp_path) == before
    for harmed, told in (
        (parts[1] / "sup_gmp" / "config.json", "has no run sup_gmp"),
        (file_of(parts[1] / "sup_gmp", "predictions"), "sup_gmp is not measured"),
    ):
        harmed.rename(tmp_path / "away")
        done = call("join", f"--workdir={tmp_path / 'other'}", both)
        (tmp_path / "away").rename(harmed)
        assert done.returncode == 2
        assert told in done.stderr
        assert tree(tmp_path) == before


@pytest.mark.parametrize("failing", [(1,), (0, 1)])
def test_a_measure_that_failed_in_every_part_is_noted_so(study, tmp_path, failing):
    parts = save_parts(tmp_path, {"sup_gmp": study["sup_gmp"]}, [0, 1], [2, 3, 4])
    for place in failing:
        file_of(parts[place] / "sup_gmp", "quality").unlink()
        note_failures(parts[place] / "sup_gmp", ["quality"], {"quality": "no memory"})
    run = joined_run(parts, "sup_gmp", tmp_path / "joined")
    if len(failing) == len(parts):
        assert run.failures["quality"] == "no memory"
    else:
        assert run.failures == {}
        assert run.measured["q"].tolist() == [True, True, False, False, False] * 2


@pytest.mark.parametrize("kept", [0, 1])
def test_a_measure_that_a_part_lacks_is_of_the_others_seeds(study, tmp_path, kept):
    whole = study["sup_gmp"]
    seeds = ([0, 1], [2, 3, 4])
    parts = save_parts(tmp_path, {"sup_gmp": whole}, *seeds)
    for measure in ("quality", "mean_quality", "umap"):
        file_of(parts[1 - kept] / "sup_gmp", measure).unlink()
    joined = join([read_part(part / "sup_gmp") for part in parts])
    assert joined.lacking == dict.fromkeys(("quality", "mean_quality", "umap"), seeds[1 - kept])
    write_joined(joined, tmp_path / "joined")
    run = load_measures(tmp_path / "joined")
    of_kept = np.isin(whole.seeds, seeds[kept])
    np.testing.assert_array_equal(run.measured["q"], of_kept)
    np.testing.assert_array_equal(run.values("q")[of_kept], whole.values("q")[of_kept])
    assert np.isnan(run.values("q")[~of_kept]).all()
    np.testing.assert_array_equal(run.values("umap"), whole.values("umap"))
    # A report compares by those that it was measured of.
    dense = study["sup_dense"].at(0.0)
    resamples = Resamples({"sup_dense": study["sup_dense"], "sup_gmp": run})
    found = effect("q", resamples, DenseAndPruned(dense, run.at(0.9)))
    pruned = whole.at(0.9)
    expected = dense.values("mean_q").mean() - pruned.values("mean_q")[of_kept[SEEDS:]].mean()
    assert found.value == pytest.approx(expected, abs=1e-6)
    assert found.models == len(seeds[kept])


def test_measures_of_other_models_are_refused(study, tmp_path):
    parts = save_parts(tmp_path, {"sup_gmp": study["sup_gmp"]}, [0, 1], [2, 3])
    stale = file_of(parts[0] / "sup_gmp", "quality")
    stale.write_bytes(file_of(parts[1] / "sup_gmp", "quality").read_bytes())
    with pytest.raises(UserError, match="is of other models or data than the run"):
        read_part(parts[0] / "sup_gmp")


def test_a_joined_run_has_no_models_to_measure(study, tmp_path):
    names = ("sup_dense", "sup_gmp")
    parts = save_parts(tmp_path, {name: study[name] for name in names}, [0, 1], [2, 3, 4])
    target = tmp_path / "all"
    for name in names:
        for part in parts:
            file_of(part / name, "calibration").unlink()
        joined_run(parts, name, target / name)
    done = call("report", f"--workdir={target}", "--measure")
    assert done.returncode == 0, done.stderr
    assert "sup_gmp: no models are here to measure; as before: calibration" in done.stdout
    assert done.stdout.count("no models are here") == len(names)


def test_a_joined_run_is_not_trained_over(study, dataset, tmp_path):
    run = {"sup_gmp": study["sup_gmp"]}
    parts = save_parts(tmp_path, run, [0, 1], [2, 3, 4], checksum=dataset.checksum)
    joined_run(parts, "sup_gmp", tmp_path / "joined")
    config = load_config(tmp_path / "joined")
    with pytest.raises(UserError, match="joined has measures but no checkpoints"):
        check_run(tmp_path / "joined", config, dataset)
    shutil.rmtree(tmp_path / "joined" / "measures")
    assert check_run(tmp_path / "joined", config, dataset)


def test_a_join_that_ends_early_leaves_nothing_in_the_way(tmp_path):
    workdir = epath.Path(tmp_path)
    (tmp_path / ".joining" / "of_a_killed_one").mkdir(parents=True)

    def write_one_and_fail():
        with _staging(workdir) as staging:
            (staging / "sup_dense").mkdir(parents=True)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_one_and_fail()
    assert tree(tmp_path) == []
    with _staging(workdir) as staging:
        for name in ("sup_dense", "sup_gmp"):
            (staging / name).mkdir(parents=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sup_dense", "sup_gmp"]
