"""Nothing lost: kills, signals, locks, full disks and damaged files.

Each with a real training process.
"""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from signals import heeded_signals
from test_checkpoint import files, run
from test_commands import ROOT, TINY, call, command, leaves

import prunejax
from prunejax.config import Schedule, UserError, override, to_json
from prunejax.runs import checkpoint, directory
from prunejax.training import population
from prunejax.training.members import members_of
from prunejax.training.spec import make_specs

# -------------------------------------------------------------------- kills and signals


def epochs_for_all_kills(pytestconfig):
    """Of two steps each."""
    return 4 * max(10, pytestconfig.getoption("--kills"))


@pytest.fixture(scope="module")
def long(pytestconfig):
    """The arguments of a run with steps enough for all kills."""
    epochs = epochs_for_all_kills(pytestconfig)
    every_step = "--set=checkpoint.every_steps=1"
    return ["--experiment=sup_gmp", *TINY, every_step, f"--set=sup.epochs={epochs}"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, long):
    """The run that nothing disturbs."""
    workdir = tmp_path_factory.mktemp("whole") / "runs"
    assert call("train", f"--workdir={workdir}", *long).returncode == 0
    return workdir


def start(workdir, *arguments, log=None):
    """Training in a process of its own; its output is beside the work directory, or in `log`."""
    line = command("train", f"--workdir={workdir}", *arguments)
    with (log or log_of(workdir)).open("a") as output, heeded_signals():
        return subprocess.Popen(line, cwd=ROOT, stdout=output, stderr=output)


def log_of(workdir):
    return workdir.with_suffix(".log")


def count_reports(workdir):
    path = workdir / "sup_gmp" / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def wait_until(condition, process):
    """Or until the process has ended."""
    deadline = time.monotonic() + 300
    while not condition():
        if process.poll() is not None:
            return
        assert time.monotonic() < deadline
        time.sleep(0.005)


def assert_same_states(workdir, other):
    """Byte for byte, and to the end."""
    ours = prunejax.load_population(workdir / "sup_gmp")
    theirs = prunejax.load_population(other / "sup_gmp")
    assert ours.step == theirs.step == theirs.total_steps
    for leaf, other_leaf in zip(leaves(ours), leaves(theirs), strict=True):
        assert bytes(leaf) == bytes(other_leaf)


def assert_same_bytes(workdir, whole):
    """And a line of the curves for every step, none twice."""
    assert_same_states(workdir, whole)
    curves = (workdir / "sup_gmp" / "metrics.jsonl").read_text()
    steps = [json.loads(line)["step"] for line in curves.splitlines()]
    total = prunejax.load_population(whole / "sup_gmp").total_steps
    assert steps == list(range(1, total + 1))


def test_killed_at_random_moments_it_ends_in_the_same_bytes(tmp_path, whole, long, pytestconfig):
    kills = pytestconfig.getoption("--kills")
    seed = int.from_bytes(os.urandom(2))
    print("seed of the moments:", seed)
    moments = random.Random(seed)
    workdir, killed = tmp_path / "runs", 0
    while killed < kills:
        process = start(workdir, *long)
        # Most fall on steps and the checkpoints between them, one in five on the start.
        if moments.random() < 0.8:
            wait_for_another_report(workdir, process)
        time.sleep(moments.uniform(0, 0.3))
        killed += process.poll() is None
        process.kill()
        if process.wait() == 0:  # it came to its end: once more from the start
            assert_same_bytes(workdir, whole)
            shutil.rmtree(workdir)
        else:
            assert process.returncode == -signal.SIGKILL, log_of(workdir).read_text()[-2000:]

    assert call("train", f"--workdir={workdir}", *long).returncode == 0
    assert_same_bytes(workdir, whole)
    kept = {path.name for path in (workdir / "sup_gmp" / "checkpoints").iterdir()}
    last = 2 * epochs_for_all_kills(pytestconfig)
    assert kept == {str(last - 1), str(last)}


