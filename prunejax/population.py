"""A population, seeds x sparsities, trained together: vmapped, split over devices, with one step counter."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import cache, cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from prunejax import hosts, train
from prunejax.config import Config, steps_per_epoch
from prunejax.data import Dataset
from prunejax.devices import PER_MODEL, SHARED, join, place
from prunejax.programs import Plan, Programs, make_programs, plan, shared_arguments, steps_per_call
from prunejax.types import Array, TrainState


@dataclasses.dataclass(frozen=True)
class Members:
    """Who is in the population: `seeds` and `sparsities`, both `[models]`, sparsities outermost."""

    seeds: Int32[np.ndarray, " models"]
    sparsities: Float32[np.ndarray, " models"]

    def __len__(self) -> int:
        return len(self.seeds)


@dataclasses.dataclass(frozen=True)
class Progress:
    """A population on its way, after `step` steps through all stages."""

    stage: str
    step: int
    parts: list[TrainState]
    """Its members program by program, on the devices; the next step overwrites them."""
    plan: Plan
    metrics: dict[str, np.ndarray]
    """Each `[models]`, averaged since the last report; NaN for members that were frozen in it or before."""
    ends_stage: bool = False

    @cached_property
    def arrays(self) -> TrainState:
        """A copy of every member's state, spread over the devices in order, with padding after the last member.

        To be taken before training goes on, as `state`.

        Raises:
            RuntimeError: if it has gone on.
        """
        if any(leaf.is_deleted() for leaf in jax.tree.leaves(self.parts)):  # where JAX 0.10 would crash
            raise RuntimeError(
                f"training has gone on from step {self.step}: take its state before the next is asked for"
            )
        return join(self.parts, self.plan.mesh)

    @cached_property
    def state(self) -> TrainState:
        """The same in NumPy, `[models, ...]`, whole in every process."""
        return _whole(self.arrays, len(self.metrics["loss"]))


def _whole(arrays: Any, count: int) -> Any:  # noqa: ANN401
    return jax.tree.map(lambda leaf: hosts.gather(leaf)[:count], arrays)


def members(config: Config) -> Members:
    """The members that `config` asks for; a dense experiment has sparsity 0 only."""
    seeds = np.arange(config.seed, config.seed + config.models, dtype=np.int32)
    sparsities = np.array(config.sparsities if config.experiment.pruned else (0.0,), np.float32)
    return Members(np.tile(seeds, len(sparsities)), np.repeat(sparsities, len(seeds)))


def stage_steps(config: Config, num_train: int) -> dict[str, int]:
    """Steps of each stage, in order."""
    stages = {name: config.stage(name) for name in config.experiment.stages}
    return {name: stage.epochs * steps_per_epoch(stage, num_train) for name, stage in stages.items()}


def init(
    config: Config, stage_name: str, who: Members, dataset: Dataset, previous: TrainState | None = None
) -> TrainState:
    """Every member's state at the start of a stage, NumPy `[models, ...]`; see `train.init`.

    One member at a time: a vmapped random generator compiles for longer than all seeds take to draw.
    """
    init_one = jax.jit(lambda seed, kept: train.init(config, stage_name, seed, *dataset.shapes, kept))
    states = [
        init_one(seed, jax.tree.map(lambda leaf, i=index: leaf[i], previous)) for index, seed in enumerate(who.seeds)
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(states))


def prune_once(config: Config, who: Members, dense: TrainState) -> TrainState:
    """One-shot pruning of `[models, ...]` dense members, each to its own sparsity."""
    prune = jax.jit(jax.vmap(partial(train.prune_once, config, config.experiment.stages[0])))
    return jax.device_get(prune(dense, who.sparsities))


def fit(
    config: Config,
    who: Members,
    dataset: Dataset,
    state: TrainState | None = None,
    done: int = 0,
    on_step: Callable[[str, float], None] = lambda stage, step: None,
    report_now: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Trains a population through all its stages.

    Args:
        config: the run.
        who: the population's members.
        dataset: on which to train.
        state: the state after `done` steps; at 0 the dense parents of a one-shot run, else None.
        done: steps through all stages that are behind it.
        on_step: hears the stage and how many of its steps are done after every program, a fraction while some chunks
            of the population are ahead of others.
        report_now: asked after every call of the programs, it can have the progress earlier.

    Yields:
        the progress every `log_every_steps` steps and at the end of each epoch, all members at the same step.
    """
    start, stages = 0, stage_steps(config, len(dataset.train_labels))
    for name, steps in stages.items():
        if done < start + steps:
            first = max(done - start, 0)
            if first == 0:
                state = init(config, name, who, dataset, state)
                if config.experiment.parent:
                    state = prune_once(config, who, state)
            if state is None:
                raise ValueError(f"to go on at step {done} the state after it is needed")
            for now in _train_stage(config, name, who, state, dataset, first, partial(on_step, name), report_now):
                now = dataclasses.replace(now, step=start + now.step, ends_stage=now.step == steps)
                if now.ends_stage and name != list(stages)[-1]:
                    state = now.state
                yield now
        start += steps


