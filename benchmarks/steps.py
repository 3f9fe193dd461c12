"""Contestants that take training steps in JAX: our programs, and what one would write instead."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.problem import random_dataset, stage_spec_of
from benchmarks.spec import Round, Spec
from prunejax.data import Dataset
from prunejax.nn import wideresnet
from prunejax.nn.norm import EPSILON, MOMENTUM
from prunejax.training import population
from prunejax.training import step as single
from prunejax.training.members import members_of
from prunejax.training.plan import Plan, make_plan
from prunejax.training.programs import Programs, make_programs, shared_arguments
from prunejax.training.spec import Metrics, StageSpec
from prunejax.training.state import TrainState
from prunejax.training.step import PerModel, Shared
from prunejax.types import Array, Scalar

# --------------------------------------------------------------- our programs


class Rehearsal(NamedTuple):
    """The programs that train a population, and their calls."""

    spec: StageSpec
    dataset: Dataset
    program: Programs
    plan: Plan
    bytes_accessed: float
    """In memory by one step of one program, as XLA counts them."""
    calls: Iterator[Any]
    """Each calls the next chunk's program, see `population.rehearse`."""

    def step(self) -> None:
        """Takes one step of all chunks and waits for it."""
        latest = [next(self.calls) for _ in self.plan.chunks]
        jax.block_until_ready(latest)


def rehearse(spec: Spec) -> Rehearsal:
    """Compiles and plans as training does."""
    dataset = random_dataset(spec)
    stage_spec = stage_spec_of(spec, dataset)
    members = members_of(stage_spec.config)
    program = make_programs(stage_spec, dataset)
    plan = make_plan(stage_spec, len(members), dataset, program)
    chunks = len(plan.chunks)
    calls = population.rehearse(stage_spec, members, dataset, plan, program, chunks)
    costs = program(plan.models_per_program, spec.batch).cost_analysis()
    return Rehearsal(stage_spec, dataset, program, plan, float(costs["bytes accessed"]), calls)


def ours(spec: Spec) -> Round:
    """One step of the whole population in the programs of `population.fit`."""
    return rehearse(spec).step


# ------------------------------- as one would write it, with nothing of ours


class Data(NamedTuple):
    """The other arguments of a plain step, next to its state and seed, on the device."""

    order: Array
    step: Array
    shared: Shared


PlainStep = Callable[[TrainState, Scalar, Data], tuple[TrainState, Metrics]]


class Plain(NamedTuple):
    """The training of a single model; neither function is jitted."""

    init: Callable[[Scalar], TrainState]
    step: PlainStep
    data: Data


def make_plain(spec: Spec) -> Plain:
    """The single model's functions, with XLA's own convolution and Flax's own normalisation."""
    use_flax_normalisation()
    dataset = random_dataset(spec)
    # `grouped` is the convolution of `lax` as it stands; a single model has one group.
    stage_spec = stage_spec_of(replace(spec, convolution="grouped"), dataset)
    train_step = single.make_step(stage_spec)
    order = np.arange(len(dataset.train_labels), dtype=np.int32)
    data = Data(order, jnp.int32(0), shared_arguments(stage_spec, dataset))

    def init(seed: Scalar) -> TrainState:
        return single.init(stage_spec, seed)

    def step(state: TrainState, seed: Scalar, data: Data) -> tuple[TrainState, Metrics]:
        member = PerModel(seed, final_sparsity=jnp.float32(0), order=data.order)
        return train_step(state, member, data.step, data.shared, spec.batch)

    return Plain(init, step, jax.device_put(data))


def use_flax_normalisation() -> None:
    """Replaces our normalisation by Flax's in all WideResNets that this process applies from now.

    A WideResNet looks the name up in its module whenever it is applied.
    """
    wideresnet.BatchNorm = _flax_normalisation  # pyright: ignore[reportAttributeAccessIssue]


def _flax_normalisation(train: bool, name: str) -> nn.BatchNorm:
    """Called as `nn.norm.BatchNorm` is, with its settings and variables."""
    return nn.BatchNorm(
        use_running_average=not train, momentum=MOMENTUM, epsilon=EPSILON, name=name
    )


def serial(spec: Spec) -> Round:
    """The plain step under `jit`, one model after another."""
    plain = make_plain(spec)
    init = jax.jit(plain.init)
    program = jax.jit(plain.step, donate_argnums=0)
    seeds = np.arange(spec.models, dtype=np.int32)
    states = [init(seed) for seed in seeds]

    def step() -> None:
        for row, seed in enumerate(seeds):
            result = program(states[row], seed, plain.data)
            states[row], _ = jax.block_until_ready(result)

    return step


def naive(spec: Spec) -> Round:
    """`jax.vmap` of the plain step, on one device."""

    def vmapped(
        step: PlainStep, state: TrainState, seeds: Array, data: Data
    ) -> tuple[TrainState, Metrics]:
        return jax.vmap(step, in_axes=(0, 0, None))(state, seeds, data)

    return _all_in_one(spec, vmapped)


def lax_map(spec: Spec) -> Round:
    """`jax.lax.map` of the plain step."""

    def mapped(
        step: PlainStep, state: TrainState, seeds: Array, data: Data
    ) -> tuple[TrainState, Metrics]:
        def step_one(member: tuple[TrainState, Array]) -> tuple[TrainState, Metrics]:
            own_state, seed = member
            return step(own_state, seed, data)

        return jax.lax.map(step_one, (state, seeds))

    return _all_in_one(spec, mapped)


def _all_in_one(spec: Spec, over_models: Callable[..., tuple[TrainState, Metrics]]) -> Round:
    """One jitted call of `over_models(plain step, state, seeds, data)`, models stacked."""
    plain = make_plain(spec)
    init = jax.jit(plain.init)
    seeds = np.arange(spec.models, dtype=np.int32)
    states = [init(seed) for seed in seeds]
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def step_all(state: TrainState, seeds: Array, data: Data) -> tuple[TrainState, Metrics]:
        return over_models(plain.step, state, seeds, data)

    program = jax.jit(step_all, donate_argnums=0)

    def step() -> None:
        nonlocal state
        result = program(state, seeds, plain.data)
        state, _ = jax.block_until_ready(result)

    return step
