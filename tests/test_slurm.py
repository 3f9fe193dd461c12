"""The study's batch script against a real Slurm, where Debian's packages are installed."""

import os
import re
import shutil
import socket
import subprocess
import time

import pytest
from test_commands import ROOT, TINY, free_port

import prunejax

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


SCRIPT = ROOT / "experiments" / "study.sbatch"


def slurm(cluster, *line):
    done = subprocess.run(line, env=cluster, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sbatch_takes_its_own_options_and_the_rest_are_the_studys(cluster):
    line = ["sbatch", "--test-only", "--ntasks=2", SCRIPT, "--preset=digits"]
    done = subprocess.run(line, env=cluster, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "using 2 processors" in done.stderr


def test_a_job_of_two_tasks_is_stopped_queued_again_and_ends(cluster, tmp_path):
    """A study of one experiment, stopped after three of its steps."""
    (tmp_path / "dense.py").write_text(
        "from prunejax.config import Experiment\n\n\ndef dense():\n"
        "    return [Experiment('sup_dense')]\n"
    )
    cluster = cluster | {"PYTHONPATH": str(tmp_path)}
    workdir, log = tmp_path / "runs", tmp_path / "log"
    options = ["--ntasks=2", "--time=10", f"--output={log}"]
    study = ["--study=dense:dense", *TINY, "--set=sup.epochs=40", "--set=log_every_steps=1"]
    job = slurm(
        cluster, "sbatch", "--parsable", *options, str(SCRIPT), *study, f"--workdir={workdir}"
    ).strip()

    def state():
        assert time.monotonic() < deadline, (slurm(cluster, "scontrol", "show", "job", job), log)
        return re.search(r"JobState=(\S+)", slurm(cluster, "scontrol", "show", "job", job))[1]

    deadline = time.monotonic() + 600
    metrics = workdir / "sup_dense" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < 3:
        assert state() in ("PENDING", "CONFIGURING", "RUNNING"), log.read_text()
        time.sleep(0.05)
    slurm(cluster, "scancel", "--signal=TERM", job)

    # Slurm lets a job that is queued again wait for two minutes. Ten seconds do: a job that starts
    # within a second of its requeue is killed, as its credential is the one just revoked.
    while state() != "PENDING":
        time.sleep(0.05)
    slurm(cluster, "scontrol", "update", f"jobid={job}", "starttime=now+10")
    while (found := state()) != "COMPLETED":
        assert found in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"), log.read_text()
        time.sleep(0.2)
    shown = log.read_text()
    assert re.search(r"stopped at step \d+ of 80, saved", shown)
    assert "sup_dense: resuming at step" in shown
    assert prunejax.load_population(workdir / "sup_dense").step == 80
