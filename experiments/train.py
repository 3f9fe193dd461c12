"""Trains the population of one experiment. Run again, it resumes, or does nothing if finished."""

from typing import TYPE_CHECKING

from absl import flags

from experiments import display, process
from experiments import flags as cli
from experiments.plan import print_plan
from prunejax.config import Config, UserError

if TYPE_CHECKING:
    from prunejax.data import Dataset
    from prunejax.training.population import Progress

FLAGS = flags.FLAGS


def main() -> None:
    """The experiment that the flags name."""
    config = cli.make_config(cli.chosen_experiment())
    train(config, cli.load_data(config.data))


def train(config: Config, dataset: "Dataset") -> float | None:
    """Trains one experiment to its end, under the work directory.

    Returns:
        with --dry_run, which only prints what it would cost, the seconds.

    Raises:
        Stopped: if a signal asked to stop; all is saved.
    """
    from prunejax import runs
    from prunejax.training import hosts

    name, run_dir = config.experiment.name, cli.workdir() / config.experiment.name
    if FLAGS.tensorboard:
        display.require_tensorboard()
    if FLAGS.dry_run:
        return print_plan(config, dataset)
    if FLAGS.devices:
        raise UserError(
            "--devices only extrapolates with --dry_run; training uses every device it finds"
        )
    start = runs.begin(config, dataset, run_dir)
    total = start.total_steps
    if start.done == total:
        print(f"{name}: finished before, all {total} steps; nothing to do")
        return None
    print_frozen = display.make_frozen_notice(start)
    with (
        process.stop_signals() as asked_to_stop,
        display.training_bar(start) as on_step,
        display.tensorboard(start, FLAGS.tensorboard) as write_events,
    ):

        def on_report(progress: "Progress") -> None:
            print_frozen(progress)
            write_events(progress)

        outcome = runs.train(start, on_step, on_report, asked_to_stop)
    # Now, and not before: also a signal while the display was closed is one.
    stopped = hosts.any_of(asked_to_stop())
    if not outcome.finished:
        raise cli.Stopped(
            f"{name}: stopped at step {outcome.step} of {total}, saved; run it again to go on"
        )
    count, excluded = len(start.members), int(outcome.frozen.sum())
    note = f"; {excluded} of them excluded" if excluded else ""
    print(f"{name}: trained {count} models for {total} steps{note}; checkpoint in {run_dir}")
    if stopped:
        raise cli.Stopped(f"{name}: finished; stopped after it")
    return None


if __name__ == "__main__":
    EXAMPLE = "python -m experiments.train --preset=digits --experiment=scl_gmp"
    cli.run(main, __doc__, EXAMPLE, ("experiment", *cli.TRAINING))
