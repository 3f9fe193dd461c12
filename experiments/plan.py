"""What training would cost, before it is paid: --dry_run."""

import math
import statistics
import timeit
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from experiments import flags as cli
from prunejax.config import Config
from prunejax.config.counts import counted
from prunejax.config.levels import fraction

if TYPE_CHECKING:
    from prunejax.data import Dataset
    from prunejax.training.members import Members
    from prunejax.training.task import Task

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
    from prunejax.training.forks import model_steps, models_trained
    from prunejax.training.members import members_of
    from prunejax.training.task import make_tasks, resolve

    config = resolve(config, dataset)
    members = members_of(config)
    levels = sorted(set(members.sparsities.tolist()))
    axes = f"{counted(config.models, 'seed')} x sparsities {', '.join(map(fraction, levels))}"
    pruning = config.experiment.pruning
    if pruning is not None and pruning.begins:
        axes += f" x begins {', '.join(str(begin) for begin in pruning.begins)}"
    print(f"{config.experiment.name}: {counted(len(members), 'model')} = {axes}")
    tasks = make_tasks(config, dataset)
    first = next(iter(tasks.values()))
    stands_at = _stands_at(config, first, members, dataset, dense_first)
    total = 0.0
    for task in tasks.values():
        counts = models_trained(task, members, stands_at if task is first else 0 * stands_at)
        total += _print_stage(task, members, dataset, model_steps(counts))
    if is_gradual(config.experiment):
        _print_saving(first, members, stands_at)
    devices = counted(FLAGS.devices or jax.device_count(), "such device")
    print(f"  about {total / 3600:.3g} hours on {devices}")
    return total


def _stands_at(
    config: Config, task: "Task", members: "Members", dataset: "Dataset", dense_first: bool
) -> np.ndarray:
    """The step that each member starts at: 0, or that of its fork from the dense run."""
    from prunejax.runs.forked import find_fork
    from prunejax.training.forks import first_updates

    fork = find_fork(config, task, members, cli.workdir(), dataset.checksum)
    if fork is not None:
        return fork.stands_at
    if dense_first and config.execution.fork:
        return np.maximum(np.array(first_updates(task))[members.begins], 0)
    return np.zeros(len(members), int)


def _print_saving(task: "Task", members: "Members", stands_at: np.ndarray) -> None:
    """What is saved because members are one model until their pruning begins."""
    from prunejax.training.forks import model_steps, models_trained

    alone = task.steps * len(members)
    needed = model_steps(models_trained(task, members, stands_at))
    forked = int(np.sum(stands_at > 0))
    dense = f", {counted(forked, 'model')} from {task.config.experiment.dense}" if forked else ""
    print(
        f"  forks: {needed:,} of {alone:,} model steps of stage {task.stage} are trained, "
        f"{1 - needed / alone:.0%} saved{dense}"
    )


def _print_stage(task: "Task", members: "Members", dataset: "Dataset", model_steps: int) -> float:
    """The line of one stage; returns its seconds.

    Args:
        task: the stage.
        members: the population's.
        dataset: on which to train.
        model_steps: steps of single models that are trained.
    """
    from prunejax.training import population, programs
    from prunejax.training.devices import target_of
    from prunejax.training.plan import make_plan, step_flops

    program = programs.make_programs(task, dataset)
    plan = make_plan(task, len(members), dataset, program)
    turns = min(2, len(plan.chunks))  # each is called while the other runs
    rehearsal = population.rehearse(task, members, dataset, plan, program, turns)
    times = timeit.repeat(partial(next, rehearsal), number=turns, repeat=6)
    # The first call is slower.
    steps = programs.steps_per_call(task.config, target_of(plan.mesh).platform)
    seconds = statistics.median(times[1:]) / turns / steps
    batch_size = min(task.settings.batch_size, len(dataset.train_labels))
    used, calls = plan.mesh.size, float(len(plan.chunks))
    if FLAGS.devices:
        calls = math.ceil(len(members) / FLAGS.devices) * used / plan.models_per_program
    of_program = step_flops(task, dataset, program, plan)
    flops = of_program / plan.models_per_program * model_steps
    rate = plan.models_per_program * batch_size / seconds
    print(
        f"  {task.stage}: {counted(task.steps, 'step')} of batch {batch_size}; "
        f"{flops / 1e15:.4g} PFLOP in all; "
        f"{counted(len(plan.chunks), 'program')} a step of up to "
        f"{counted(plan.models_per_program, 'model')}, "
        f"{plan.bytes / 2**30:.2f} GiB; "
        f"{rate:,.0f} images/s on {counted(used, 'device')} here"
    )
    return model_steps / len(members) * seconds * calls
