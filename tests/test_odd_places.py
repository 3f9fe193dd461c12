"""Where a run may be kept, and whose commit it is."""

import shutil
import subprocess
from unittest import mock

import jax
import numpy as np
import pytest
from test_checkpoint import assert_equal, files

from prunejax import runs
from prunejax.config import UserError
from prunejax.runs import checkpoint, log, manager, note, provenance
from prunejax.training import hosts
from prunejax.training.progress import Progress

ODD = [
    "lr[0.1]",
    "[!a]*?",
    "a*b?c",
    " spaces ",
    "-dash",
    "ünï ☃",
    "%20#x&y=1;z",
    "a|b:c",
    "tilde~",
    "new\nline",
    "q'\"u",
    "{a,b}",
    "$HOME",
    "...",
]


@pytest.fixture(scope="module")
def config(make_config):
    """One model, whose two epochs are eight steps."""
    return make_config("sup_dense", models=1)


@pytest.fixture(scope="module")
def plain(config, dataset, tmp_path_factory):
    """A finished run in a directory like any other."""
    run_dir = tmp_path_factory.mktemp("plain") / "run"
    runs.run(config, dataset, run_dir)
    return run_dir


# ------------------------------------------------------------------------------ odd paths


@pytest.mark.parametrize("name", ODD)
def test_a_checkpoint_can_be_kept_whatever_the_characters_of_the_path(
    config, plain, tmp_path, name
):
    run_dir = tmp_path / name
    (run_dir / "checkpoints").mkdir(parents=True)
    state = runs.load_population(plain).state
    with manager.open_manager(run_dir, config, resume_at=0) as writer:
        checkpoint.save(writer, config, 8, state)
        checkpoint.verify(writer, config, 8, state)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["lr[0.1] *?/{ü}~", "-x[1]"])
def test_a_run_in_an_odd_place_is_trained_resumed_and_restored(
    config, dataset, plain, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    start = runs.begin(config, dataset, tmp_path / name)
    stopped = []
    runs.train(start, on_report=stopped.append, should_stop=lambda: len(stopped) == 1)
    assert runs.load_population(name).step == 3
    assert runs.run(config, dataset, name).finished
    assert_equal(runs.load_population(name).state, runs.load_population(plain).state)
    assert runs.begin(config, dataset, tmp_path / name).done == 8
    (tmp_path / name / "config.json").unlink()
    with pytest.raises(UserError, match=r"has checkpoints but no config\.json"):
        runs.run(config, dataset, name)


def test_a_path_with_a_backslash_is_refused_in_one_line_and_nothing_is_left(
    config, dataset, plain, tmp_path
):
    """TensorStore would write into another directory."""
    name = "back\\slash"
    with pytest.raises(UserError, match="cannot be kept where a path has a backslash; rename it"):
        runs.run(config, dataset, tmp_path / name / "run")
    assert list(tmp_path.iterdir()) == []

    # A run that was moved there is complete, and not called damaged.
    shutil.copytree(plain, tmp_path / name)
    before = files(tmp_path)
    with pytest.raises(UserError, match="where a path has a backslash"):
        runs.load_population(tmp_path / name)
    assert files(tmp_path) == before


def no_memory(reader, step):
    raise MemoryError


def test_the_checkpoint_that_ends_a_stage_is_read_back(config, dataset, tmp_path, monkeypatch):
    def no_memory_at_the_end(reader, step):
        return no_memory(reader, step) if step == 8 else manager.read_arrays(reader, step)

    monkeypatch.setattr(note, "read_arrays", no_memory_at_the_end)
    with pytest.raises(UserError, match=r"8 was written and cannot be read back \(MemoryError\)"):
        runs.run(config, dataset, tmp_path / "run")
    monkeypatch.undo()
    assert runs.load_population(tmp_path / "run").step == 8

    def turned(reader, step):
        arrays = manager.read_arrays(reader, step)
        kernel = arrays["params/encoder/stem/kernel"]
        arrays["params/encoder/stem/kernel"] = -kernel
        return arrays

    monkeypatch.setattr(note, "read_arrays", turned)
    with pytest.raises(UserError, match="its arrays are not those that were written"):
        runs.run(config, dataset, tmp_path / "again")


def test_what_one_process_meets_ends_the_work_of_all(monkeypatch):
    def fail():
        raise MemoryError("4 GiB")

    monkeypatch.setattr(hosts, "alone", lambda: False)
    monkeypatch.setattr(hosts, "gather_texts", lambda text: ["", text])
    with pytest.raises(MemoryError):
        hosts.on_all_processes(fail)
    assert hosts.on_all_processes(lambda: 7) == 7
    told = "process 1: MemoryError: 4 GiB"
    monkeypatch.setattr(hosts, "gather_texts", lambda text: [text, told])
    with pytest.raises(UserError, match=told):
        hosts.on_all_processes(lambda: 7)


# ------------------------------------------------------------------------- curves in a bucket


def line_of(step):
    metrics = {"loss": np.array([0.5, np.nan])}
    return mock.Mock(spec=Progress, stage="sup", step=step, metrics=metrics)


def test_in_a_bucket_lines_are_written_at_checkpoints_and_not_at_each_report(tmp_path, monkeypatch):
    written = []

    class Bucket(type(tmp_path)):
        def write_text(self, text):
            written.append(text.count("\n"))
            return super().write_text(text)

    monkeypatch.setattr(log, "is_remote", lambda path: True)
    curves = log.MetricsLog(Bucket(tmp_path), done=0)
    for step in range(1, 7):
        curves.write(line_of(step))
        if step in (3, 6):
            curves.flush()
            curves.flush()
    assert [count for count in written if count] == [3, 6]
    for step in (7, 8):
        curves.write(line_of(step))

    # Killed here: what a checkpoint covers is there, and what lies beyond it is dropped.
    curves = log.MetricsLog(Bucket(tmp_path), done=5)
    curves.write(line_of(6))
    monkeypatch.setattr(log.time, "monotonic", lambda: curves.time + log.SELDOM_S + 1)
    curves.write(line_of(7))  # a reader is not kept waiting for ever
    steps = [line["step"] for line in log.load_curves(tmp_path, models=2)]
    assert steps == [1, 2, 3, 4, 5, 6, 7]


def test_on_a_disk_a_line_is_there_after_each_report(tmp_path):
    curves = log.MetricsLog(tmp_path, done=0)
    for step in range(1, 4):
        curves.write(line_of(step))
        assert len(log.load_curves(tmp_path, models=2)) == step


LINE = '{"stage": "sup", "step": 2, "loss": [1, 2], "accuracy": [0, 1]}'


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe\n",
        b"[1]\n",
        LINE[:-1].encode(),
        LINE.replace("[1, 2]", "[1]").encode(),
        LINE.replace("[0, 1]", "[0, 1, 1]").encode(),
        LINE.replace("[0, 1]", '["a", "b"]').encode(),
        LINE.replace('"loss"', '"lost"').encode(),
        f"{LINE}\n{LINE}\n".encode(),
        LINE.replace('"step": 2', '"step": -2').encode(),
        LINE.replace('"step": 2', '"step": 0').encode(),
        LINE.replace('"step": 2', '"step": 1e999').encode(),
        LINE.replace('"step": 2', '"step": 1e300').encode(),
        LINE.replace("[0, 1]", f"[0, {10**400}]").encode(),
        b"[" * 100_000,
        (LINE + "\n" + LINE.replace("2,", "3,", 1).replace("accuracy", "recall")).encode(),
    ],
)
def test_a_damaged_curve_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(LINE)
    assert log.load_curves(tmp_path, models=2)
    (tmp_path / "metrics.jsonl").write_bytes(text)
    with pytest.raises(UserError, match=r"metrics.jsonl: no readable training curve") as refused:
        log.load_curves(tmp_path, models=2)
    assert "\n" not in str(refused.value)


