"""The compiled steps of a population."""

import dataclasses
import os
import traceback
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prunejax.config import Config, UserError
from prunejax.config.errors import in_one_line
from prunejax.data import Dataset
from prunejax.methods import stages_of
from prunejax.nn.target import Target, target, traced_for
from prunejax.pruning import ScheduleSteps
from prunejax.pruning.masks import name_of
from prunejax.training import step as single
from prunejax.training.devices import (
    PER_MODEL,
    SHARED,
    make_mesh,
    over_models,
    split_batch,
    target_of,
)
from prunejax.training.spec import Metrics, StageSpec, make_specs
from prunejax.training.state import TrainState, under_own_switches
from prunejax.training.step import PerModel, Shared
from prunejax.types import Array, Scalar, Tree

CPU_OPTIONS = {
    # XLA's other YNNPACK kernels, convolutions above all, make a step at 32x32 a third slower than
    # its own.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT",
    # It drops the barriers in `nn.conv` before they have served.
    "xla_disable_hlo_passes": "cse_barrier_expander",
}
Programs = Callable[[int, int], Any]
"""`(models, batch_size) -> compiled step`."""


class Steps(NamedTuple):
    """Which steps one call of a program takes."""

    first: Scalar
    number: Scalar
    """1 where there is no loop."""


def make_step(spec: StageSpec, mesh: Mesh | None = None, devices: Target | None = None) -> Any:  # noqa: ANN401
    """The jitted `step.make_step` over the models axis; the state it is given is donated.

    Its arguments are (state, PerModel, Steps, Shared) and the static `batch_size`; the metrics are
    sums over the steps. With a mesh, whose axis `models` must divide the models, each row of
    devices steps its own: nothing passes between rows.

    Args:
        spec: the stage.
        mesh: the devices; None: one.
        devices: what it is traced for. None: the mesh's devices, or JAX's own platform.
    """
    split = split_batch(mesh) if mesh else lambda rows: rows
    step = single.make_step(spec, split)
    devices = devices or (target_of(mesh) if mesh else target())
    loops = steps_per_call(spec.config, devices.platform) > 1

    def take_steps(
        state: TrainState, members: PerModel, steps: Steps, shared: Shared, *, batch_size: int
    ) -> tuple[TrainState, Metrics]:
        mapped = jax.vmap(partial(step, batch_size=batch_size), in_axes=(0, 0, None, None))

        def one(state: TrainState, number: Scalar) -> tuple[TrainState, Metrics]:
            return mapped(state, members, number, shared)

        def body(number: Array, carry: tuple) -> tuple[TrainState, Metrics]:
            state, metrics = one(carry[0], number)
            return state, jax.tree.map(jnp.add, carry[1], metrics)

        if not loops:
            return one(state, steps.first)
        _, shapes = jax.eval_shape(one, state, steps.first)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.fori_loop(steps.first, steps.first + steps.number, body, (state, zeros))

    def population_step(
        state: TrainState, members: PerModel, steps: Steps, shared: Shared, batch_size: int
    ) -> tuple[TrainState, Metrics]:
        function = partial(take_steps, batch_size=batch_size)
        if mesh is not None:
            function = over_models(function, mesh, (PER_MODEL, PER_MODEL, SHARED, SHARED))
        with traced_for(devices):
            return function(state, members, steps, shared)

    placed = NamedSharding(mesh, PER_MODEL) if mesh else None
    return jax.jit(
        population_step, static_argnames="batch_size", donate_argnums=0, out_shardings=placed
    )


def steps_per_call(config: Config, platform: str) -> int:
    """The most steps that one call of a program takes; see `config.Execution`."""
    if config.execution.steps_per_call is not None:
        return config.execution.steps_per_call
    return 1 if platform == "cpu" else 8


def state_shapes(spec: StageSpec, models: int) -> TrainState:
    """The shapes and dtypes of a population's state in a stage."""

    def init_one(seed: Array) -> TrainState:
        return single.init(spec, seed)

    return jax.eval_shape(jax.vmap(init_one), jax.ShapeDtypeStruct((models,), np.int32))


def shared_arguments(spec: StageSpec, dataset: Dataset) -> Shared:
    """What a stage's programs are given at every step: its schedule and the training set."""
    schedule = ScheduleSteps(*(np.int32(step) for step in spec.schedule))
    return Shared(schedule, dataset.train_images, dataset.train_labels)


def argument_shapes(
    spec: StageSpec, num_train: int, models: int
) -> tuple[TrainState, PerModel, Steps, Shared]:
    """The shapes and dtypes of what a program of `models` members is given."""

    def integers(*shape: int) -> Any:  # noqa: ANN401
        return jax.ShapeDtypeStruct(shape, np.int32)

    images: Any = jax.ShapeDtypeStruct((num_train, *spec.image_shape), np.uint8)
    sparsities: Any = jax.ShapeDtypeStruct((models,), np.float32)

    members = PerModel(
        seed=integers(models),
        final_sparsity=sparsities,
        order=integers(models, num_train),
    )
    shared = Shared(
        schedule=ScheduleSteps(integers(), integers(), integers()),
        images=images,
        labels=integers(num_train),
    )
    return state_shapes(spec, models), members, Steps(integers(), integers()), shared


