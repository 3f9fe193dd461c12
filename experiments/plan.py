"""What training would cost, before it is paid: --dry_run."""

import math
import statistics
import timeit
from functools import partial
from typing import TYPE_CHECKING

from absl import flags

from prunejax.config import Config
from prunejax.config.levels import fraction

if TYPE_CHECKING:
    from prunejax.data import Dataset
    from prunejax.training.members import Members
    from prunejax.training.task import Task

FLAGS = flags.FLAGS


def print_plan(config: Config, dataset: "Dataset") -> float:
    """Prints what training would cost, from the compiled programs and a few real steps.

    Returns:
        Its seconds.
    """
    import jax

    from prunejax.training.members import members_of
    from prunejax.training.task import make_tasks, resolve

    config = resolve(config, dataset)
    members = members_of(config)
    levels = sorted(set(members.sparsities.tolist()))
    sparsities = ", ".join(fraction(level) for level in levels)
    print(
        f"{config.experiment.name}: {len(members)} models = {config.models} seeds x sparsities "
        f"{sparsities}"
    )
    total = 0.0
    for task in make_tasks(config, dataset).values():
        total += _print_stage(task, members, dataset)
    print(f"  about {total / 3600:.3g} hours on {FLAGS.devices or jax.device_count()} such devices")
    return total


def _print_stage(task: "Task", members: "Members", dataset: "Dataset") -> float:
    """The line of one stage; returns its seconds."""
    from prunejax.training import population, programs
    from prunejax.training.plan import make_plan

    program = programs.make_programs(task, dataset)
    plan = make_plan(task, len(members), dataset, program)
    turns = min(2, len(plan.chunks))  # each is called while the other runs
    rehearsal = population.rehearse(task, members, dataset, plan, program, turns)
    times = timeit.repeat(partial(next, rehearsal), number=turns, repeat=6)
    # The first call is slower.
    seconds = statistics.median(times[1:]) / turns / programs.steps_per_call(task.config)
    batch_size = min(task.settings.batch_size, len(dataset.train_labels))
    used, calls = plan.mesh.size, float(len(plan.chunks))
    if FLAGS.devices:
        calls = math.ceil(len(members) / FLAGS.devices) * used / plan.models_per_program
    flops = plan.flops / plan.models_per_program * len(members) * task.steps
    print(
        f"  {task.stage}: {task.steps} steps of batch {batch_size}; "
        f"{flops / 1e15:.4g} PFLOP in all; "
        f"{len(plan.chunks)} program(s) a step of up to {plan.models_per_program} models, "
        f"{plan.bytes / 2**30:.2f} GiB; "
        f"{plan.models_per_program * batch_size / seconds:,.0f} images/s on {used} devices here"
    )
    return task.steps * seconds * calls