def test_a_run_does_not_go_on_with_a_curve_that_is_no_text(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match=r"metrics.jsonl: damaged"):
        log.MetricsLog(tmp_path, done=5)


# -------------------------------------------------------------------------- whose commit it is


def git(where, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@e"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=where, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path):
    """A repository that holds a file of ours where this one has it, and its commit."""

    def make(within="."):
        source = tmp_path / within / "prunejax" / "runs" / "provenance.py"
        source.parent.mkdir(parents=True)
        source.write_text("")
        (tmp_path / "readme").write_text("")
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", "readme", *([] if within == "venv" else [within]))
        git(tmp_path, "commit", "-q", "-m", "first")
        return source, git(tmp_path, "rev-parse", "HEAD")

    return make


def test_the_commit_is_that_of_the_source_tree(tree, monkeypatch, tmp_path):
    source, commit = tree()
    assert provenance.commit_of(source) == commit
    source.write_text("changed")
    assert provenance.commit_of(source) == commit + "-dirty"
    linked = tmp_path.parent / (tmp_path.name + "-linked")
    linked.symlink_to(tmp_path)
    assert provenance.commit_of(linked / source.relative_to(tmp_path)) == commit + "-dirty"
    (tmp_path / "other").mkdir()
    git(tmp_path / "other", "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))  # as in a hook of another
    assert provenance.commit_of(source) == commit + "-dirty"


@pytest.mark.parametrize("within", ["venv", "venv/lib/site-packages", "vendored"])
def test_a_package_within_another_repository_has_no_commit(tree, within):
    """Whether it is installed there, or even committed with the rest."""
    source, _ = tree(within)
    assert provenance.commit_of(source) == "unknown"


def test_an_untracked_copy_at_the_top_of_a_repository_has_no_commit(tree, tmp_path):
    """As `pip install --target .` makes it."""
    source, _ = tree("venv")
    shutil.move(tmp_path / "venv" / "prunejax", tmp_path)
    assert provenance.commit_of(tmp_path / source.relative_to(tmp_path / "venv")) == "unknown"


def test_without_a_repository_or_git_there_is_no_commit(tmp_path, monkeypatch):
    source = tmp_path / "prunejax" / "runs" / "provenance.py"
    assert provenance.commit_of(source) == "unknown"  # as in a zip
    source.parent.mkdir(parents=True)
    source.write_text("")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert provenance.commit_of(source) == "unknown"
    monkeypatch.setenv("PATH", "")
    assert provenance.commit_of(source) == "unknown"


def test_a_session_of_a_copy_that_is_not_installed_is_noted_all_the_same(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("jax", "no-such-package"))
    versions = provenance.this_session()["versions"]
    assert versions["jax"] == jax.__version__
    assert versions["no-such-package"] == "unknown"
