"""Submits a whole study to Slurm: a job for each experiment, one-shot runs after their dense parents, then the report.

A job that is preempted, or meets its time limit, saves first and is queued again.
"""

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

from absl import flags

from experiments import flags as cli
from experiments.registry import EXPERIMENTS
from prunejax.config import UserError

FLAGS = flags.FLAGS
SCRIPT = """#!/usr/bin/env bash
#SBATCH --requeue
#SBATCH --open-mode=append
{options}
# Task i of the array trains the i-th experiment; the one after them measures all, and reports.
set -uo pipefail
cd {root}
export GLIBC_TUNABLES={tunables}
experiments=({experiments})
training=({training})
shared=({shared})
if ((SLURM_ARRAY_TASK_ID < ${{#experiments[@]}})); then
  command=(experiments.train "--experiment=${{experiments[SLURM_ARRAY_TASK_ID]}}" "${{training[@]}}")
else
  command=(experiments.evaluate)
fi
srun .venv/bin/python -m "${{command[@]}}" "${{shared[@]}}"{distributed}
code=$?
if [[ ${{command[0]}} == experiments.evaluate && $code == 0 ]]; then
  .venv/bin/python -m experiments.report "${{shared[@]}}"
  code=$?
elif ((code == 75)); then # stopped by a signal, its work is saved
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
"""


def main() -> None:
    """Writes `<workdir>/slurm/study.sbatch` and submits it; with --print only shows both."""
    for name in EXPERIMENTS:
        cli.make_config(name)
    from prunejax.rundir import is_remote

    if is_remote(cli.workdir()):
        raise UserError(f"--workdir={FLAGS.workdir}: Slurm's logs need a directory on a disk that all nodes share")
    if FLAGS.gpus and FLAGS.tasks not in (None, FLAGS.gpus):
        raise UserError(f"--tasks={FLAGS.tasks}: under Slurm each GPU, here {FLAGS.gpus} a node, needs a process")
    path = Path(cli.workdir().resolve()) / "slurm" / "study.sbatch"
    if FLAGS.print:
        print(script(path.parent))
        return submit(path, lambda command: print("#", shlex.join(command)) or "JOB")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script(path.parent))
    submit(path, sbatch)
    print(f"submitted {path}; see squeue --me, and the logs beside it")


def script(logs: Path) -> str:
    """The batch script that all jobs of the study share."""
    tasks = FLAGS.tasks or max(1, FLAGS.gpus)  # a process a GPU, as JAX expects of Slurm
    options = {
        **{"job-name": f"prunejax-{FLAGS.preset}", "nodes": FLAGS.nodes, "ntasks-per-node": tasks},
        **{"gpus-per-node": FLAGS.gpus or None, "cpus-per-task": FLAGS.cpus, "time": FLAGS.time},
        **{"partition": FLAGS.partition, "account": FLAGS.account},
        **{"signal": f"TERM@{FLAGS.grace_s}", "output": logs / "%x-%a.log"},
    }
    shared = [f"--workdir={logs.parent}"]
    if FLAGS.data_dir:
        shared.append(f"--data_dir={Path(FLAGS.data_dir).absolute()}")
    return SCRIPT.format(
        options="\n".join(f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None),
        root=shlex.quote(str(Path(__file__).parents[1])),
        tunables=shlex.quote(os.environ.get("GLIBC_TUNABLES", "")),
        experiments=" ".join(EXPERIMENTS),
        training=shlex.join(cli.given(*cli.CHOICES)),
        shared=shlex.join(shared),
        distributed=" --distributed" if FLAGS.nodes * tasks > 1 else "",
    )


def submit(path: Path, run: Callable[[list[str]], str]) -> None:
    """Gives `run` each sbatch command and takes the job's number from it."""
    names = list(EXPERIMENTS)
    first = ",".join(str(names.index(name)) for name in names if not EXPERIMENTS[name].parent)
    jobs = [run(["sbatch", "--parsable", f"--array={first}", str(path)])]
    for name, experiment in EXPERIMENTS.items():
        if experiment.parent:
            after = f"--dependency=afterok:{jobs[0]}_{names.index(experiment.parent)}"
            options = [f"--array={names.index(name)}", after, "--kill-on-invalid-dep=yes"]
            jobs.append(run(["sbatch", "--parsable", *options, str(path)]))
    options = [f"--array={len(names)}", f"--dependency=afterany:{':'.join(jobs)}"]
    run(["sbatch", "--parsable", *options, str(path)])


def sbatch(command: list[str]) -> str:
    """Runs sbatch; returns the job's number."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError("sbatch is not here; --print only shows, ./launch.sh hosts needs no scheduler") from None
    if done.returncode:
        raise UserError(f"sbatch refused the job: {done.stderr}")
    return done.stdout.strip().split(";")[0]


if __name__ == "__main__":
    EXAMPLE = "./launch.sh slurm --preset=cifar10 --workdir=/shared/runs --nodes=2 --gpus=4 --time=24:00:00"
    OPTIONS = ("nodes", "gpus", "tasks", "cpus", "time", "grace_s", "partition", "account", "print")
    cli.run(main, __doc__, EXAMPLE, (*cli.CHOICES, "workdir", "data_dir", *OPTIONS))
