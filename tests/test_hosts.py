"""Several real processes over loopback, each with CPU devices of its own.

They train and measure as one.
"""

import os
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
from test_commands import ROOT, TINY, call, command, free_port

import prunejax
from prunejax.measures import load_measures

DENSE = ["--experiment=sup_dense", *TINY]


class Job:
    """So many processes of one command, their output beside the work directory."""

    def __init__(self, script, count, workdir, arguments, devices=1, others=()):
        """Starts them; all but the first are also given the arguments `others`."""
        environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
        hosts = [f"--coordinator_address=127.0.0.1:{free_port()}", f"--num_processes={count}"]
        self.logs = [workdir.with_suffix(f".{index}.log") for index in range(count)]
        self.processes = []
        for index, log in enumerate(self.logs):
            line = command(script, f"--workdir={workdir}", *arguments, *hosts)
            line.append(f"--process_id={index}")
            if index > 0:
                line += others
            with log.open("w") as output:
                process = subprocess.Popen(
                    line, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
                )
            self.processes.append(process)

    def wait(self, seconds=300):
        """The exit codes, and what the processes said; none may outlive the time."""
        deadline = time.monotonic() + seconds
        codes = []
        try:
            for process in self.processes:
                left = max(0, deadline - time.monotonic())
                codes.append(process.wait(left))
        finally:
            for process in self.processes:
                process.kill()
        return codes, [log.read_text() for log in self.logs]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The work directory of one process."""
    workdir = tmp_path_factory.mktemp("alone") / "runs"
    assert call("train", f"--workdir={workdir}", *DENSE).returncode == 0
    return workdir


def assert_close(run_dir, other):
    ours = prunejax.load_population(run_dir).state
    theirs = prunejax.load_population(other).state

    def assert_leaves_close(leaf, other_leaf):
        np.testing.assert_allclose(leaf, other_leaf, rtol=1e-3, atol=1e-5)

    jax.tree.map(assert_leaves_close, ours.params, theirs.params)
    jax.tree.map(np.testing.assert_array_equal, ours.masks, theirs.masks)


# --------------------------------------------------------------------------- as one process


def test_two_processes_train_and_measure_as_one(tmp_path, alone):
    """Two models on four devices of two hosts: each model's batch is shared by two devices."""
    workdir = tmp_path / "runs"
    run_dir = workdir / "sup_dense"
    codes, said = Job("train", 2, workdir, DENSE, devices=2).wait()
    assert codes == [0, 0], said
    assert ["trained 2 models" in text for text in said] == [True, False]
    assert_close(run_dir, alone / "sup_dense")
    checkpoint = run_dir / "checkpoints" / "4"  # with that of step 1, for warm starts
    written = {path.name for path in (checkpoint / "state").glob("ocdbt*")}
    assert written == {"ocdbt.process_0", "ocdbt.process_1"}
    assert (run_dir / "metrics.jsonl").read_text().count("\n") == 4

    codes, said = Job("evaluate", 2, workdir, []).wait()
    assert codes == [0, 0], said
    shared = load_measures(run_dir)
    shutil.rmtree(run_dir / "measures")
    assert call("evaluate", f"--workdir={workdir}").returncode == 0
    whole = load_measures(run_dir)
    assert shared.arrays.keys() == whole.arrays.keys()
    for name, ours in shared.arrays.items():
        theirs = whole.arrays[name]
        if ours.dtype.kind == "f":
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
        else:
            np.testing.assert_array_equal(ours, theirs)


def test_two_processes_start_warm_as_one_does(tmp_path):
    """The dense run first, as far as it is needed."""
    sweep = ["--study=when", "--experiment=sup_when_2", "--starts=2", *TINY]
    assert call("train", f"--workdir={tmp_path / 'one'}", *sweep).returncode == 0
    codes, said = Job("train", 2, tmp_path / "two", sweep).wait()
    assert codes == [0, 0], said
    assert "first its dense models, sup_dense, to step 2" in said[0]
    assert "warm start of 2 models from sup_dense at step 2" in said[0]
    assert_close(tmp_path / "two" / "sup_when_2", tmp_path / "one" / "sup_when_2")


