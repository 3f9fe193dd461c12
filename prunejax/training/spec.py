"""A stage's settings, resolved once: networks, loss, optimizer, schedule and steps."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, UInt8

from prunejax.config import Config, Display, Stage, UserError, validate
from prunejax.config.levels import fraction
from prunejax.data import Dataset, with_statistics
from prunejax.methods import METHODS, Objective, objective_of, stage_settings, stages_of
from prunejax.methods.augment import make_augment, normalise
from prunejax.methods.entry import accuracy_of
from prunejax.nn import ARCHITECTURES, make_networks
from prunejax.pruning import (
    Pruner,
    ScheduleSteps,
    configured_schedule,
    make_pruner,
    schedule_steps,
)
from prunejax.pruning.entry import Prunable
from prunejax.pruning.schedules import NEVER
from prunejax.training.optim import make_learning_rate, make_optimizer
from prunejax.types import Array, Key, Scalar, Tree

Metrics = dict[str, Array]
"""`loss`, `sparsity` and, with a linear head, `accuracy`: [] of one model, `[models]` of many."""
LossOf = Callable[[Tree, Tree, Tree, Array, Array], tuple[Array, tuple[Metrics, Tree]]]
"""`(trained, params, batch_stats, views, labels) -> loss, (metrics, batch_stats)`; `trained` are
the parts of `params` to differentiate by."""


@dataclasses.dataclass(frozen=True, eq=False)
class StageSpec:
    """One stage of a run on images of one shape."""

    config: Config
    stage: str
    settings: Stage
    objective: Objective
    networks: dict[str, Any]
    """The parts of a model by the name they have in `TrainState.params`."""
    loss_of: LossOf
    optimizer: optax.GradientTransformation
    learning_rate: Callable[[Scalar], Float[Array, ""]]
    """`step of the stage -> rate`."""
    pruner: Pruner
    schedule: ScheduleSteps
    """When masks are updated; see `pruning.schedule_steps`."""
    counted: Prunable
    """The leaves whose sparsity is reported: those that the first stage prunes."""
    image_shape: tuple[int, ...]
    """(height, width, channels)."""
    num_classes: int
    epoch_steps: int
    """Steps that see every training image once; the last batch may be smaller."""

    @property
    def steps(self) -> int:
        """All steps of the stage."""
        return self.settings.epochs * self.epoch_steps

    def trained(self, params: Tree) -> Tree:
        """The parts of `params` that this stage changes."""
        if not self.settings.frozen_encoder:
            return dict(params)
        return {name: part for name, part in params.items() if name != "encoder"}


def make_spec(
    config: Config, stage: str, image_shape: tuple[int, ...], num_classes: int, epoch_steps: int
) -> StageSpec:
    """Resolves the settings of one stage.

    Args:
        config: of the run, with the data's mean and std.
        stage: one of `methods.stages_of(config)`.
        image_shape: (height, width, channels).
        num_classes: of the linear head.
        epoch_steps: steps of one epoch.

    Raises:
        UserError: if an entry is unknown, or the settings are not for it.
    """
    settings, objective = stage_settings(config, stage), objective_of(config, stage)
    ARCHITECTURES[config.model.name].check(config.model)
    networks = make_networks(
        config.model, num_classes, config.compute_dtype, config.execution.convolution
    )
    first = stages_of(config)[0]
    return StageSpec(
        config=config,
        stage=stage,
        settings=settings,
        objective=objective,
        networks=networks,
        loss_of=_make_loss(config, settings, objective, networks),
        optimizer=make_optimizer(settings, config.optim),
        learning_rate=make_learning_rate(settings.learning_rate, settings.epochs, epoch_steps),
        pruner=make_pruner(config, stage),
        schedule=schedule_steps(config, stage, settings.epochs * epoch_steps),
        counted=make_pruner(config, first).prunable,
        image_shape=image_shape,
        num_classes=num_classes,
        epoch_steps=epoch_steps,
    )


def make_specs(config: Config, dataset: Dataset) -> dict[str, StageSpec]:
    """The spec of every stage of a run, in order.

    Raises:
        UserError: if the settings cannot be trained, or not on this data.
    """
    validate(config, dataset.image_shape[-1])
    specs = {}
    for stage in stages_of(config):
        batch_size = stage_settings(config, stage).batch_size
        epoch_steps = math.ceil(len(dataset.train_labels) / batch_size)
        spec = make_spec(config, stage, dataset.image_shape, dataset.num_classes, epoch_steps)
        _check_schedule(spec)
        specs[stage] = spec
    return specs


def check(config: Config) -> None:
    """Refuses what can be refused before the data is at hand.

    Raises:
        UserError: naming the field or the entry.
    """
    validate(config)
    ARCHITECTURES[config.model.name].check(config.model)
    for stage in stages_of(config):
        # A start step that is a fraction of the stage is known once the data is.
        schedule = configured_schedule(config, stage)
        if schedule is not None:
            _check_steps(config, stage, schedule)
    _check_pruning(config)


def _check_pruning(config: Config) -> None:
    pruning = config.experiment.pruning
    if pruning is None:
        return
    pruner = make_pruner(config, stages_of(config)[0])
    if pruning.schedule is None and pruner.score.needs_gradients:
        raise UserError(
            f"experiment {config.experiment.name!r}: score {pruning.score!r} needs the gradients "
            "of a training step, and one-shot pruning has none; give it a schedule"
        )
    achievable = {level: pruner.allocation.achievable(level) for level in config.sparsities}
    for level, reached in achievable.items():
        if abs(reached - level) > 1e-6:
            levels = ",".join(fraction(value) for value in sorted({*achievable.values()} - {0.0}))
            raise UserError(
                f"experiment {config.experiment.name!r}: allocation {pruning.allocation!r} reaches "
                f"{fraction(reached)} and not the sparsity {fraction(level)}; "
                f"use --sparsities={levels or 'others'}"
            )


def _field(config: Config, stage: str) -> str:
    pruning = config.experiment.pruning
    return f"prune.{'head' if stage == 'head' or pruning is None else pruning.schedule}"


def _check_steps(config: Config, stage: str, steps: ScheduleSteps) -> None:
    """Checks what must hold of a schedule whatever the length of its stage."""
    begin, end, every = (int(step) for step in steps)
    field = _field(config, stage)
    if begin >= end:
        raise UserError(f"{field} is {begin}/{end}/{every}; it needs begin_step < end_step")
    updates = make_pruner(config, stage).updates(steps, 0.5)
    if updates.first > updates.last:
        raise UserError(
            f"{field} is {begin}/{end}/{every}: no multiple of {every} lies in it, so with "
            "prune.at_multiples nothing would be pruned"
        )


def _check_schedule(spec: StageSpec) -> None:
    """Checks that a schedule fits its stage."""
    if spec.schedule == NEVER:
        return
    field = _field(spec.config, spec.stage)
    begin, end = int(spec.schedule.begin), int(spec.schedule.end)
    # A schedule may number the stage's steps from 1.
    is_late = end - spec.pruner.count_from >= spec.steps
    pruning = spec.config.experiment.pruning
    if pruning is None or pruning.start is None or spec.stage != stages_of(spec.config)[0]:
        _check_steps(spec.config, spec.stage, spec.schedule)
        if is_late:
            raise UserError(
                f"{field}.end_step is {end}, beyond stage {spec.stage!r}, which has "
                f"{spec.steps} steps"
            )
        return
    start = (
        f"start of pruning {pruning.start}, step {begin} of the {spec.steps} of stage "
        f"{spec.stage!r}"
    )
    if is_late:
        raise UserError(
            f"{start}: its span of {end - begin} steps would end after the stage; start "
            f"earlier, or shorten {field}"
        )
    if begin >= end:
        raise UserError(f"{start}: no step is left to prune at; start earlier")
    _check_steps(spec.config, spec.stage, spec.schedule)


def resolve(config: Config, dataset: Dataset) -> Config:
    """`config` with what follows from the data and the entries it names.

    The data's mean and std where none are given, what tables and figures call the method and the
    architecture, and the steps of the first stage.
    """
    method = METHODS[config.experiment.method]
    first = stage_settings(config, stages_of(config)[0])
    shown = Display(
        label=method.label,
        colour=method.colour,
        architecture=ARCHITECTURES[config.model.name].label(config.model),
        first_stage_steps=first.epochs * math.ceil(len(dataset.train_labels) / first.batch_size),
    )
    data = with_statistics(config.data, dataset)
    return dataclasses.replace(config, data=data, display=shown)


def make_batch(
    config: Config,
    objective: Objective,
    split: Callable[[Array], Array] = lambda images: images,
) -> Callable[[Key, UInt8[Array, "batch h w c"]], Float[Array, "n h w c"]]:
    """Returns `(key, images) -> views`, augmented and normalised.

    The views are `[batch, ...]`, or with several of each image `[views x batch, ...]`, the first
    view of all images first. `split` may spread the images over devices; it changes no value.
    """
    augment = jax.vmap(make_augment(getattr(config, objective.augment)))

    def draw(key: Key, images: Array) -> Array:
        if objective.views > 1:
            images = jnp.concatenate([images] * objective.views)
        images = split(images)
        return normalise(augment(jax.random.split(key, len(images)), images), config.data)

    return draw


def _make_loss(
    config: Config, settings: Stage, objective: Objective, networks: dict[str, Any]
) -> LossOf:
    """A frozen encoder runs in evaluation mode; with a linear head the accuracy is a metric too."""
    loss_function = objective.make_loss(config)

    def encode(params: Tree, batch_stats: Tree, views: Array) -> tuple[Array, Tree]:
        variables = {"params": params["encoder"], "batch_stats": batch_stats}
        if settings.frozen_encoder:
            representations, _ = networks["encoder"].apply(variables, views)
            return representations, batch_stats
        (representations, _), updated = networks["encoder"].apply(
            variables, views, train=True, mutable=["batch_stats"]
        )
        return representations, updated["batch_stats"]

    def loss_of(
        trained: Tree, params: Tree, batch_stats: Tree, views: Array, labels: Array
    ) -> tuple[Array, tuple[Metrics, Tree]]:
        params = params | trained
        representations, batch_stats = encode(params, batch_stats, views)
        network = objective.network
        outputs = networks[network].apply({"params": params[network]}, representations)
        if objective.views > 1:
            outputs = outputs.reshape(objective.views, len(labels), -1)
        loss = loss_function(outputs, labels)
        metrics = {"loss": loss}
        if network == "head" and objective.views == 1:
            metrics["accuracy"] = accuracy_of(outputs, labels)
        return loss, (metrics, batch_stats)

    return loss_of
