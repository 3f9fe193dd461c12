"""The study's batch script: against a golden file, and against a real Slurm where Debian's packages are installed."""

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from test_commands import ROOT, TINY, call

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


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Slurm of one node on this machine, for as long as the tests last; its environment."""
    if os.geteuid() or not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch", "munged"))):
        pytest.skip("no Slurm here, or not root")
    place, host = tmp_path_factory.mktemp("slurm"), socket.gethostname().split(".")[0]
    place.chmod(0o755)
    text = CLUSTER.format(host=host, place=place, controller=free_port(), daemon=free_port())
    (place / "slurm.conf").write_text(text)
    for name in ("state", "spool"):
        (place / name).mkdir()
    (place / "munge.key").write_bytes(os.urandom(1024))
    (place / "munge.key").chmod(0o400)
    environment = os.environ | {"SLURM_CONF": str(place / "slurm.conf"), "JAX_NUM_CPU_DEVICES": "1"}
    files = [f"--{name}={place}/munge.{end}" for name, end in (("key-file", "key"), ("socket", "socket"))]
    files += [f"--{name}={place}/munge.{name}" for name in ("pid-file", "log-file", "seed-file")]
    daemons = [["munged", "--foreground", "--force", *files], ["slurmctld", "-D", "-i"], ["slurmd", "-D"]]
    running = []
    try:
        for daemon in daemons:
            log = (place / f"{daemon[0]}.log").open("w")
            with log:
                running.append(subprocess.Popen(daemon, env=environment, stdout=log, stderr=log))
            time.sleep(0.5)
        deadline = time.monotonic() + 60
        while "idle" not in subprocess.run(["sinfo"], env=environment, capture_output=True, text=True).stdout:
            assert time.monotonic() < deadline, [log.read_text()[-2000:] for log in place.glob("*.log")]
            time.sleep(0.2)
        yield environment
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()


def test_the_script_is_the_golden_one(tmp_path):
    """After a change that is meant: put what --print shows, with the two paths replaced, into the golden file."""
    arguments = ["--preset=cifar10", "--models=30", "--set=compute_dtype=bfloat16", f"--data_dir={tmp_path}/data"]
    arguments += ["--nodes=2", "--gpus=4", "--cpus=8", "--time=24:00:00", "--partition=gpu", "--account=lab", "--print"]
    done = call("slurm", f"--workdir={tmp_path}/runs", *arguments)
    assert done.returncode == 0, done.stderr
    shown = re.sub("export GLIBC_TUNABLES=.*", "export GLIBC_TUNABLES=''", done.stdout)
    assert shown.replace(str(ROOT), "/prunejax").replace(str(tmp_path), "/shared") == GOLDEN.read_text()
    assert not list(tmp_path.iterdir())


def test_without_slurm_it_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    done = call("slurm", "--preset=digits", f"--workdir={tmp_path}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "sbatch is not here" in done.stderr


def test_slurm_accepts_the_script_and_refuses_what_it_cannot_run(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", cluster)
    text = call("slurm", f"--workdir={tmp_path / 'runs'}", *TINY, "--tasks=2", "--time=10", "--print").stdout
    script = tmp_path / "study.sbatch"
    script.write_text(text)
    done = subprocess.run(["sbatch", "--test-only", script], env=cluster, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "using 2 processors" in done.stderr
    refused = call("slurm", f"--workdir={tmp_path / 'runs'}", *TINY, "--partition=absent")
    assert refused.returncode == 2
    assert "sbatch refused the job" in refused.stderr


def test_a_job_of_two_tasks_is_stopped_queued_again_and_ends(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", cluster)
    workdir = tmp_path / "runs"
    arguments = [*TINY, "--tasks=2", "--time=10", "--set=sup.epochs=40", "--set=log_every_steps=1"]
    text = call("slurm", f"--workdir={workdir}", *arguments, "--print").stdout
    logs = workdir / "slurm"
    logs.mkdir(parents=True)
    (logs / "study.sbatch").write_text(text)

    def slurm(*line):
        return subprocess.run(line, env=cluster, capture_output=True, text=True, check=True).stdout

    job = slurm("sbatch", "--parsable", "--array=0", str(logs / "study.sbatch")).strip()
    metrics = workdir / "sup_dense" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not metrics.exists() or metrics.read_text().count("\n") < 3:
        assert time.monotonic() < deadline, [log.read_text() for log in logs.glob("*.log")]
        time.sleep(0.05)
    slurm("scancel", "--signal=TERM", f"{job}_0")
    while "COMPLETED" not in (state := slurm("scontrol", "show", "job", job)):
        if "BeginTime" in state and "PENDING" in state:  # Slurm lets a job that is queued again wait for two minutes
            slurm("scontrol", "update", f"jobid={job}_0", "starttime=now")
        assert time.monotonic() < deadline, (state, [log.read_text() for log in logs.glob("*.log")])
        time.sleep(0.5)
    said = (logs / "prunejax-digits-0.log").read_text()
    assert re.search(r"stopped at step \d+ of 80, saved", said)
    assert "sup_dense: resuming at step" in said
    assert prunejax.load_population(workdir / "sup_dense").step == 80