def test_open_mpi_starts_the_processes(tmp_path, alone):
    """JAX reads from the environment who they are."""
    if shutil.which("mpirun") is None:
        pytest.skip("no Open MPI here")
    line = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2"]
    line += command("train", f"--workdir={tmp_path / 'runs'}", *DENSE, "--distributed")
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(
        line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained 2 models") == 1
    assert_close(tmp_path / "runs" / "sup_dense", alone / "sup_dense")


def test_a_directory_that_is_not_shared_is_refused(tmp_path, monkeypatch):
    """Otherwise the processes would wait for one another when they save."""
    from prunejax.config import UserError
    from prunejax.runs import directory

    (tmp_path / "provenance.json").write_text("of another session")
    monkeypatch.setattr(directory.hosts, "SILENCE_S", 0)
    monkeypatch.setattr(directory.hosts, "gather_texts", lambda text: ["of this session", text])
    with pytest.raises(UserError, match="does not see what process 0 writes"):
        directory._require_shared(tmp_path)


def test_four_processes_share_one_models_batch(tmp_path):
    arguments = [*DENSE, "--models=1"]
    codes, said = Job("train", 4, tmp_path / "four", arguments).wait()
    assert codes == [0] * 4, said
    assert call("train", f"--workdir={tmp_path / 'one'}", *arguments).returncode == 0
    assert_close(tmp_path / "four" / "sup_dense", tmp_path / "one" / "sup_dense")


# ------------------------------------------------------------------------------- stopped


def wait_for_steps(workdir, job, steps):
    """Until so many steps have been reported."""
    path = workdir / "sup_dense" / "metrics.jsonl"
    while not path.exists() or path.read_text().count("\n") < steps:
        assert all(process.poll() is None for process in job.processes), job.wait()
        time.sleep(0.05)


def wait_for_checkpoint(workdir, job):
    """Until a whole checkpoint is there."""
    checkpoints = workdir / "sup_dense" / "checkpoints"
    while not any(path.name.isdigit() for path in checkpoints.iterdir()):
        assert all(process.poll() is None for process in job.processes), job.wait()
        time.sleep(0.05)


@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_process_is_killed_the_others_stop_and_the_job_resumes(tmp_path, victim):
    long = [*DENSE, "--set=sup.epochs=40", "--set=checkpoint.every_steps=2"]
    workdir = tmp_path / "runs"
    job = Job("train", 2, workdir, long)
    wait_for_steps(workdir, job, 4)
    wait_for_checkpoint(workdir, job)
    job.processes[victim].kill()
    codes, said = job.wait(100)
    survivor = 1 - victim
    assert codes[victim] == -signal.SIGKILL
    # By our own word, or that of JAX's runtime.
    assert codes[survivor] in (1, -signal.SIGABRT)
    words = ("this process or another has failed", "another task died")
    assert any(word in said[survivor] for word in words)

    resumed = call("train", f"--workdir={workdir}", *long)
    assert "resuming at step" in resumed.stdout, resumed.stderr
    assert call("train", f"--workdir={tmp_path / 'whole'}", *long).returncode == 0
    assert_close(workdir / "sup_dense", tmp_path / "whole" / "sup_dense")


def test_a_signal_to_one_process_has_all_save_and_stop(tmp_path):
    workdir = tmp_path / "runs"
    endless = [*DENSE, "--set=sup.epochs=4000", "--set=checkpoint.every_steps=100000"]
    job = Job("train", 2, workdir, endless)
    wait_for_steps(workdir, job, 4)
    job.processes[1].send_signal(signal.SIGTERM)
    codes, said = job.wait(100)
    assert codes == [os.EX_TEMPFAIL] * 2, said
    stopped = prunejax.load_population(workdir / "sup_dense")
    for text in said:
        assert f"stopped at step {stopped.step} of 8000, saved" in text


# ------------------------------------------------------------------------------- refused


def test_processes_of_different_commands_are_refused_and_nothing_is_written(tmp_path):
    codes, said = Job("train", 2, tmp_path / "runs", DENSE, others=["--models=3"]).wait()
    assert codes == [2, 2], said
    for text in said:
        assert "error: --models of process 1 is not that of process 0: 3, not 2" in text
    assert not (tmp_path / "runs").exists()


def test_the_three_flags_by_hand_belong_together(tmp_path):
    done = call("train", f"--workdir={tmp_path / 'runs'}", *DENSE, "--num_processes=2")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "belong together" in done.stderr
