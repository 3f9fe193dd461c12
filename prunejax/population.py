"""A population, seeds x sparsities, trained together: vmapped, split over devices, with one step counter."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache, cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float32, Int32, UInt8

from prunejax import train
from prunejax.config import Config, UserError, steps_per_epoch
from prunejax.data import Dataset
from prunejax.types import Array, TrainState, Tree


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
    metrics: dict[str, np.ndarray]
    """Each `[models]`, averaged since the last report; NaN for members that were frozen in it or before."""
    ends_stage: bool = False

    @cached_property
    def state(self) -> TrainState:
        """A copy of every member's state in NumPy, `[models, ...]`; to be taken before training goes on."""
        return jax.tree.map(lambda *leaves: _join(leaves, len(self.metrics["loss"])), *self.parts)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one step of a compiled program costs, for `models_per_program` members at a time."""

    models_per_program: int
    flops: float
    """Floating-point operations of one step of one program, as XLA counts them."""
    bytes: int
    """Peak memory of the step: arguments, results and temporaries."""


def members(config: Config) -> Members:
    """The members that `config` asks for; a dense experiment has sparsity 0 only."""
    seeds = np.arange(config.seed, config.seed + config.models, dtype=np.int32)
    sparsities = np.array(config.sparsities if config.experiment.pruned else (0.0,), np.float32)
    return Members(np.tile(seeds, len(sparsities)), np.repeat(sparsities, len(seeds)))


def total_steps(config: Config, num_train: int) -> dict[str, int]:
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


CPU_OPTIONS = {
    # XLA's other YNNPACK kernels, convolutions above all, make a step at 32x32 a third slower than its own.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT",
    "xla_disable_hlo_passes": "cse_barrier_expander",  # which drops the barriers in `conv` before they have served
}
PER_MODEL, SHARED = PartitionSpec("models"), PartitionSpec()


def make_mesh(models: int) -> Mesh:
    """The devices of this process over which a program's models are split, as many as there are models for."""
    return Mesh(np.array(jax.local_devices()[:models]), ("models",))


def make_step(config: Config, stage_name: str, dataset: Dataset, mesh: Mesh | None = None) -> Any:  # noqa: ANN401
    """The jitted `step` of `train.make_step` over the models axis; the state it is given is donated.

    Its arguments are (state, seeds, sparsities, orders), per model, then (steps, schedule, images, labels), shared,
    and the static `batch_size`; `steps` are the number of the first step and how many to take in a loop, which is 1
    where there is none. The metrics are sums over these. With a mesh, whose size must divide the models, each device
    steps its own: nothing passes between them.
    """
    step = train.make_step(config, stage_name, len(dataset.train_labels), dataset.num_classes)

    def take_steps(
        state: TrainState, seeds: Array, sparsities: Array, orders: Array, steps: tuple, *shared: Tree, batch_size: int
    ) -> tuple[TrainState, dict[str, Array]]:
        mapped = jax.vmap(partial(step, batch_size=batch_size), in_axes=(0, 0, 0, 0, None, None, None, None))

        def one(state: TrainState, number: Array) -> tuple[TrainState, dict[str, Array]]:
            return mapped(state, seeds, sparsities, orders, number, *shared)

        def body(number: Array, carry: tuple) -> tuple[TrainState, dict[str, Array]]:
            state, metrics = one(carry[0], number)
            return state, jax.tree.map(jnp.add, carry[1], metrics)

        first, count = steps
        if steps_per_call(config) == 1:
            return one(state, first)
        start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one, state, first)[1])
        return jax.lax.fori_loop(first, first + count, body, (state, start))

    def population_step(*arguments: Tree, batch_size: int) -> tuple[TrainState, dict[str, Array]]:
        function = partial(take_steps, batch_size=batch_size)
        if mesh is not None:
            specs = (PER_MODEL,) * 4 + (SHARED,) * 4
            # custom_vmap loses track of what varies over devices, so that it cannot be checked.
            function = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=PER_MODEL, check_vma=False)
        return function(*arguments)

    return jax.jit(population_step, static_argnames="batch_size", donate_argnums=0)