@dataclasses.dataclass(frozen=True)
class _Key:
    """A stage, as far as its programs differ from others'; equal keys share them."""

    config: Config
    """Without what a program does not depend on."""
    stage: str
    image_shape: tuple[int, ...]
    num_classes: int
    epoch_steps: int
    spec: StageSpec = dataclasses.field(compare=False)


def _key_of(spec: StageSpec) -> _Key:
    """The key of a stage: names, seeds, sparsities and schedules are no part of its programs."""
    config, experiment = spec.config, spec.config.experiment
    pruning = experiment.pruning
    if pruning is not None:
        is_gradual = pruning.schedule is not None
        pruning = dataclasses.replace(
            pruning, schedule="" if is_gradual else None, start=None, sparsities=(), shorten=False
        )
    experiment = dataclasses.replace(
        experiment, name="", label="", dense_parent=None, baseline=None, pruning=pruning
    )
    fixed = Config()
    config = dataclasses.replace(
        config,
        experiment=experiment,
        models=fixed.models,
        seed=fixed.seed,
        sparsities=fixed.sparsities,
        checkpoint=fixed.checkpoint,
        measure=fixed.measure,
        display=fixed.display,
    )
    return _Key(config, spec.stage, spec.image_shape, spec.num_classes, spec.epoch_steps, spec)


KEPT = 8
"""Programs of a process that stay compiled.

XLA maps each into memory in many small pieces, of which Linux allows a process 65,530: a process
that keeps hundreds of programs crashes.
"""


def make_programs(spec: StageSpec, dataset: Dataset) -> Programs:
    """Returns `(models, batch_size) -> compiled step` over `devices.make_mesh`.

    Each is compiled once in a process, from shapes: the experiments of a sweep share it.
    """
    return partial(_compile_step, _key_of(spec), len(dataset.train_labels))


@lru_cache(maxsize=KEPT)
def _compile_step(key: _Key, num_train: int, models: int, batch_size: int) -> Any:  # noqa: ANN401
    spec = key.spec
    mesh = make_mesh(spec.config.execution, models)

    def placed(tree: Tree, partition: PartitionSpec) -> Tree:
        sharding = NamedSharding(mesh, partition)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
        )

    state, members, steps, shared = argument_shapes(spec, num_train, models)
    lowered = make_step(spec, mesh).lower(
        placed(state, PER_MODEL),
        placed(members, PER_MODEL),
        placed(steps, SHARED),
        placed(shared, SHARED),
        batch_size=batch_size,
    )
    on_cpu = target_of(mesh).platform == "cpu"
    return lowered.compile(CPU_OPTIONS if on_cpu else None)


def make_init(spec: StageSpec) -> Callable[[Scalar, TrainState | None], TrainState]:
    """Returns `step.init` of one member, jitted: `(seed, previous) -> state`.

    It is compiled once in a process for all experiments that share the programs of the stage.
    """
    return _jit_init(_key_of(spec))


@lru_cache(maxsize=KEPT)
def _jit_init(key: _Key) -> Any:  # noqa: ANN401
    return jax.jit(partial(single.init, key.spec))


@under_own_switches
def require_traceable(config: Config, dataset: Dataset) -> None:
    """Traces one step of every stage without computing it.

    Raises:
        UserError: if a plug-in refuses what the step gives it, for instance an allocation a leaf
            that it cannot divide.
    """
    for stage, spec in make_specs(config, dataset).items():
        try:
            _trace(_key_of(spec), len(dataset.train_labels))
        except UserError:
            raise
        except Exception as error:  # of JAX, or of the plug-in itself
            raise UserError(
                f"experiment {config.experiment.name!r}, stage {stage!r}: one step cannot be "
                f"traced ({_message(error)})"
            ) from error


def _message(error: Exception) -> str:
    """An exception in one line, with the line of code outside of this package that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = (f"site-packages{os.sep}", f"prunejax{os.sep}")
    outside = [frame for frame in frames if not any(part in frame.filename for part in ours)]
    frame = (outside or frames)[-1]
    return f"{in_one_line(error)} ({os.path.basename(frame.filename)}, line {frame.lineno})"


def _require_excluded_parts(config: Config, state: TrainState) -> None:
    """Refuses a part to exclude from pruning that the network does not have."""
    pruning = config.experiment.pruning
    if pruning is None:
        return
    parts: dict[str, None] = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(state.params):
        parts |= dict.fromkeys(name_of(path).split("/"))
    for name in pruning.exclude:
        if name not in parts:
            raise UserError(
                f"experiment {config.experiment.name!r} excludes {name!r}, which is no part of the "
                f"network; there are: {', '.join(parts)}"
            )


@lru_cache(maxsize=KEPT)
def _trace(key: _Key, num_train: int) -> None:
    """Traces one step of a population of one."""
    spec = key.spec
    if spec.stage == stages_of(spec.config)[0]:
        _require_excluded_parts(spec.config, state_shapes(spec, 1))
    batch_size = min(spec.settings.batch_size, num_train)
    function = partial(make_step(spec), batch_size=batch_size)
    jax.eval_shape(function, *argument_shapes(spec, num_train, 1))
