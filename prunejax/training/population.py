"""A population, seeds x sparsities x begins, trained together: vmapped, split, one counter."""

import dataclasses
from collections.abc import Callable, Collection, Iterator
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from prunejax.config import Config
from prunejax.data import Dataset
from prunejax.methods import is_one_shot
from prunejax.training import ahead, forks
from prunejax.training import step as single
from prunejax.training.devices import PER_MODEL, SHARED, place, target_of
from prunejax.training.forks import Branch
from prunejax.training.members import Members, members_of
from prunejax.training.plan import Plan, make_plan
from prunejax.training.programs import (
    Programs,
    Steps,
    compile_init,
    make_programs,
    schedule_argument,
    shared_arguments,
    state_shapes,
    steps_per_call,
)
from prunejax.training.progress import Group, Progress, Sums, state_of
from prunejax.training.state import TrainState, under_own_switches
from prunejax.training.step import PerModel
from prunejax.training.task import Task, make_tasks, resolve


def stage_steps(tasks: dict[str, Task]) -> dict[str, int]:
    """Steps of each stage, in order."""
    return {stage: task.steps for stage, task in tasks.items()}


def init(task: Task, members: Members, previous: TrainState | None = None) -> TrainState:
    """Every member's state at the start of a stage, NumPy `[models, ...]`; see `step.init`.

    One member at a time: a vmapped random generator compiles for longer than all seeds take to
    draw.
    """

    def kept(index: int) -> TrainState | None:
        return jax.tree.map(lambda leaf: leaf[index], previous)

    make = partial(compile_init, task, kept(0))
    init_one = ahead.taken(ahead.key_of(task, "init"), make)
    states = []
    for index, seed in enumerate(members.seeds):
        states.append(jax.device_get(init_one(seed, kept(index))))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *states)


@under_own_switches
def compile_ahead(config: Config, dataset: Dataset) -> None:
    """Compiles what a run will need from its first step to its last; see `training.ahead`."""
    config = resolve(config, dataset)
    members, previous = members_of(config), None
    for task in make_tasks(config, dataset).values():
        if not is_one_shot(config.experiment):
            make = partial(compile_init, task, previous)
            ahead.made_ahead(ahead.key_of(task, "init"), make)
        previous = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), state_shapes(task, 1)
        )
        program = make_programs(task, dataset, ahead.made_ahead)
        plan = make_plan(task, len(members), dataset, program)
        # An epoch's last batch may be smaller.
        num_train, batch_size = len(dataset.train_labels), task.settings.batch_size
        batch_sizes = {min(batch_size, num_train), num_train % batch_size} - {0}
        for rows in plan.chunks:
            for size in batch_sizes:
                program(len(rows), size)


def prune_once(task: Task, members: Members, dense: TrainState) -> TrainState:
    """One-shot pruning of `[models, ...]` dense members, each to its own sparsity."""
    prune = jax.jit(jax.vmap(partial(single.prune_once, task)))
    return jax.device_get(prune(dense, members.seeds, members.sparsities))


def fit(
    config: Config,
    members: Members,
    dataset: Dataset,
    state: TrainState | None = None,
    done: int = 0,
    on_step: Callable[[str, float], None] = lambda stage, step: None,
    report_now: Callable[[], bool] = lambda: False,
    stands_at: np.ndarray | None = None,
) -> Iterator[Progress]:
    """Trains a population through all its stages.

    Args:
        config: the run.
        members: the population's.
        dataset: on which to train.
        state: the state after `done` steps; at 0 the dense parents of a one-shot run, else None.
        done: steps through all stages that are behind it.
        on_step: called after every program with the stage and how many of its steps are done, a
            fraction while some chunks of the population are ahead of others.
        report_now: asked after every call of the programs; True asks for the progress now.
        stands_at: the step of the first stage that each member of `state` has come to, int
            `[models]`, none before `done`; see `forks`. None: all are at `done`.

    Yields:
        the progress every `log_every_steps` steps and at the end of each epoch, all members at the
        same step; besides wherever members fork, and at the steps of `checkpoint.keep_at`.
    """
    tasks = make_tasks(config, dataset)
    start, last_stage = 0, list(tasks)[-1]
    for stage, task in tasks.items():
        first = max(done - start, 0)
        if first >= task.steps:
            start += task.steps
            stands_at = None
            continue
        if first == 0 and stands_at is None:
            state = init(task, members, state)
            if is_one_shot(config.experiment):
                state = prune_once(task, members, state)
        if state is None:
            raise ValueError(f"to go on at step {done} the state after it is needed")
        if stands_at is None:
            stands_at = np.full(len(members), first)
        trainer = Trainer(task, members, dataset, partial(on_step, stage), report_now)
        stops = {step - start for step in config.checkpoint.keep_at}
        for progress in trainer.run(state, stands_at, stops):
            ends_stage = progress.step == task.steps
            progress = dataclasses.replace(
                progress,
                step=start + progress.step,
                stands_at=start + progress.stands_at,
                ends_stage=ends_stage,
            )
            if ends_stage and stage != last_stage:
                state = progress.state
            yield progress
        start += task.steps
        stands_at = None


