"""What training would cost, before it is paid: --dry_run."""

import statistics
import timeit
from functools import partial

from absl import flags

from prunejax.config import Config

FLAGS = flags.FLAGS


def print_plan(config: Config, who, dataset) -> float:  # noqa: ANN001
    """Prints what training would cost, from the compiled programs and a few real steps; returns its seconds."""
    import jax

    from prunejax import population, programs

    sparsities = ", ".join(f"{level:.3g}" for level in sorted(set(who.sparsities.tolist())))
    print(f"{config.experiment.name}: {len(who)} models = {config.models} seeds x sparsities {sparsities}")
    total = 0.0
    for stage, steps in population.stage_steps(config, len(dataset.train_labels)).items():
        program = programs.make_programs(config, stage, dataset)
        plan = programs.plan(config, stage, len(who), dataset, program)
        turns = min(2, len(plan.chunks))  # each is called while the other runs
        rehearsal = population.rehearse(config, stage, who, dataset, plan, program, turns)
        times = timeit.repeat(partial(next, rehearsal), number=turns, repeat=6)
        seconds = statistics.median(times[1:]) / turns / programs.steps_per_call(config)  # the first call is slower
        batch_size = min(config.stage(stage).batch_size, len(dataset.train_labels))
        used, calls = plan.mesh.size, len(plan.chunks)
        if FLAGS.devices:
            calls = -(-len(who) // FLAGS.devices) * used / plan.models_per_program
        total += steps * seconds * calls
        flops = plan.flops / plan.models_per_program * len(who) * steps
        print(
            f"  {stage}: {steps} steps of batch {batch_size}; {flops / 1e15:.4g} PFLOP in all; "
            f"{len(plan.chunks)} program(s) a step of up to {plan.models_per_program} models, "
            f"{plan.bytes / 2**30:.2f} GiB; {plan.models_per_program * batch_size / seconds:,.0f} images/s "
            f"on {used} devices here"
        )
    print(f"  about {total / 3600:.3g} hours on {FLAGS.devices or jax.device_count()} such devices")
    return total
