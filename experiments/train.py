"""Trains the population of one experiment. Run again, it resumes, or does nothing if finished."""

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from absl import flags

from experiments import display, process
from experiments import flags as cli
from experiments.plan import print_plan
from experiments.registry import find_experiment
from prunejax.config import Config, UserError
from prunejax.config.counts import counted

if TYPE_CHECKING:
    from prunejax.data import Dataset
    from prunejax.training.progress import Progress

FLAGS = flags.FLAGS


def main() -> None:
    """The experiment that the flags name."""
    experiment = cli.chosen_experiment()
    config = cli.make_config(experiment)
    dataset = cli.load_data(config.data)
    if FLAGS.dry_run:
        print_plan(config, dataset)
        return
    train_dense_prefix(config, dataset)
    train(config, dataset)


def train(config: Config, dataset: "Dataset", until: int | None = None) -> None:
    """Trains one experiment to its end, under the work directory.

    Args:
        config: of the run.
        dataset: on which to train.
        until: the step to stop after, if it is not to be trained to its end.

    Raises:
        Stopped: if a signal has stopped it; all is saved.
    """
    from prunejax import runs
    from prunejax.training import hosts

    name, run_dir = config.experiment.name, cli.workdir() / config.experiment.name
    if FLAGS.tensorboard:
        display.require_tensorboard()
    if FLAGS.devices:
        raise UserError(
            "--devices only extrapolates with --dry_run; training uses every device it finds"
        )
    if config.experiment.pruning is None:
        config = _keep_warm_starts(config, dataset)
    start = runs.begin(config, dataset, run_dir)
    total = start.total_steps
    if start.done == total:
        print(f"{name}: finished before, all {total} steps; nothing to do")
        return
    print_failed = display.make_failure_notice(start)
    reached = False
    with (
        process.stop_signals() as stop_requested,
        display.training_bar(start) as on_step,
        display.tensorboard(start, FLAGS.tensorboard) as write_events,
    ):

        def on_report(progress: "Progress") -> None:
            nonlocal reached
            print_failed(progress)
            write_events(progress)
            reached = until is not None and progress.step >= until

        def should_stop() -> bool:
            return reached or stop_requested()

        outcome = runs.train(start, on_step, on_report, should_stop)
    # Now, and not before: also a signal while the display was closed is one.
    stopped = hosts.any_of(stop_requested())
    if not outcome.finished and (stopped or not reached):
        raise cli.Stopped(
            f"{name}: stopped at step {outcome.step} of {total}, saved; run it again to go on"
        )
    count, failed = len(start.members), int(outcome.failed.sum())
    note = f"; {failed} of them failed" if failed else ""
    print(
        f"{name}: trained {counted(count, 'model')} for {counted(outcome.step, 'step')}{note}; "
        f"checkpoint in {run_dir}"
    )
    if stopped:
        raise cli.Stopped(f"{name}: finished; stopped after it")


def _keep_warm_starts(config: Config, dataset: "Dataset") -> Config:
    """A dense run that keeps the checkpoints from which the study's pruned runs start."""
    from prunejax import runs

    kept = set(config.checkpoint.keep_at)
    for experiment in cli.study():
        if experiment.dense_parent != config.experiment.name:
            continue
        # What cannot be trained is refused when it is its turn; it does not concern this one.
        with contextlib.suppress(UserError):
            kept.add(runs.start_step(cli.make_config(experiment), dataset))
    kept.discard(0)
    return replace(config, checkpoint=replace(config.checkpoint, keep_at=tuple(sorted(kept))))


def train_dense_prefix(config: Config, dataset: "Dataset") -> None:
    """Trains the dense parent of an experiment with a start step until that step.

    It does nothing if the dense run has come so far, or the experiment is under way. The dense run
    can be trained on to its end like any other.

    Args:
        config: of the pruned run.
        dataset: on which to train.
    """
    from prunejax import runs
    from prunejax.runs.checkpoint import newest
    from prunejax.training import hosts

    experiment = config.experiment
    step = runs.start_step(config, dataset)
    if experiment.pruning is None or experiment.pruning.start is None or step == 0:
        return
    run_dir = cli.workdir() / experiment.name
    dense_dir = cli.workdir() / str(experiment.dense_parent)

    def is_needed() -> bool:
        if (run_dir / "config.json").exists():
            return False
        dense = newest(dense_dir) if (dense_dir / "config.json").exists() else None
        return dense is None or dense.step < step

    if hosts.on_all_processes(is_needed):
        print(f"{experiment.name}: first its dense models, {dense_dir.name}, to step {step}")
        dense = find_experiment(cli.study(), dense_dir.name, FLAGS.study)
        train(cli.make_config(dense), dataset, until=step)


if __name__ == "__main__":
    EXAMPLE = "python -m experiments.train --preset=digits --experiment=scl_gmp"
    cli.run(main, __doc__, EXAMPLE, ("experiment", *cli.TRAINING))