class Trainer:
    """The loop over the steps of one stage; members beyond one program's follow chunk by chunk."""

    def __init__(
        self,
        task: Task,
        members: Members,
        dataset: Dataset,
        on_step: Callable[[float], None],
        report_now: Callable[[], bool],
    ) -> None:
        """Prepares the programs; see `fit` for the two callbacks."""
        self.task = task
        self.members = members
        self.num_train = len(dataset.train_labels)
        self.on_step = on_step
        self.report_now = report_now
        self.program = make_programs(task, dataset)
        self.plan_of = cache(
            lambda count, together: make_plan(task, count, dataset, self.program, together)
        )
        self.shared_on = cache(lambda mesh: place(shared_arguments(task, dataset), mesh, SHARED))
        self.order = jax.jit(
            lambda seed, epoch: single.epoch_order(seed, task.stage, epoch, self.num_train)
        )
        self.add = jax.jit(partial(jax.tree.map, jnp.add))

    def run(
        self, state: TrainState, stands_at: np.ndarray, stops: Collection[int]
    ) -> Iterator[Progress]:
        """Yields the progress, counting the stage's own steps, until its last step is taken.

        Args:
            state: of every member, NumPy `[models, ...]`.
            stands_at: the step that each of them has come to, int `[models]`.
            stops: steps at which the progress is wanted besides.
        """
        task = self.task
        changes = forks.changes(task, self.members, stands_at)
        step, groups = int(stands_at.min()), []
        sums = Sums(len(self.members))
        while step < task.steps:
            epoch, within = divmod(step, task.epoch_steps)
            if not groups or step in changes:
                state = state_of(groups, state)
                branches = forks.branches_at(task, self.members, stands_at, step)
                together = sum(len(branch.trained) for branch in branches)
                groups = [self._start(branch, state, epoch, together) for branch in branches]
            elif within == 0:
                for group in groups:
                    group.fixed = self._place_members(group.branch, group.plan, epoch)
            report = self._next_report(step, stops)
            end = min([report, *(change for change in changes if change > step)])
            taken, totals, asked = self._take(groups, step, end - step)
            step += taken
            sums.add(groups, totals, taken)
            # Where members fork on the way to a report, nothing is told.
            if step < report and not asked:
                continue
            yield Progress(
                stage=task.stage,
                step=step,
                groups=[dataclasses.replace(group, parts=[*group.parts]) for group in groups],
                resting=state,
                stands_at=np.maximum(stands_at, step),
                metrics=sums.averages(),
            )
            sums = Sums(len(self.members))

    def _next_report(self, step: int, stops: Collection[int]) -> int:
        """The step after which the progress is wanted next."""
        log_every, epoch_steps = self.task.config.log_every_steps, self.task.epoch_steps
        within = step % epoch_steps
        segment = min(log_every - within % log_every, epoch_steps - within)
        return min([step + segment, *(stop for stop in stops if stop > step)])

    def _start(self, branch: Branch, state: TrainState, epoch: int, together: int) -> Group:
        """Puts a branch on the devices, one of those that train so many models `together`."""
        plan = self.plan_of(len(branch.trained), together)
        parts = []
        for rows in plan.chunks:
            # Indexing copies, so that programs may write over what they get.
            part = jax.tree.map(lambda leaf, chosen=branch.trained[rows]: leaf[chosen], state)
            parts.append(place(part, plan.mesh, PER_MODEL))
        schedule = place(schedule_argument(branch.schedule), plan.mesh, SHARED)
        shared = self.shared_on(plan.mesh)._replace(schedule=schedule)
        return Group(branch, plan, parts, shared, self._place_members(branch, plan, epoch))

    def _place_members(self, branch: Branch, plan: Plan, epoch: int) -> list[PerModel]:
        """What each chunk's members bring to the steps of an epoch."""
        members = self.members.chosen(branch.trained)
        seeds, places = np.unique(members.seeds, return_inverse=True)
        orders = np.stack([self.order(seed, epoch) for seed in seeds])[places]
        placed = []
        for rows in plan.chunks:
            chosen = members.chosen(rows)
            member = PerModel(chosen.seeds, chosen.sparsities, orders[rows])
            placed.append(place(member, plan.mesh, PER_MODEL))
        return placed

    def _take(
        self, groups: list[Group], step: int, segment: int
    ) -> tuple[int, list[list[dict[str, Any]]], bool]:
        """Takes `segment` steps within an epoch, or fewer if the progress is asked for.

        Returns:
            How many were taken; of each group and chunk the sums of its metrics; and whether the
            progress was asked for. The groups' `parts` are replaced.
        """
        batch_size = self.task.settings.batch_size
        most = steps_per_call(self.task.config, target_of(groups[0].plan.mesh).platform)
        # Steps that are left before the epoch's last, smaller batch.
        full = max(self.num_train // batch_size - step % self.task.epoch_steps, 0)
        totals = [[{} for _ in group.parts] for group in groups]
        calls = []
        for number, group in enumerate(groups):
            calls += [(number, chunk) for chunk in range(len(group.parts))]
        taken, before, asked = 0, (), False
        while taken < segment and not asked:
            size = batch_size if taken < full else self.num_train % batch_size
            alike = (full if taken < full else segment) - taken
            count = min(most, alike, segment - taken)
            steps = Steps(np.int32(step + taken), np.int32(count))
            steps_on = {group.plan.mesh: place(steps, group.plan.mesh, SHARED) for group in groups}
            for called, (number, chunk) in enumerate(calls):
                group = groups[number]
                program = self.program(len(group.plan.chunks[chunk]), size)
                group.parts[chunk], latest = program(
                    group.parts[chunk], group.fixed[chunk], steps_on[group.plan.mesh], group.shared
                )
                # Waiting for the call before keeps the devices one call ahead of the clock, and
                # no further.
                jax.block_until_ready(before)
                before = latest
                sums = totals[number]
                sums[chunk] = self.add(sums[chunk], latest) if taken else latest
                self.on_step(step + taken + count * (called + 1) / len(calls))
            taken += count
            asked = self.report_now()
        return taken, totals, asked


def rehearse(
    task: Task,
    members: Members,
    dataset: Dataset,
    plan: Plan,
    program: Programs,
    most_chunks: int,
) -> Iterator[Any]:
    """Calls the programs of the plan's first `most_chunks` chunks in turn, for ever, as `fit` does.

    Yields:
        after each call, of a stage's first steps, its metrics, when the call before has ended.
    """
    num_train = len(dataset.train_labels)
    batch_size = min(task.settings.batch_size, num_train)
    compiled = program(plan.models_per_program, batch_size)
    most_steps = steps_per_call(task.config, target_of(plan.mesh).platform)
    steps = Steps(np.int32(0), np.int32(most_steps))
    steps, shared = place((steps, shared_arguments(task, dataset)), plan.mesh, SHARED)
    parts = [
        _rehearsed(task, members.chosen(rows), num_train, plan.mesh)
        for rows in plan.chunks[:most_chunks]
    ]
    before = ()
    while True:
        for part in parts:
            part[0], latest = compiled(part[0], part[1], steps, shared)
            jax.block_until_ready(before)
            before = latest
            yield latest


def _rehearsed(task: Task, members: Members, num_train: int, mesh: Mesh) -> list[Any]:
    """A chunk's state at the start of a stage, and its members, with the images in order."""
    order = np.arange(num_train, dtype=np.int32)
    orders = np.tile(order, (len(members), 1))
    per_model = PerModel(members.seeds, members.sparsities, orders)
    return list(place((init(task, members), per_model), mesh, PER_MODEL))