def _train_stage(
    config: Config,
    stage_name: str,
    who: Members,
    state: TrainState,
    dataset: Dataset,
    first_step: int,
    on_step: Callable[[float], None],
    report_now: Callable[[], bool],
) -> Iterator[Progress]:
    """Trains one stage, counting its own steps; at each, members beyond one program's follow chunk by chunk."""
    stage = config.stage(stage_name)
    num_train = len(dataset.train_labels)
    epoch_steps = steps_per_epoch(stage, num_train)
    last = stage_steps(config, num_train)[stage_name]
    program = make_programs(config, stage_name, dataset)
    planned = plan(config, stage_name, len(who), dataset, program)
    chunks, mesh = planned.chunks, planned.mesh
    constant = place(shared_arguments(config, stage_name, dataset), mesh, SHARED)
    order = jax.jit(lambda seed, epoch: train.epoch_order(seed, stage_name, epoch, num_train))
    add = jax.jit(partial(jax.tree.map, jnp.add))
    # Indexing copies, so that the programs may write their results over what they are given.
    parts = [place(jax.tree.map(lambda leaf, r=rows: leaf[r], state), mesh, PER_MODEL) for rows in chunks]
    step, most, fixed, before = first_step, steps_per_call(config), [], ()
    while step < last:
        epoch, within = divmod(step, epoch_steps)
        if not fixed or not within:
            orders = np.stack([order(seed, epoch) for seed in who.seeds])
            fixed = [place((who.seeds[r], who.sparsities[r], orders[r]), mesh, PER_MODEL) for r in chunks]
        segment = min(config.log_every_steps - within % config.log_every_steps, epoch_steps - within)
        full = max(num_train // stage.batch_size - within, 0)  # steps before the epoch's last, smaller batch
        totals, index = [{}] * len(chunks), 0
        while not index or (index < segment and not report_now()):
            size = stage.batch_size if index < full else num_train % stage.batch_size
            count = min(most, (full if index < full else segment) - index, segment - index)
            steps = place((np.int32(step + index), np.int32(count)), mesh, SHARED)
            for position, rows in enumerate(chunks):
                parts[position], latest = program(len(rows), size)(parts[position], *fixed[position], steps, *constant)
                # Waiting for the call before keeps the devices one call ahead of the clock, and no further.
                jax.block_until_ready(before)
                before, totals[position] = latest, add(totals[position], latest) if index else latest
                on_step(step + index + count * (position + 1) / len(chunks))
            index += count
        step += index
        sums = _whole(join(totals, mesh), len(who))
        yield Progress(stage_name, step, list(parts), planned, jax.tree.map(lambda total, n=index: total / n, sums))


def rehearse(
    config: Config, stage_name: str, who: Members, dataset: Dataset, planned: Plan, program: Programs, most: int
) -> Iterator[Any]:
    """Calls the programs of the plan's first `most` chunks in turn for ever, as `fit` does, for a stage's first steps.

    Yields:
        after each call its metrics, when the call before has ended.
    """
    num_train, before = len(dataset.train_labels), ()
    steps = (np.int32(0), np.int32(steps_per_call(config)))
    shared = place((steps, *shared_arguments(config, stage_name, dataset)), planned.mesh, SHARED)
    compiled = program(planned.models_per_program, min(config.stage(stage_name).batch_size, num_train))
    parts = []
    for rows in planned.chunks[:most]:
        part = Members(who.seeds[rows], who.sparsities[rows])
        orders = np.tile(np.arange(num_train, dtype=np.int32), (len(part), 1))
        per_model = (init(config, stage_name, part, dataset), part.seeds, part.sparsities, orders)
        parts.append(list(place(per_model, planned.mesh, PER_MODEL)))
    while True:
        for part in parts:
            part[0], latest = compiled(*part, *shared)
            jax.block_until_ready(before)
            before = latest
            yield latest


def apply_in_batches(
    config: Config, state: TrainState, images: UInt8[np.ndarray, "examples h w c"], batch_size: int = 500
) -> Iterator[tuple[slice, slice, Array, Array, list[Array]]]:
    """Yields (models, examples, representations, logits, probes) until every member has seen every image.

    Streamed, so that no array over models, examples and features need be held; on the device until it is used. The
    contrastive stage has no linear head, and so logits of no class.
    """
    apply = _make_apply(config)
    count = len(jax.tree.leaves(state.params)[0])
    most = config.population.models_per_program or 8
    for chunk in (slice(start, min(start + most, count)) for start in range(0, count, most)):
        part = jax.device_put(jax.tree.map(lambda leaf, c=chunk: leaf[c], state))
        for start in range(0, len(images), batch_size):
            examples = slice(start, min(start + batch_size, len(images)))
            yield chunk, examples, *apply(part, images[examples])


@cache
def _make_apply(config: Config) -> Any:  # noqa: ANN401
    return jax.jit(jax.vmap(train.make_apply(config), in_axes=(0, None)))
