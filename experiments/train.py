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
    _train_trunk(config, dataset)
    train(config, dataset)


def train(config: Config, dataset: "Dataset", until: int | None = None) -> None:
    """Trains one experiment to its end, under the work directory.

    Args:
        config: of the run.
        dataset: on which to train.
        until: the step to stop after, if it is not to be trained to its end.

    Raises:
        Stopped: if a signal asked to stop; all is saved.
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
        config = _with_forks(config, dataset)
    start = runs.begin(config, dataset, run_dir)
    total = start.total_steps
    if start.done == total:
        print(f"{name}: finished before, all {total} steps; nothing to do")
        return
    print_frozen = display.make_frozen_notice(start)
    reached = False
    with (
        process.stop_signals() as asked_to_stop,
        display.training_bar(start) as on_step,
        display.tensorboard(start, FLAGS.tensorboard) as write_events,
    ):

        def on_report(progress: "Progress") -> None:
            nonlocal reached
            print_frozen(progress)
            write_events(progress)
            reached = until is not None and progress.step >= until

        def should_stop() -> bool:
            return reached or asked_to_stop()

        outcome = runs.train(start, on_step, on_report, should_stop)
    # Now, and not before: also a signal while the display was closed is one.
    stopped = hosts.any_of(asked_to_stop())
    if not outcome.finished and (stopped or not reached):
        raise cli.Stopped(
            f"{name}: stopped at step {outcome.step} of {total}, saved; run it again to go on"
        )
    count, excluded = len(start.members), int(outcome.frozen.sum())
    note = f"; {excluded} of them excluded" if excluded else ""
    print(
        f"{name}: trained {counted(count, 'model')} for {counted(outcome.step, 'step')}{note}; "
        f"checkpoint in {run_dir}"
    )
    if stopped:
        raise cli.Stopped(f"{name}: finished; stopped after it")


def _with_forks(config: Config, dataset: "Dataset") -> Config:
    """A dense run, with the checkpoints kept that the study's gradually pruned runs start from."""
    from prunejax import runs

    kept = set(config.checkpoint.keep_at)
    for experiment in cli.study():
        if experiment.dense != config.experiment.name:
            continue
        # What cannot be trained is refused when it is its turn; it does not concern this one.
        with contextlib.suppress(UserError):
            kept |= set(runs.fork_steps(cli.make_config(experiment), dataset))
    return replace(config, checkpoint=replace(config.checkpoint, keep_at=tuple(sorted(kept))))


def _train_trunk(config: Config, dataset: "Dataset") -> None:
    """Trains the dense run of a sweep over begins as far as its members share it.

    That is if it is not there at all; it can be trained on to its end as any other.
    """
    from prunejax import runs
    from prunejax.training import hosts

    experiment = config.experiment
    steps = runs.fork_steps(config, dataset)
    if experiment.pruning is None or not experiment.pruning.begins or not steps:
        return
    places = [cli.workdir() / name for name in (experiment.name, str(experiment.dense))]
    if hosts.on_all_processes(lambda: any((place / "config.json").exists() for place in places)):
        return
    dense = cli.make_config(find_experiment(cli.study(), str(experiment.dense), FLAGS.study))
    print(f"{experiment.name}: first its dense models, {experiment.dense}, to step {steps[-1]}")
    train(dense, dataset, until=steps[-1])


if __name__ == "__main__":
    EXAMPLE = "python -m experiments.train --preset=digits --experiment=scl_gmp"
    cli.run(main, __doc__, EXAMPLE, ("experiment", *cli.TRAINING))
