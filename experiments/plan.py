"""What training would cost, before it is paid: --dry_run."""

import statistics
import timeit

from absl import flags

from prunejax.config import Config

FLAGS = flags.FLAGS


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
