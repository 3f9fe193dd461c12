"""The study's batch script, against a golden file and against a real Slurm.

The latter where Debian's packages are installed.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from test_commands import ROOT, TINY, call, free_port

import prunejax

GOLDEN = Path(__file__).with_name("study.sbatch")
CLUSTER = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldPort={controller}
SlurmdPort={daemon}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
MinJobAge=600
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Slurm of one node on this machine, for as long as the tests last; its environment."""
    programs = ("slurmctld", "slurmd", "sbatch", "munged")
    if os.geteuid() != 0 or not all(shutil.which(program) for program in programs):
        pytest.skip("no Slurm here, or not root")
    place = tmp_path_factory.mktemp("slurm")
    place.chmod(0o755)
    write_settings(place)
    environment = os.environ | {
        "SLURM_CONF": str(place / "slurm.conf"),
        "JAX_NUM_CPU_DEVICES": "1",
    }
    munged = [
        "munged",
        "--foreground",
        "--force",
        f"--key-file={place}/munge.key",
        f"--socket={place}/munge.socket",
        f"--pid-file={place}/munge.pid-file",
        f"--log-file={place}/munge.log-file",
        f"--seed-file={place}/munge.seed-file",
    ]
    running = []
    try:
        for daemon in (munged, ["slurmctld", "-D", "-i"], ["slurmd", "-D"]):
            with (place / f"{daemon[0]}.log").open("w") as log:
                running.append(subprocess.Popen(daemon, env=environment, stdout=log, stderr=log))
            time.sleep(0.5)
        wait_until_idle(environment, place)
        yield environment
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()


def write_settings(place):
    """Slurm's configuration and munge's key."""
    text = CLUSTER.format(
        host=socket.gethostname().split(".")[0],
        place=place,
        controller=free_port(),
        daemon=free_port(),
    )
    (place / "slurm.conf").write_text(text)
    for name in ("state", "spool"):
        (place / name).mkdir()
    key = place / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)


def wait_until_idle(environment, place):
    """Until the node takes jobs."""
    deadline = time.monotonic() + 60
    while True:
        shown = subprocess.run(["sinfo"], env=environment, capture_output=True, text=True)
        if "idle" in shown.stdout:
            return
        assert time.monotonic() < deadline, [text[-2000:] for text in texts(place)]
        time.sleep(0.2)


def texts(place):
    """What all logs in a directory say."""
    return [log.read_text() for log in place.glob("*.log")]


def test_the_script_is_the_golden_one(tmp_path):
    """After a change that is meant, put what --print shows into the golden file.

    With its two paths replaced, as here.
    """
    done = call(
        "slurm",
        f"--workdir={tmp_path}/runs",
        "--preset=cifar10",
        "--models=30",
        "--set=compute_dtype=bfloat16",
        f"--data_dir={tmp_path}/data",
        "--nodes=2",
        "--gpus=4",
        "--cpus=8",
        "--time=24:00:00",
        "--partition=gpu",
        "--account=lab",
        "--print",
    )
    assert done.returncode == 0, done.stderr
    shown = re.sub("export GLIBC_TUNABLES=.*", "export GLIBC_TUNABLES=''", done.stdout)
    shown = shown.replace(str(ROOT), "/prunejax")
    shown = shown.replace(str(tmp_path), "/shared")
    assert shown == GOLDEN.read_text()
    assert not list(tmp_path.iterdir())


def test_without_slurm_it_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    done = call("slurm", "--preset=digits", f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "sbatch is not here" in done.stderr


def test_slurm_accepts_the_script_and_refuses_what_it_cannot_run(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", cluster)
    workdir = f"--workdir={tmp_path / 'runs'}"
    shown = call("slurm", workdir, *TINY, "--tasks=2", "--time=10", "--print")
    script = tmp_path / "study.sbatch"
    script.write_text(shown.stdout)
    line = ["sbatch", "--test-only", script]
    done = subprocess.run(line, env=cluster, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "using 2 processors" in done.stderr
    refused = call("slurm", workdir, *TINY, "--partition=absent")
    assert refused.returncode == 2
    assert "sbatch refused the job" in refused.stderr


def test_a_job_of_two_tasks_is_stopped_queued_again_and_ends(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", cluster)
    workdir = tmp_path / "runs"
    arguments = [*TINY, "--tasks=2", "--time=10", "--set=sup.epochs=40", "--set=log_every_steps=1"]
    shown = call("slurm", f"--workdir={workdir}", *arguments, "--print")
    logs = workdir / "slurm"
    logs.mkdir(parents=True)
    script = logs / "study.sbatch"
    script.write_text(shown.stdout)

    def slurm(*line):
        return subprocess.run(line, env=cluster, capture_output=True, text=True, check=True).stdout

    # The first experiment alone, stopped after three steps.
    job = slurm("sbatch", "--parsable", "--array=0", str(script)).strip()
    metrics = workdir / "sup_dense" / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while not metrics.exists() or metrics.read_text().count("\n") < 3:
        assert time.monotonic() < deadline, texts(logs)
        time.sleep(0.05)
    slurm("scancel", "--signal=TERM", f"{job}_0")

    while "COMPLETED" not in (state := slurm("scontrol", "show", "job", job)):
        if "BeginTime" in state and "PENDING" in state:
            # Slurm lets a job that is queued again wait for two minutes.
            slurm("scontrol", "update", f"jobid={job}_0", "starttime=now")
        assert time.monotonic() < deadline, (state, texts(logs))
        time.sleep(0.5)
    said = (logs / "prunejax-digits-0.log").read_text()
    assert re.search(r"stopped at step \d+ of 80, saved", said)
    assert "sup_dense: resuming at step" in said
    assert prunejax.load_population(workdir / "sup_dense").step == 80
