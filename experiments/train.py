"""Trains the population of one experiment. Run again, it resumes, or does nothing if it is finished."""

import statistics
import time
import timeit

from absl import flags

from experiments import flags as cli
from experiments.logs import MetricsLog, progress, require_tensorboard
from prunejax.config import Config, UserError, validate

FLAGS = flags.FLAGS


def main() -> None:
    """The experiment that the flags name."""
    config = cli.make_config(FLAGS.experiment)
    from prunejax import data

    train(config, data.load(config.data, FLAGS.data_dir))


def train(config: Config, dataset) -> float | None:  # noqa: ANN001
    """Trains `config` to its end in its directory under the work directory; with --dry_run only says the seconds."""
    from prunejax import checkpoint, population

    num_train = len(dataset.train_labels)
    validate(config, num_train, dataset.image_shape[-1])
    name, run_dir = config.experiment.name, cli.workdir() / config.experiment.name
    who, steps = population.members(config), population.total_steps(config, num_train)
    total = sum(steps.values())
    if FLAGS.tensorboard:
        require_tensorboard()
    if FLAGS.dry_run:
        return print_plan(config, who, dataset)
    if FLAGS.devices:
        raise UserError("--devices only extrapolates with --dry_run; training uses every device it finds")
    done = checkpoint.check_run(run_dir, config, dataset)
    if done == total:
        return print(f"{name}: finished before, all {total} steps; nothing to do")
    dense = config.experiment.parent and not done
    state = checkpoint.load_parent(config, cli.workdir(), who, dataset.checksum) if dense else None
    shapes = population.state_shapes(config, checkpoint.stage_of(steps, done), len(who), dataset)
    checkpoint.open_run(run_dir, config, dataset, total, shapes)
    images = {stage: config.stage(stage).epochs * num_train * len(who) for stage in steps}
    with (
        checkpoint.open_manager(run_dir, config) as manager,
        MetricsLog(run_dir, done, who.sparsities, FLAGS.tensorboard) as log,
        progress(name, images, steps, done) as on_step,
    ):
        if done:
            print(f"{name}: resuming at step {done} of {total}")
            state = checkpoint.restore(manager, done, shapes)
        saved, saved_at = done, time.monotonic()
        for now in population.fit(config, who, dataset, state, done, on_step):
            log.write(now)
            late = time.monotonic() - saved_at > 60 * config.checkpoint.every_minutes
            if now.ends_stage or late or now.step - saved >= config.checkpoint.every_steps:
                checkpoint.save(manager, now.step, now.state)
                saved, saved_at = now.step, time.monotonic()
    print(f"{name}: trained {len(who)} models for {total} steps; checkpoint in {run_dir}")


def print_plan(config: Config, who, dataset) -> float:  # noqa: ANN001
    """Prints what training would cost, from the compiled programs and a few real steps; returns its seconds."""
    import jax

    from prunejax import population

    sparsities = ", ".join(f"{level:.3g}" for level in sorted(set(who.sparsities.tolist())))
    print(f"{config.experiment.name}: {len(who)} models = {config.models} seeds x sparsities {sparsities}")
    total = 0.0
    for stage, steps in population.total_steps(config, len(dataset.train_labels)).items():
        programs = population.make_programs(config, stage, dataset)
        plan = population.plan(config, stage, who, dataset, programs)
        chunks = population.chunk_rows(len(who), plan.models_per_program)
        first = population.Members(who.seeds[chunks[0]], who.sparsities[chunks[0]])
        call = population.rehearse(config, stage, first, dataset, programs)
        call()  # the first run of a program is slower
        seconds = statistics.median(timeit.repeat(call, number=1, repeat=5)) / population.steps_per_call(config)
        batch_size = min(config.stage(stage).batch_size, len(dataset.train_labels))
        used = population.make_mesh(plan.models_per_program).size
        total += (
            steps
            * seconds
            * (-(-len(who) // FLAGS.devices) * used / plan.models_per_program if FLAGS.devices else len(chunks))
        )
        flops = plan.flops / plan.models_per_program * len(who) * steps
        print(
            f"  {stage}: {steps} steps of batch {batch_size}; {flops / 1e15:.4g} PFLOP in all; "
            f"{len(chunks)} program(s) a step of up to {plan.models_per_program} models, {plan.bytes / 2**30:.2f} GiB; "
            f"{plan.models_per_program * batch_size / seconds:,.0f} images/s on {used} devices here"
        )
    print(f"  about {total / 3600:.3g} hours on {FLAGS.devices or jax.local_device_count()} such devices")
    return total


if __name__ == "__main__":
    EXAMPLE = "python -m experiments.train --preset=digits --experiment=scl_gmp --workdir=runs/digits"
    cli.run(main, __doc__, EXAMPLE, ("experiment", *cli.TRAINING))
