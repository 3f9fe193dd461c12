"""Which members of a population are trained at a step, and which only follow another.

A gradually pruned member is bit for bit the dense model of its seed until its schedule's first
update. So the members of one seed whose pruning has not begun are one model: it is trained once,
as the *trunk*, and each member leaves it at its own begin. One that has been forked from the
checkpoint of a dense run waits there until the population's counter has come to it.

Members that have begun together share a program, whose schedule is an argument: the branch in it
depends on nothing that differs between members, and stays a branch under `vmap`.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from prunejax.methods import stages_of
from prunejax.pruning import ScheduleSteps
from prunejax.pruning.schedules import NEVER
from prunejax.training.members import Members
from prunejax.training.task import Task


class Branch(NamedTuple):
    """Members that take a step together, all by one schedule."""

    trained: Int[np.ndarray, " trained"]
    """The members that take it."""
    schedule: ScheduleSteps
    rows: Int[np.ndarray, " rows"]
    """Those that it is taken for, in ascending order."""
    places: Int[np.ndarray, " rows"]
    """Of each of `rows` the place in `trained` of the one that is trained for it."""


def first_updates(task: Task) -> list[int]:
    """The step of the stage before which masks are first updated, for each begin.

    It is negative where there is no update in the stage.
    """
    return [int(task.pruner.updates(schedule, 0.5).first) for schedule in task.schedules]


def begins_after(
    task: Task, members: Members, stands_at: Int[np.ndarray, " models"]
) -> Int[np.ndarray, " models"]:
    """How many steps of the stage each member is its dense model for.

    Without `execution.fork` none is taken for it, but for what has been forked already; and after
    the first stage none is it any more, whatever that stage prunes.
    """
    if not task.config.execution.fork or task.stage != stages_of(task.config)[0]:
        return np.asarray(stands_at)
    return np.array(first_updates(task))[members.begins]


def branches_at(
    task: Task, members: Members, stands_at: Int[np.ndarray, " models"], step: int
) -> list[Branch]:
    """What is to be trained at a step: the members that have begun, and the trunk of the others.

    Args:
        task: the stage.
        members: the population's.
        stands_at: the step of the stage that each had come to when this session began; those
            beyond `step` wait.
        step: of the stage.
    """
    has_come = stands_at <= step
    begun = has_come & (begins_after(task, members, stands_at) <= step)
    found = []
    # Members of different begins may have one schedule, as in a stage that prunes nothing.
    for schedule in dict.fromkeys(task.schedules):
        alike = [place for place, other in enumerate(task.schedules) if other == schedule]
        rows = np.flatnonzero(begun & np.isin(members.begins, alike))
        if len(rows):
            found.append(Branch(rows, schedule, rows, np.arange(len(rows))))
    rows = np.flatnonzero(has_come & ~begun)
    if len(rows):
        _, leaders, places = np.unique(members.seeds[rows], return_index=True, return_inverse=True)
        found.append(Branch(rows[leaders], NEVER, rows, places))
    return found


def changes(task: Task, members: Members, stands_at: Int[np.ndarray, " models"]) -> list[int]:
    """The steps of the stage, ascending, at which `branches_at` may be another."""
    steps = {*begins_after(task, members, stands_at).tolist(), *stands_at.tolist()}
    return sorted(step for step in steps if 0 < step < task.steps)


def models_trained(
    task: Task, members: Members, stands_at: Int[np.ndarray, " models"]
) -> list[tuple[int, int]]:
    """How many models are trained at a step, from each step on at which that number changes.

    Returns:
        (step of the stage, models), from the first step that is left; at the stage's last there
        are none.
    """
    start = int(stands_at.min())
    steps = [start, *(step for step in changes(task, members, stands_at) if step > start)]
    counts = []
    for step in steps:
        branches = branches_at(task, members, stands_at, step)
        counts.append((step, sum(len(branch.trained) for branch in branches)))
    return [*counts, (task.steps, 0)]


def model_steps(counts: list[tuple[int, int]]) -> int:
    """Steps of single models, of what `models_trained` returns."""
    total = 0
    for (step, models), (following, _) in itertools.pairwise(counts):
        total += (following - step) * models
    return total
