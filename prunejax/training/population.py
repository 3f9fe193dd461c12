"""A population, seeds x sparsities, trained through all stages: vmapped, with one step counter."""

import dataclasses
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from prunejax.config import Config
from prunejax.data import Dataset
from prunejax.methods import is_one_shot
from prunejax.training import step as single
from prunejax.training.devices import PER_MODEL, SHARED, device_put, join, target_of
from prunejax.training.members import Members
from prunejax.training.plan import Plan, make_plan
from prunejax.training.programs import (
    Programs,
    Steps,
    make_init,
    make_programs,
    shared_arguments,
    steps_per_call,
)
from prunejax.training.progress import Progress, first_rows
from prunejax.training.spec import StageSpec, make_specs
from prunejax.training.state import TrainState
from prunejax.training.step import PerModel


def stage_steps(specs: dict[str, StageSpec]) -> dict[str, int]:
    """Steps of each stage, in order."""
    return {stage: spec.steps for stage, spec in specs.items()}


def init(spec: StageSpec, members: Members, previous: TrainState | None = None) -> TrainState:
    """Returns every member's state at the start of a stage, NumPy `[models, ...]`.

    One member at a time: a vmapped random generator compiles for longer than all seeds take to
    draw.

    Args:
        spec: the stage.
        members: the population.
        previous: `[models, ...]`, the end of the stage before; see `step.init`.
    """

    def previous_of(index: int) -> TrainState | None:
        return jax.tree.map(lambda leaf: leaf[index], previous)

    init_one = make_init(spec)
    states = []
    for index, seed in enumerate(members.seeds):
        states.append(jax.device_get(init_one(seed, previous_of(index))))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *states)


