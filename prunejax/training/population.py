"""A population, seeds x sparsities, trained together: vmapped, split over devices, one counter."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from prunejax.config import Config
from prunejax.data import Dataset
from prunejax.methods import is_one_shot
from prunejax.training import hosts
from prunejax.training import step as single
from prunejax.training.devices import PER_MODEL, SHARED, join, place
from prunejax.training.members import Members
from prunejax.training.plan import Plan, make_plan
from prunejax.training.programs import (
    Programs,
    Steps,
    make_programs,
    shared_arguments,
    steps_per_call,
)
from prunejax.training.state import TrainState
from prunejax.training.step import PerModel
from prunejax.training.task import Task, make_tasks


@dataclasses.dataclass(frozen=True)
class Progress:
    """A population on its way, after `step` steps through all stages."""

    stage: str
    step: int
    parts: list[TrainState]
    """Its members program by program, on the devices; the next step overwrites them."""
    plan: Plan
    metrics: dict[str, np.ndarray]
    """Each `[models]`, averaged since the last report; NaN for members that were frozen in it or
    before."""
    ends_stage: bool = False

    @cached_property
    def arrays(self) -> TrainState:
        """A copy of every member's state, spread over the devices in order, then the padding.

        To be taken before training goes on, as `state`.

        Raises:
            RuntimeError: if it has gone on.
        """
        # Where JAX 0.10 would crash.
        if any(leaf.is_deleted() for leaf in jax.tree.leaves(self.parts)):
            raise RuntimeError(
                f"training has gone on from step {self.step}: "
                "take its state before the next is asked for"
            )
        return join(self.parts, self.plan.mesh)

    @cached_property
    def state(self) -> TrainState:
        """The same in NumPy, `[models, ...]`, whole in every process."""
        return _whole(self.arrays, len(self.metrics["loss"]))


def _whole(arrays: Any, count: int) -> Any:  # noqa: ANN401
    return jax.tree.map(lambda leaf: hosts.gather(leaf)[:count], arrays)


def stage_steps(tasks: dict[str, Task]) -> dict[str, int]:
    """Steps of each stage, in order."""
    return {stage: task.steps for stage, task in tasks.items()}


def init(task: Task, members: Members, previous: TrainState | None = None) -> TrainState:
    """Every member's state at the start of a stage, NumPy `[models, ...]`; see `step.init`.

    One member at a time: a vmapped random generator compiles for longer than all seeds take to
    draw.
    """
    init_one = jax.jit(lambda seed, kept: single.init(task, seed, kept))
    states = []
    for index, seed in enumerate(members.seeds):
        kept = jax.tree.map(lambda leaf, row=index: leaf[row], previous)
        states.append(jax.device_get(init_one(seed, kept)))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *states)


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

    Yields:
        the progress every `log_every_steps` steps and at the end of each epoch, all members at the
        same step.
    """
    tasks = make_tasks(config, dataset)
    start, last_stage = 0, list(tasks)[-1]
    for stage, task in tasks.items():
        first = max(done - start, 0)
        if first >= task.steps:
            start += task.steps
            continue
        if first == 0:
            state = init(task, members, state)
            if is_one_shot(config.experiment):
                state = prune_once(task, members, state)
        if state is None:
            raise ValueError(f"to go on at step {done} the state after it is needed")
        trainer = Trainer(task, members, dataset, partial(on_step, stage), report_now)
        for progress in trainer.run(state, first):
            ends_stage = progress.step == task.steps
            progress = dataclasses.replace(
                progress, step=start + progress.step, ends_stage=ends_stage
            )
            if ends_stage and stage != last_stage:
                state = progress.state
            yield progress
        start += task.steps


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
        """Compiles the programs and plans the chunks; see `fit` for the two callbacks."""
        self.task = task
        self.members = members
        self.num_train = len(dataset.train_labels)
        self.on_step = on_step
        self.report_now = report_now
        self.program = make_programs(task, dataset)
        self.plan = make_plan(task, len(members), dataset, self.program)
        self.shared = place(shared_arguments(task, dataset), self.plan.mesh, SHARED)
        self.order = jax.jit(
            lambda seed, epoch: single.epoch_order(seed, task.stage, epoch, self.num_train)
        )
        self.add = jax.jit(partial(jax.tree.map, jnp.add))

    def run(self, state: TrainState, first_step: int) -> Iterator[Progress]:
        """Yields the progress, counting the stage's own steps, until its last step is taken."""
        log_every = self.task.config.log_every_steps
        epoch_steps, mesh = self.task.epoch_steps, self.plan.mesh
        parts = self._place_parts(state)
        step, fixed = first_step, []
        while step < self.task.steps:
            epoch, within = divmod(step, epoch_steps)
            if not fixed or within == 0:
                fixed = self._place_members(epoch)
            segment = min(log_every - within % log_every, epoch_steps - within)
            taken, totals = self._take(parts, fixed, step, segment)
            step += taken
            sums = _whole(join(totals, mesh), len(self.members))
            metrics = jax.tree.map(lambda total, count=taken: total / count, sums)
            yield Progress(self.task.stage, step, list(parts), self.plan, metrics)

    def _place_parts(self, state: TrainState) -> list[TrainState]:
        """The chunks' states; indexing copies, so that programs may write over what they get."""
        parts = []
        for rows in self.plan.chunks:
            part = jax.tree.map(lambda leaf, chosen=rows: leaf[chosen], state)
            parts.append(place(part, self.plan.mesh, PER_MODEL))
        return parts

    def _place_members(self, epoch: int) -> list[PerModel]:
        """What each chunk's members bring to the steps of an epoch."""
        orders = np.stack([self.order(seed, epoch) for seed in self.members.seeds])
        placed = []
        for rows in self.plan.chunks:
            chosen = self.members.chosen(rows)
            member = PerModel(chosen.seeds, chosen.sparsities, orders[rows])
            placed.append(place(member, self.plan.mesh, PER_MODEL))
        return placed

    def _take(
        self, parts: list[TrainState], fixed: list[PerModel], step: int, segment: int
    ) -> tuple[int, list[dict[str, Any]]]:
        """Takes `segment` steps within an epoch, or fewer if the progress is asked for.

        Returns:
            How many were taken, and of each chunk the sums of its metrics; `parts` are replaced.
        """
        batch_size = self.task.settings.batch_size
        most = steps_per_call(self.task.config)
        # Steps that are left before the epoch's last, smaller batch.
        full = max(self.num_train // batch_size - step % self.task.epoch_steps, 0)
        totals: list[dict[str, Any]] = [{} for _ in self.plan.chunks]
        taken, before = 0, ()
        while taken < segment:
            size = batch_size if taken < full else self.num_train % batch_size
            alike = (full if taken < full else segment) - taken
            count = min(most, alike, segment - taken)
            steps = Steps(np.int32(step + taken), np.int32(count))
            steps = place(steps, self.plan.mesh, SHARED)
            for chunk, rows in enumerate(self.plan.chunks):
                program = self.program(len(rows), size)
                parts[chunk], latest = program(parts[chunk], fixed[chunk], steps, self.shared)
                # Waiting for the call before keeps the devices one call ahead of the clock, and
                # no further.
                jax.block_until_ready(before)
                before = latest
                totals[chunk] = self.add(totals[chunk], latest) if taken else latest
                self.on_step(step + taken + count * (chunk + 1) / len(self.plan.chunks))
            taken += count
            if self.report_now():
                break
        return taken, totals


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
    steps = Steps(np.int32(0), np.int32(steps_per_call(task.config)))
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