def wait_for_another_report(workdir, process):
    before = count_reports(workdir)
    wait_until(lambda: count_reports(workdir) > before, process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_with_a_code_of_its_own(tmp_path, whole, long, number):
    arguments = [*long, "--set=checkpoint.every_steps=1000", "--set=log_every_steps=1000"]
    workdir = tmp_path / "runs"
    process = start(workdir, *arguments)
    wait_until((workdir / "sup_gmp" / "metrics.jsonl").exists, process)
    process.send_signal(number)
    assert process.wait(timeout=60) == os.EX_TEMPFAIL
    assert "saved; run it again to go on" in log_of(workdir).read_text()
    stopped = prunejax.load_population(workdir / "sup_gmp")
    assert 0 < stopped.step < stopped.total_steps

    done = call("train", f"--workdir={workdir}", *arguments)
    assert f"resuming at step {stopped.step} of {stopped.total_steps}" in done.stdout
    assert_same_states(workdir, whole)


KILLS = """
import os, runpy, signal, sys
from prunejax.runs import checkpoint

moment, step = sys.argv[1], int(sys.argv[2])
write = checkpoint.write

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def write_and_kill(manager, saved, state, note):
    if saved == step and moment == "before":
        kill()
    write(manager, saved, state, note)
    if saved == step and moment == "during":
        kill()
    if saved == step and moment == "after":
        manager.wait_until_finished()
        kill()

checkpoint.write = write_and_kill
sys.argv = ["train", *sys.argv[3:]]
runpy.run_module("experiments.train", run_name="__main__")
"""
"""A training that kills itself at a moment of the save of a step."""


@pytest.mark.parametrize("step", [0, 7])
@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_killed_at_a_moment_of_a_save_it_ends_in_the_same_bytes(
    tmp_path, whole, long, moment, step
):
    line = [sys.executable, "-c", KILLS, moment, str(step), f"--workdir={tmp_path}", *long]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert call("train", f"--workdir={tmp_path}", *long).returncode == 0
    assert_same_bytes(tmp_path, whole)


# ------------------------------------------------------------------------------- locks


def test_a_second_process_is_refused_while_the_first_lives(tmp_path, make_config, dataset):
    config = make_config("sup_dense")
    run(config, dataset, tmp_path, stop_after=1)
    run_dir = tmp_path / "sup_dense"
    steps = population.stage_steps(make_specs(config, dataset))

    def open_run():
        return directory.open_run(run_dir, config, dataset, steps, ())

    before = files(tmp_path)
    with open_run():
        held = files(tmp_path)
        with pytest.raises(UserError, match=rf"process {os.getpid()} on .* trains this run"):
            directory.check_run(run_dir, config, dataset)
        with pytest.raises(UserError, match="trains this run"), open_run():
            pass
        assert files(tmp_path) == held
    assert directory.check_run(run_dir, config, dataset)
    assert before.keys() == held.keys()


def test_a_lock_is_gone_with_its_process(tmp_path, long):
    workdir = tmp_path / "runs"
    arguments = [*long, "--set=sup.epochs=4000"]
    process = start(workdir, *arguments)
    wait_until(lambda: count_reports(workdir), process)
    other = call("train", f"--workdir={workdir}", *arguments)
    assert other.returncode == 2
    assert other.stdout == ""
    assert other.stderr.count("\n") == 1
    assert f"process {process.pid} on" in other.stderr

    process.kill()
    process.wait()
    with (workdir / "sup_gmp" / ".lock").open() as file:
        directory._lock(file)


# --------------------------------------------------------------------------- full disks


@contextlib.contextmanager
def small_disk(path, size):
    """A file system of its own at `path`."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path]
    if os.geteuid() != 0 or subprocess.run(mount).returncode != 0:
        pytest.skip("no right to mount a small file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def fill(disk):
    """Writes a file until nothing is free; returns its path."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while shutil.disk_usage(disk).free:
            filler.write(bytes(4096))
    return path


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, whole, long):
    with small_disk(tmp_path / "disk", "40m") as disk:
        workdir, log = disk / "runs", tmp_path / "log"
        process = start(workdir, *long, log=log)
        wait_until(lambda: count_reports(workdir) > 20, process)
        filler = fill(disk)
        assert process.wait(timeout=100) == 2
        (error,) = (line for line in log.read_text().splitlines() if "images/s" not in line)
        assert error.startswith("error: ")
        assert "make room, and run it again" in error

        filler.unlink()
        kept = prunejax.load_population(workdir / "sup_gmp")
        assert kept.step > 10
        assert call("train", f"--workdir={workdir}", *long).returncode == 0
        assert_same_bytes(workdir, whole)