def initial_state(
    config: Config,
    members: Members,
    dataset: Dataset,
    dense_parents: TrainState | None = None,
) -> TrainState:
    """Returns the state before the first step of a run, NumPy `[models, ...]`.

    Args:
        config: the run.
        members: its population.
        dataset: on which it trains.
        dense_parents: of a one-shot run, the trained dense model of each member's seed, which is
            pruned to the member's sparsity. None for other runs.
    """
    first = next(iter(make_specs(config, dataset).values()))
    state = init(first, members, dense_parents)
    if is_one_shot(config.experiment):
        prune = jax.jit(jax.vmap(partial(single.prune_once, first)))
        state = jax.device_get(prune(state, members.seeds, members.sparsities))
    return state


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
        members: its population.
        dataset: on which to train.
        state: NumPy `[models, ...]`, after `done` steps; None at 0: that of `initial_state`.
        done: steps through all stages that were taken before.
        on_step: called after every program with the stage and how many of its steps are done, a
            fraction while some chunks of the population are ahead of others.
        report_now: called after every call of the programs; True requests a report now.

    Yields:
        The progress every `log_every_steps` steps, at the end of each epoch, and at the steps of
        `checkpoint.keep_at`.
    """
    specs = make_specs(config, dataset)
    if state is None:
        state = initial_state(config, members, dataset)
    last_stage = list(specs)[-1]
    start = 0
    for stage, spec in specs.items():
        first = max(done - start, 0)
        if first >= spec.steps:
            start += spec.steps
            continue
        # A checkpoint at the border of two stages belongs to the earlier one.
        if first == 0 and start > 0:
            state = init(spec, members, state)
        trainer = Trainer(spec, members, dataset, partial(on_step, stage), report_now)
        stops = {step - start for step in config.checkpoint.keep_at}
        for progress in trainer.run(state, first, stops):
            ends_stage = progress.step == spec.steps
            progress = dataclasses.replace(
                progress, step=start + progress.step, ends_stage=ends_stage
            )
            if ends_stage and stage != last_stage:
                state = progress.state
            yield progress
        start += spec.steps


class Trainer:
    """The loop over the steps of one stage, in which the chunks of a population take turns."""

    def __init__(
        self,
        spec: StageSpec,
        members: Members,
        dataset: Dataset,
        on_step: Callable[[float], None],
        report_now: Callable[[], bool],
    ) -> None:
        """Compiles the programs and puts the data on the devices; see `fit` for the callbacks."""
        self.spec = spec
        self.members = members
        self.num_train = len(dataset.train_labels)
        self.on_step = on_step
        self.report_now = report_now
        self.program = make_programs(spec, dataset)
        self.plan = make_plan(spec, len(members), dataset, self.program)
        self.shared = device_put(shared_arguments(spec, dataset), self.plan.mesh, SHARED)
        self.order = jax.jit(
            lambda seed, epoch: single.epoch_order(seed, spec.stage, epoch, self.num_train)
        )
        self.add = jax.jit(partial(jax.tree.map, jnp.add))

    def run(self, state: TrainState, first: int, stops: Collection[int]) -> Iterator[Progress]:
        """Yields the progress, counting the stage's own steps, until its last step is taken.

        Args:
            state: of every member, NumPy `[models, ...]`, after `first` steps.
            first: steps of the stage that were taken before.
            stops: further steps at which to report.
        """
        spec, plan, step = self.spec, self.plan, first
        # Indexing copies, so that programs may write over what they are given.
        parts = []
        for rows in plan.chunks:
            part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], state)
            parts.append(device_put(part, plan.mesh, PER_MODEL))
        per_model: list[PerModel] = []
        while step < spec.steps:
            epoch, within = divmod(step, spec.epoch_steps)
            if not per_model or within == 0:
                per_model = self._per_model(epoch)
            segment = self._next_report(step, stops) - step
            taken, sums = self._take(parts, per_model, step, segment)
            step += taken
            metrics = first_rows(join(sums, plan.mesh), len(self.members))
            yield Progress(
                stage=spec.stage,
                step=step,
                plan=plan,
                parts=[*parts],
                metrics={name: values / np.float32(taken) for name, values in metrics.items()},
            )

    def _next_report(self, step: int, stops: Collection[int]) -> int:
        """The step after which to report next."""
        log_every, epoch_steps = self.spec.config.log_every_steps, self.spec.epoch_steps
        within = step % epoch_steps
        segment = min(log_every - within % log_every, epoch_steps - within)
        return min([step + segment, *(stop for stop in stops if stop > step)])

    def _per_model(self, epoch: int) -> list[PerModel]:
        """What the members of each chunk bring to the steps of an epoch, on the devices."""
        seeds, indices = np.unique(self.members.seeds, return_inverse=True)
        orders = np.stack([self.order(seed, epoch) for seed in seeds])[indices]
        chunks = []
        for rows in self.plan.chunks:
            chosen = self.members.chosen(rows)
            per_model = PerModel(chosen.seeds, chosen.sparsities, orders[rows])
            chunks.append(device_put(per_model, self.plan.mesh, PER_MODEL))
        return chunks

    def _take(
        self, parts: list[TrainState], per_model: list[PerModel], step: int, segment: int
    ) -> tuple[int, list[dict[str, Any]]]:
        """Takes `segment` steps within an epoch, or fewer if a report is requested.

        Args:
            parts: the state of each chunk, which is replaced.
            per_model: of each chunk.
            step: of the stage, the first to take.
            segment: how many steps to take at most.

        Returns:
            How many were taken, and the sums of each chunk's metrics over them.
        """
        batch_size = self.spec.settings.batch_size
        mesh, chunks = self.plan.mesh, self.plan.chunks
        most = steps_per_call(self.spec.config, target_of(mesh).platform)
        # Steps that are left before the epoch's last, smaller batch.
        full = max(self.num_train // batch_size - step % self.spec.epoch_steps, 0)
        sums: list[dict[str, Any]] = [{} for _ in chunks]
        taken, before, requested = 0, (), False
        while taken < segment and not requested:
            size = batch_size if taken < full else self.num_train % batch_size
            of_one_size = (full if taken < full else segment) - taken
            count = min(most, of_one_size, segment - taken)
            steps = device_put(Steps(np.int32(step + taken), np.int32(count)), mesh, SHARED)
            program = self.program(self.plan.models_per_program, size)
            for chunk in range(len(chunks)):
                parts[chunk], latest = program(parts[chunk], per_model[chunk], steps, self.shared)
                # Waiting for the call before keeps the devices one call ahead of the clock, and
                # no further.
                jax.block_until_ready(before)
                before = latest
                sums[chunk] = self.add(sums[chunk], latest) if taken else latest
                self.on_step(step + taken + count * (chunk + 1) / len(chunks))
            taken += count
            requested = self.report_now()
        return taken, sums


def rehearse(
    spec: StageSpec,
    members: Members,
    dataset: Dataset,
    plan: Plan,
    program: Programs,
    most_chunks: int,
) -> Iterator[Any]:
    """Calls the programs of the plan's first `most_chunks` chunks in turn, for ever, as `fit` does.

    Args:
        spec: the stage.
        members: the population.
        dataset: on which it trains.
        plan: of the population.
        program: the stage's programs.
        most_chunks: how many chunks take turns at most.

    Yields:
        After each call, of a stage's first steps, its metrics, when the call before has ended.
    """
    num_train = len(dataset.train_labels)
    batch_size = min(spec.settings.batch_size, num_train)
    compiled = program(plan.models_per_program, batch_size)
    most_steps = steps_per_call(spec.config, target_of(plan.mesh).platform)
    steps = Steps(np.int32(0), np.int32(most_steps))
    steps, shared = device_put((steps, shared_arguments(spec, dataset)), plan.mesh, SHARED)
    parts = [
        _rehearsed(spec, members.chosen(rows), num_train, plan.mesh)
        for rows in plan.chunks[:most_chunks]
    ]
    before = ()
    while True:
        for part in parts:
            part[0], latest = compiled(part[0], part[1], steps, shared)
            jax.block_until_ready(before)
            before = latest
            yield latest


def _rehearsed(spec: StageSpec, members: Members, num_train: int, mesh: Mesh) -> list[Any]:
    """A chunk's state at the start of a stage, and its members, with the images in order."""
    order = np.arange(num_train, dtype=np.int32)
    orders = np.tile(order, (len(members), 1))
    per_model = PerModel(members.seeds, members.sparsities, orders)
    return list(device_put((init(spec, members), per_model), mesh, PER_MODEL))