def steps_per_call(config: Config) -> int:
    """The most steps that one call of a program takes; see `config.Population`."""
    return config.population.steps_per_call or (1 if jax.default_backend() == "cpu" else 8)


def state_shapes(
    config: Config, stage_name: str, models: int, image_shape: tuple[int, ...], num_classes: int
) -> TrainState:
    """The shapes and dtypes of a population's state in a stage."""

    def init_one(seed: Array) -> TrainState:
        return train.init(config, stage_name, seed, image_shape, num_classes)

    return jax.eval_shape(jax.vmap(init_one), jax.ShapeDtypeStruct((models,), np.int32))


def make_programs(config: Config, stage_name: str, dataset: Dataset) -> Callable[[int, int], Any]:
    """Returns `(models, batch_size) -> compiled step` over `make_mesh(models)`, each compiled once from shapes."""
    num_train = len(dataset.train_labels)

    @cache
    def program(models: int, batch_size: int) -> Any:  # noqa: ANN401
        mesh = make_mesh(models)

        def shape(*dimensions: int, dtype: Any = np.int32) -> jax.ShapeDtypeStruct:  # noqa: ANN401
            return jax.ShapeDtypeStruct(dimensions, dtype)

        states = state_shapes(config, stage_name, models, *dataset.shapes)
        per_model = (states, shape(models))
        per_model += (shape(models, dtype=np.float32), shape(models, num_train))
        data = (dataset.train_images, dataset.train_labels)
        shared = ((shape(),) * 2, (shape(),) * 3, *(shape(*array.shape, dtype=array.dtype) for array in data))
        placed = (
            jax.tree.map(
                lambda leaf, s=spec: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, s)), part
            )
            for spec, part in ((PER_MODEL, per_model), (SHARED, shared))
        )
        step = make_step(config, stage_name, dataset, mesh)
        lowered = step.lower(*next(placed), *next(placed), batch_size=batch_size)
        return lowered.compile(CPU_OPTIONS if mesh.devices[0].platform == "cpu" else None)

    return program


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
    start, stages = 0, total_steps(config, len(dataset.train_labels))
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
    last = total_steps(config, num_train)[stage_name]
    program = make_programs(config, stage_name, dataset)
    chunks = chunk_rows(len(who), plan(config, stage_name, who, dataset, program).models_per_program)
    mesh = make_mesh(len(chunks[0]))
    per_model, shared = NamedSharding(mesh, PER_MODEL), NamedSharding(mesh, SHARED)
    constant = jax.device_put(_constant(config, stage_name, dataset), shared)
    order = jax.jit(lambda seed, epoch: train.epoch_order(seed, stage_name, epoch, num_train))
    # Indexing copies, so that the programs may write their results over what they are given.
    parts = [jax.device_put(jax.tree.map(lambda leaf, r=rows: leaf[r], state), per_model) for rows in chunks]
    step, most, fixed = first_step, steps_per_call(config), []
    while step < last:
        epoch, within = divmod(step, epoch_steps)
        if not fixed or not within:
            orders = np.stack([order(seed, epoch) for seed in who.seeds])
            fixed = [jax.device_put((who.seeds[r], who.sparsities[r], orders[r]), per_model) for r in chunks]
        segment = min(config.log_every_steps - within % config.log_every_steps, epoch_steps - within)
        full = max(num_train // stage.batch_size - within, 0)  # steps before the epoch's last, smaller batch
        history, index = [[] for _ in chunks], 0
        while not index or (index < segment and not report_now()):
            size = stage.batch_size if index < full else num_train % stage.batch_size
            count = min(most, (full if index < full else segment) - index, segment - index)
            steps = jax.device_put((np.int32(step + index), np.int32(count)), shared)
            for position, rows in enumerate(chunks):
                before = history[position - 1][-1:]
                parts[position], latest = program(len(rows), size)(parts[position], *fixed[position], steps, *constant)
                # Waiting for the call before keeps the device one call ahead of the clock, and no further.
                jax.block_until_ready(before)
                history[position].append(latest)
                on_step(step + index + count * (position + 1) / len(chunks))
            index += count
        step += index
        metrics = [jax.tree.map(partial(_mean, index), *jax.device_get(calls)) for calls in history]
        yield Progress(stage_name, step, list(parts), jax.tree.map(lambda *values: _join(values, len(who)), *metrics))


def _constant(config: Config, stage_name: str, dataset: Dataset) -> tuple:
    """What a stage's programs are given at every step alike: schedule, images and labels."""
    schedule = tuple(map(np.int32, train.schedule_steps(config, stage_name)))
    return schedule, dataset.train_images, dataset.train_labels


def _mean(count: int, *sums: np.ndarray) -> np.ndarray:
    return np.asarray(np.sum(sums, axis=0, dtype=np.float64) / count, np.float32)  # whatever order NumPy adds in


def _join(parts: Iterable[Array], count: int) -> np.ndarray:
    """The first `count` of the parts' members, one after another; what follows is padding."""
    return np.concatenate([np.asarray(part) for part in parts])[:count]


def chunk_rows(count: int, most: int) -> list[np.ndarray]:
    """The fewest chunks of about `most` members, all of one size that the devices divide, as indices.

    The last member fills the places left over; its copies train along and are dropped.
    """
    size = -(-count // -(-count // most))
    devices = make_mesh(size).size
    size = -(-size // devices) * devices
    return [np.minimum(np.arange(start, start + size), count - 1) for start in range(0, count, size)]


def plan(config: Config, stage_name: str, who: Members, dataset: Dataset, program: Callable[[int, int], Any]) -> Plan:
    """As many models per program as the memory holds by the program's own count, unless set at most 8 a device.

    On CPU one a device: the features of more do not stay in its cache, and longer programs compile longer.

    Raises:
        UserError: if not even one model fits, or not as many as `population.models_per_program` says.
    """
    wanted = config.population.models_per_program
    batch_size = min(config.stage(stage_name).batch_size, len(dataset.train_labels))
    most = wanted or (1 if jax.default_backend() == "cpu" else 8) * jax.local_device_count()
    while True:
        size = len(chunk_rows(len(who), most)[0])
        devices = make_mesh(size).size
        compiled = program(size, batch_size)
        usage = compiled.memory_analysis()
        needed = devices * (usage.argument_size_in_bytes + usage.temp_size_in_bytes)
        memory = available_memory(devices)
        if needed <= memory:
            return Plan(size, devices * float(compiled.cost_analysis()["flops"]), needed)
        if wanted or size == devices == 1:
            raise UserError(
                f"stage {stage_name!r}: a program of {size} models needs {needed / 2**30:.1f} GiB, and "
                f"{memory / 2**30:.1f} GiB may be used; lower "
                + ("population.models_per_program" if size > 1 else f"{stage_name}.batch_size")
            )
        most = -(-size // 2)


def rehearse(
    config: Config, stage_name: str, who: Members, dataset: Dataset, program: Callable[[int, int], Any]
) -> Callable[[], Any]:
    """Returns a function that calls the program of all of `who` for a stage's first steps, again and again."""
    mesh = make_mesh(len(who))
    num_train = len(dataset.train_labels)
    orders = np.tile(np.arange(num_train, dtype=np.int32), (len(who), 1))
    per_model = (init(config, stage_name, who, dataset), who.seeds, who.sparsities, orders)
    steps = (np.int32(0), np.int32(steps_per_call(config)))
    state, *fixed = jax.device_put(per_model, NamedSharding(mesh, PER_MODEL))
    shared = jax.device_put((steps, *_constant(config, stage_name, dataset)), NamedSharding(mesh, SHARED))
    compiled = program(len(who), min(config.stage(stage_name).batch_size, num_train))

    def step() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(compiled(state, *fixed, *shared))

    return step


def available_memory(devices: int) -> int:
    """Bytes that programs on `devices` devices may use together: 80% of theirs, or on CPU half the machine's.

    What happens to be free does not count: a resumed run must cut its population as before to repeat it bit for bit.
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(0.8 * stats["bytes_limit"]) * devices
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


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
