"""What training would cost, before it is paid: --dry_run."""

import math
import statistics
import timeit
from functools import partial
from typing import TYPE_CHECKING

from absl import flags

from experiments import flags as cli
from prunejax.config import Config
from prunejax.config.counts import counted
from prunejax.config.levels import fraction

if TYPE_CHECKING:
    from prunejax.data import Dataset
    from prunejax.training.members import Members
    from prunejax.training.spec import StageSpec

FLAGS = flags.FLAGS


def print_plan(config: Config, dataset: "Dataset", dense_first: bool = False) -> float:
    """Prints what training would cost, from the compiled programs and a few real steps.

    Args:
        config: of the run.
        dataset: on which to train.
        dense_first: whether the dense run, if it is not there yet, will be before this is trained.

    Returns:
        Its seconds.
    """
    import jax

    from prunejax.methods import is_gradual
    from prunejax.training.members import members_of
    from prunejax.training.spec import make_specs, resolve

    config = resolve(config, dataset)
    members = members_of(config)
    levels = sorted(set(members.sparsities.tolist()))
    axes = f"{counted(config.models, 'seed')} x sparsities {', '.join(map(fraction, levels))}"
    print(f"{config.experiment.name}: {counted(len(members), 'model')} = {axes}")
    specs = make_specs(config, dataset)
    first = next(iter(specs.values()))
    start = _start_step(config, first, members, dataset, dense_first)
    total = 0.0
    for spec in specs.values():
        steps = spec.steps - start if spec is first else spec.steps
        total += _print_stage(spec, members, dataset, steps)
    if is_gradual(config.experiment):
        print(
            f"  warm start at step {start}: {start / first.steps:.0%} of the steps of stage "
            f"{first.stage} are those of {config.experiment.dense_parent}"
        )
    devices = counted(FLAGS.devices or jax.device_count(), "such device")
    print(f"  about {total / 3600:.3g} hours on {devices}")
    return total


def _start_step(
    config: Config, spec: "StageSpec", members: "Members", dataset: "Dataset", dense_first: bool
) -> int:
    """The step of its first stage at which a run starts."""
    from prunejax.runs import start_step
    from prunejax.runs.warm_start import find_warm_start

    warm = find_warm_start(config, spec, members, cli.workdir(), dataset.checksum)
    if warm is not None:
        return warm.step
    return start_step(config, dataset) if dense_first else 0


def _print_stage(spec: "StageSpec", members: "Members", dataset: "Dataset", steps: int) -> float:
    """The line of one stage; returns its seconds.

    Args:
        spec: the stage.
        members: the population's.
        dataset: on which to train.
        steps: that are trained.
    """
    from prunejax.training import population, programs
    from prunejax.training.devices import target_of
    from prunejax.training.plan import make_plan, step_flops

    program = programs.make_programs(spec, dataset)
    plan = make_plan(spec, len(members), dataset, program)
    turns = min(2, len(plan.chunks))  # each is called while the other runs
    rehearsal = population.rehearse(spec, members, dataset, plan, program, turns)
    times = timeit.repeat(partial(next, rehearsal), number=turns, repeat=6)
    # The first call is slower.
    per_call = programs.steps_per_call(spec.config, target_of(plan.mesh).platform)
    seconds = statistics.median(times[1:]) / turns / per_call
    batch_size = min(spec.settings.batch_size, len(dataset.train_labels))
    used, calls = plan.mesh.size, float(len(plan.chunks))
    if FLAGS.devices:
        calls = math.ceil(len(members) / FLAGS.devices) * used / plan.models_per_program
    of_program = step_flops(spec, dataset, program, plan)
    flops = of_program / plan.models_per_program * len(members) * steps
    rate = plan.models_per_program * batch_size / seconds
    print(
        f"  {spec.stage}: {counted(spec.steps, 'step')} of batch {batch_size}; "
        f"{flops / 1e15:.4g} PFLOP in all; "
        f"{counted(len(plan.chunks), 'program')} a step of up to "
        f"{counted(plan.models_per_program, 'model')}, "
        f"{plan.bytes / 2**30:.2f} GiB; "
        f"{rate:,.0f} images/s on {counted(used, 'device')} here"
    )
    return steps * seconds * calls
