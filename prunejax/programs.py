"""The compiled steps of a population, and how many of its members fit into one."""

import dataclasses
import os
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prunejax import hosts, train
from prunejax.config import Config, UserError
from prunejax.data import Dataset
from prunejax.devices import PER_MODEL, SHARED, chunk_rows, make_mesh, over_models, split_batch
from prunejax.types import Array, TrainState, Tree

CPU_OPTIONS = {
    # XLA's other YNNPACK kernels, convolutions above all, make a step at 32x32 a third slower than its own.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT",
    "xla_disable_hlo_passes": "cse_barrier_expander",  # which drops the barriers in `conv` before they have served
}
Programs = Callable[[int, int], Any]
"""`(models, batch_size) -> compiled step`."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the members of a population are divided among programs, and what one step of one program costs."""

    chunks: list[np.ndarray]
    """The members of each program, as indices; see `devices.chunk_rows`."""
    mesh: Mesh
    flops: float
    """Floating-point operations, as XLA counts them, on all devices."""
    bytes: int
    """Peak memory of one process: arguments, results and temporaries."""

    @property
    def models_per_program(self) -> int:
        """Members in one program, padding included."""
        return len(self.chunks[0])


def make_step(config: Config, stage_name: str, dataset: Dataset, mesh: Mesh | None = None) -> Any:  # noqa: ANN401
    """The jitted `step` of `train.make_step` over the models axis; the state it is given is donated.

    Its arguments are (state, seeds, sparsities, orders), per model, then (steps, schedule, images, labels), shared,
    and the static `batch_size`; `steps` are the number of the first step and how many to take in a loop, which is 1
    where there is none. The metrics are sums over these. With a mesh, whose axis `models` must divide the models, each
    row of devices steps its own: nothing passes between rows.
    """
    split = split_batch(mesh) if mesh else lambda rows: rows
    step = train.make_step(config, stage_name, len(dataset.train_labels), dataset.num_classes, split)

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
            function = over_models(function, mesh, (PER_MODEL,) * 4 + (SHARED,) * 4)
        return function(*arguments)

    placed = NamedSharding(mesh, PER_MODEL) if mesh else None
    return jax.jit(population_step, static_argnames="batch_size", donate_argnums=0, out_shardings=placed)


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


def make_programs(config: Config, stage_name: str, dataset: Dataset) -> Programs:
    """Returns `(models, batch_size) -> compiled step` over `devices.make_mesh`, each compiled once from shapes."""

    @cache
    def program(models: int, batch_size: int) -> Any:  # noqa: ANN401
        mesh = make_mesh(config.population, models)

        def shapes(tree: Tree, spec: PartitionSpec) -> Tree:
            sharding = NamedSharding(mesh, spec)
            return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)

        orders = np.empty((models, len(dataset.train_labels)), np.int32)
        per_model = (
            state_shapes(config, stage_name, models, *dataset.shapes),
            orders[:, 0],
            np.empty(models, np.float32),
            orders,
        )
        shared = ((np.int32(0), np.int32(0)), *shared_arguments(config, stage_name, dataset))
        step = make_step(config, stage_name, dataset, mesh)
        lowered = step.lower(*shapes(per_model, PER_MODEL), *shapes(shared, SHARED), batch_size=batch_size)
        return lowered.compile(CPU_OPTIONS if mesh.devices.flat[0].platform == "cpu" else None)

    return program


def shared_arguments(config: Config, stage_name: str, dataset: Dataset) -> tuple:
    """What a stage's programs are given at every step alike: schedule, images and labels."""
    schedule = tuple(map(np.int32, train.schedule_steps(config, stage_name)))
    return schedule, dataset.train_images, dataset.train_labels


def plan(config: Config, stage_name: str, count: int, dataset: Dataset, program: Programs) -> Plan:
    """As many of `count` models per program as the memory holds by the program's own count, at most 8 a device.

    `population.models_per_program` sets another number. On CPU it is one a device: the features of more do not stay in
    its cache, and longer programs compile longer.

    Raises:
        UserError: if not even one model fits, or not as many as `population.models_per_program` says.
    """
    wanted = config.population.models_per_program
    batch_size = min(config.stage(stage_name).batch_size, len(dataset.train_labels))
    most = wanted or (1 if jax.default_backend() == "cpu" else 8) * len(jax.devices())
    while True:
        mesh = make_mesh(config.population, min(most, count))
        chunks = chunk_rows(count, most, mesh.shape["models"])
        size, local = len(chunks[0]), len(mesh.local_devices)
        compiled = program(size, batch_size)
        usage = compiled.memory_analysis()
        needed = local * (usage.argument_size_in_bytes + usage.temp_size_in_bytes)
        memory = hosts.least(available_memory(local))
        if needed <= memory:
            return Plan(chunks, mesh, mesh.size * float(compiled.cost_analysis()["flops"]), needed)
        if wanted or most == 1:
            raise UserError(
                f"stage {stage_name!r}: a program of {size} models needs {needed / 2**30:.1f} GiB, and "
                f"{memory / 2**30:.1f} GiB may be used; lower "
                + ("population.models_per_program" if size > 1 else f"{stage_name}.batch_size")
            )
        most = -(-min(most, size) // 2)


def available_memory(devices: int) -> float:
    """Bytes that programs on `devices` of this process may use together: 80% of theirs, or on CPU half the machine's.

    What happens to be free does not count: a resumed run must cut its population as before to repeat it bit for bit.
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return 0.8 * stats["bytes_limit"] * devices
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