@pytest.fixture(scope="module")
def two_checkpoints(make_config, dataset, tmp_path_factory):
    """A finished run that kept steps 7 and 8."""
    workdir = tmp_path_factory.mktemp("damage")
    run(make_config("sup_gmp", log_every_steps=1), dataset, workdir)
    return workdir / "sup_gmp"


# ------------------------------------------------- checkpoints that cannot be this run's


def test_checkpoints_without_their_settings_are_left_alone(
    two_checkpoints, tmp_path, make_config, dataset
):
    shutil.copytree(two_checkpoints, tmp_path / "sup_gmp")
    (tmp_path / "sup_gmp" / "config.json").unlink()
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"has checkpoints but no config\.json"):
        run(make_config("sup_gmp"), dataset, tmp_path)
    assert files(tmp_path) == before


def test_what_another_process_trained_meanwhile_is_not_thrown_away(two_checkpoints, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(two_checkpoints, run_dir)
    config = prunejax.load_population(two_checkpoints).config
    before = files(tmp_path)
    with (
        pytest.raises(UserError, match="was trained by another process"),
        checkpoint.open_manager(run_dir, config, resume_at=7),
    ):
        pass
    assert files(tmp_path) == before


def edit_config(run_dir, config, state, monkeypatch):
    other = override(config, ["models=1"])
    (run_dir / "config.json").write_text(to_json(other))


def edit_provenance(run_dir, config, state, monkeypatch):
    path = run_dir / "provenance.json"
    provenance = json.loads(path.read_text())
    provenance["stage_steps"] = {"sup": 5}
    path.write_text(json.dumps(provenance))


def put_nan(run_dir, config, state, monkeypatch):
    state.params["head"]["Dense_0"]["bias"][2, 0] = np.nan
    rewrite(run_dir, config, state)


def loosen_masks(run_dir, config, state, monkeypatch):
    state.masks["encoder"]["stem"]["kernel"][3] = True
    rewrite(run_dir, config, state)


def other_format(run_dir, config, state, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    rewrite(run_dir, config, state)
    monkeypatch.undo()


def rewrite(run_dir, config, state):
    """Saves `state` as the newest checkpoint."""
    shutil.rmtree(run_dir / "checkpoints" / "8")
    with checkpoint.open_manager(run_dir, config, resume_at=7) as manager:
        checkpoint.save(manager, config, 8, state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            edit_config,
            r"checkpoint 8 is of other settings than config\.json \(models: 1, not 2\)",
        ),
        (
            edit_provenance,
            r"checkpoint 8 does not fit the stages in provenance\.json",
        ),
        (
            put_nan,
            r"checkpoint 8 holds weights that are not finite, of seeds \[0\]",
        ),
        (
            loosen_masks,
            r"checkpoint 8 has masks of sparsity 0\.89\d\d for seed 1 "
            r"where the schedule has 0\.9000",
        ),
        (
            other_format,
            r"checkpoint 8 is of format 99, and this version of prunejax reads 4",
        ),
    ],
)
def test_a_checkpoint_that_cannot_be_this_runs_is_refused_by_name(
    two_checkpoints, tmp_path, monkeypatch, change, message
):
    run_dir = tmp_path / "run"
    shutil.copytree(two_checkpoints, run_dir)
    restored = prunejax.load_population(run_dir)
    state = jax.tree.map(np.array, restored.state)
    change(run_dir, restored.config, state, monkeypatch)
    before = files(tmp_path)
    with pytest.raises(UserError, match=message):
        prunejax.load_population(run_dir)
    assert files(tmp_path) == before


@pytest.mark.parametrize("experiment", ["sup_gmp", "scl_gmp"])
@pytest.mark.parametrize("at_multiples", [False, True])
def test_the_schedule_knows_the_sparsity_after_every_step(
    make_config, dataset, experiment, at_multiples
):
    """Also where the updates end short of the target and the head's schedule closes the gap."""
    config = make_config(experiment, log_every_steps=1)
    config = override(config, [f"prune.at_multiples={at_multiples}", "prune.scl.every_steps=4"])
    pruning = dataclasses.replace(config.prune, head=Schedule(1, 6, 2))
    config = dataclasses.replace(config, prune=pruning)
    members = members_of(config)
    steps = population.stage_steps(make_specs(config, dataset))
    for progress in population.fit(config, members, dataset):
        checkpoint._check_masks(config, steps, progress.step, members, progress.state)
