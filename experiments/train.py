"""Trains the population of one experiment. Run again, it resumes, or does nothing if it is finished."""

import time
from functools import partial

import numpy as np
from absl import flags

from experiments import flags as cli
from experiments.logs import MetricsLog, progress, require_tensorboard, tell_frozen
from experiments.plan import print_plan
from prunejax.config import Config, UserError, validate

FLAGS = flags.FLAGS


def main() -> None:
    """The experiment that the flags name."""
    config = cli.make_config(FLAGS.experiment)
    train(config, cli.load_data(config.data))


def train(config: Config, dataset) -> float | None:  # noqa: ANN001
    """Trains `config` to its end in its directory under the work directory; with --dry_run only says the seconds."""
    from prunejax import checkpoint, hosts, population, programs, rundir

    num_train = len(dataset.train_labels)
    validate(config, num_train, dataset.image_shape[-1])
    name, run_dir = config.experiment.name, cli.workdir() / config.experiment.name
    who, steps = population.members(config), population.stage_steps(config, num_train)
    total = sum(steps.values())
    if FLAGS.tensorboard:
        require_tensorboard()
    if FLAGS.dry_run:
        return print_plan(config, who, dataset)
    if FLAGS.devices:
        raise UserError("--devices only extrapolates with --dry_run; training uses every device it finds")
    before = hosts.together(lambda: checkpoint.newest(run_dir) if rundir.check_run(run_dir, config, dataset) else None)
    hosts.require_same("the newest checkpoint", repr(before and (before.step, before.damaged)))
    done, state = (before.step, before.state) if before else (0, None)
    if done == total:
        return print(f"{name}: finished before, all {total} steps; nothing to do")
    if config.experiment.parent and not done:
        state = hosts.together(lambda: checkpoint.load_parent(config, cli.workdir(), who, dataset.checksum))
    shapes = programs.state_shapes(config, checkpoint.stage_of(steps, done), len(who), *dataset.shapes)
    images = {stage: config.stage(stage).epochs * num_train * len(who) for stage in steps}
    with (
        cli.stop_signals() as asked_to_stop,
        rundir.open_run(run_dir, config, dataset, steps, shapes),
        checkpoint.open_manager(run_dir, config, done, before.damaged if before else ()) as manager,
        hosts.together(lambda: MetricsLog(run_dir, done, who.sparsities, FLAGS.tensorboard)) as log,
        progress(name, images, steps, done) as on_step,
    ):
        if done:
            print(f"{name}: resuming at step {done} of {total}")
        saved, saved_at = done, time.monotonic()
        frozen = np.asarray(state.frozen_at) >= 0 if state else np.zeros(len(who), bool)

        def is_late() -> bool:
            return time.monotonic() - saved_at > 60 * config.checkpoint.every_minutes

        def report_now() -> bool:  # several processes wait for the next report, at which they agree
            return hosts.alone() and (asked_to_stop() or is_late())

        for now in population.fit(config, who, dataset, state, done, on_step, report_now):
            hosts.together(partial(log.write, now))
            frozen = tell_frozen(config, who, now, frozen)
            asked, late = hosts.any_of(asked_to_stop()), hosts.any_of(is_late())
            stop = asked and now.step < total
            if now.ends_stage or stop or late or now.step - saved >= config.checkpoint.every_steps:
                checkpoint.save(manager, config, now.step, now.arrays)
                saved, saved_at = now.step, time.monotonic()
            if stop:
                raise cli.Stopped(f"{name}: stopped at step {now.step} of {total}, saved; run it again to go on")
    excluded = f"; {frozen.sum()} of them excluded" if frozen.any() else ""
    print(f"{name}: trained {len(who)} models for {total} steps{excluded}; checkpoint in {run_dir}")
    if hosts.any_of(asked_to_stop()):
        raise cli.Stopped(f"{name}: finished; stopped after it")


if __name__ == "__main__":
    EXAMPLE = "python -m experiments.train --preset=digits --experiment=scl_gmp --workdir=runs/digits"
    cli.run(main, __doc__, EXAMPLE, ("experiment", *cli.TRAINING))
