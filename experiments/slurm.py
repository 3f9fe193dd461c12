"""Submits a whole study to Slurm: a job for each experiment, and one for the report.

One-shot runs and sweeps over begins come after their dense parents, the report after all. A job
that is preempted, or meets its time limit, saves first and is queued again.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags
from etils import epath

from experiments import flags as cli
from prunejax.config import Experiment, UserError

FLAGS = flags.FLAGS
SCRIPT = """#!/usr/bin/env bash
#SBATCH --requeue
#SBATCH --open-mode=append
{options}
# Task i of the array trains the i-th experiment; the one after them measures all, and reports.
set -uo pipefail
cd {directory}
export GLIBC_TUNABLES={tunables}
experiments=({experiments})
training=({training})
shared=({shared})
if ((SLURM_ARRAY_TASK_ID < ${{#experiments[@]}})); then
  experiment=${{experiments[SLURM_ARRAY_TASK_ID]}}
  command=(experiments.train "--experiment=$experiment" "${{training[@]}}")
else
  command=(experiments.evaluate {study})
fi
srun {python} -P -m "${{command[@]}}" "${{shared[@]}}"{distributed}
code=$?
if [[ ${{command[0]}} == experiments.evaluate && $code == 0 ]]; then
  {python} -P -m experiments.report {study} "${{shared[@]}}"
  code=$?
elif ((code == 75)); then # stopped by a signal, its work is saved
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
"""


def main() -> None:
    """Writes `<workdir>/slurm/study.sbatch` and submits it; with --print only shows both."""
    experiments = cli.study()
    for experiment in experiments:
        cli.make_config(experiment)
    from prunejax.runs.directory import is_remote

    if is_remote(cli.workdir()):
        raise UserError(
            f"--workdir={FLAGS.workdir}: Slurm's logs need a directory on a disk that all nodes "
            "share"
        )
    if set("\\\n") & set(str(cli.workdir().resolve())):
        raise UserError(
            f"--workdir={FLAGS.workdir}: Slurm can write no logs where a path has a backslash or a "
            "line break; use another"
        )
    if FLAGS.gpus and FLAGS.tasks not in (None, FLAGS.gpus):
        raise UserError(
            f"--tasks={FLAGS.tasks}: under Slurm each GPU, here {FLAGS.gpus} a node, "
            "needs a process"
        )
    path = Path(cli.workdir().resolve()) / "slurm" / "study.sbatch"
    if FLAGS.print:
        print(script(experiments, path.parent))
        submit(experiments, path, _show)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script(experiments, path.parent))
    submit(experiments, path, sbatch)
    print(f"submitted {path}; see squeue --me, and the logs beside it")


def _show(command: list[str]) -> str:
    print("#", shlex.join(command))
    return "JOB"


def script(experiments: list[Experiment], logs: Path) -> str:
    """The batch script that all jobs of the study share."""
    from prunejax.runs.directory import is_remote

    tasks = FLAGS.tasks or max(1, FLAGS.gpus)  # a process a GPU, as JAX expects of Slurm
    options = {
        "job-name": f"prunejax-{FLAGS.preset}",
        "nodes": FLAGS.nodes,
        "ntasks-per-node": tasks,
        "gpus-per-node": FLAGS.gpus or None,
        "cpus-per-task": FLAGS.cpus,
        "time": FLAGS.time,
        "partition": FLAGS.partition,
        "account": FLAGS.account,
        "signal": f"TERM@{FLAGS.grace_s}",
        "output": str(logs).replace("%", "%%") + "/%x-%a.log",
    }
    lines = []
    for name, value in options.items():
        if value is not None:
            lines.append(f"#SBATCH --{name}={shlex.quote(str(value))}")
    shared = [f"--workdir={logs.parent}"]
    if FLAGS.data_dir:
        remote = is_remote(epath.Path(FLAGS.data_dir))
        data_dir = FLAGS.data_dir if remote else Path(FLAGS.data_dir).absolute()
        shared.append(f"--data_dir={data_dir}")
    return SCRIPT.format(
        options="\n".join(lines),
        directory=shlex.quote(os.getcwd()),  # where one's own study is found
        python=shlex.quote(sys.executable),
        tunables=shlex.quote(os.environ.get("GLIBC_TUNABLES", "")),
        experiments=" ".join(experiment.name for experiment in experiments),
        training=shlex.join(cli.given(*cli.CHOICES)),
        study=shlex.quote(f"--study={FLAGS.study}"),
        shared=shlex.join(shared),
        distributed=" --distributed" if FLAGS.nodes * tasks > 1 else "",
    )


def submit(experiments: list[Experiment], path: Path, run: Callable[[list[str]], str]) -> None:
    """Gives `run` each sbatch command and takes the job's number from it."""
    places = {experiment.name: place for place, experiment in enumerate(experiments)}
    first = [str(places[one.name]) for one in experiments if not _waits(one)]
    jobs = [run(["sbatch", "--parsable", f"--array={','.join(first)}", str(path)])]
    for experiment in experiments:
        if not _waits(experiment):
            continue
        parent = places[str(experiment.dense_parent)]
        command = [
            "sbatch",
            "--parsable",
            f"--array={places[experiment.name]}",
            f"--dependency=afterok:{jobs[0]}_{parent}",
            "--kill-on-invalid-dep=yes",
            str(path),
        ]
        jobs.append(run(command))
    dependency = f"--dependency=afterany:{':'.join(jobs)}"
    run(["sbatch", "--parsable", f"--array={len(experiments)}", dependency, str(path)])


def _waits(experiment: Experiment) -> bool:
    """Whether it is to come after its dense parent: it needs it, or is forked from it all along."""
    from prunejax.methods import is_one_shot

    pruning = experiment.pruning
    return is_one_shot(experiment) or (pruning is not None and bool(pruning.begins))


def sbatch(command: list[str]) -> str:
    """Runs sbatch; returns the job's number."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(
            "sbatch is not here; --print only shows, ./launch.sh hosts needs no scheduler"
        ) from None
    if done.returncode:
        raise UserError(f"sbatch refused the job: {done.stderr}")
    return done.stdout.strip().split(";")[0]


if __name__ == "__main__":
    EXAMPLE = (
        "./launch.sh slurm --preset=cifar10 --workdir=/shared/runs --nodes=2 --gpus=4 "
        "--time=24:00:00"
    )
    OPTIONS = (
        "nodes",
        "gpus",
        "tasks",
        "cpus",
        "time",
        "grace_s",
        "partition",
        "account",
        "print",
    )
    cli.run(main, __doc__, EXAMPLE, (*cli.CHOICES, "workdir", "data_dir", *OPTIONS))
