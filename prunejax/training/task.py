"""A stage's settings, resolved once: networks, loss, optimizer, schedules and steps."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, UInt8

from prunejax.config import Appearance, Config, Stage, UserError, validate
from prunejax.config.levels import fraction
from prunejax.data import Dataset, with_statistics
from prunejax.methods import METHODS, Objective, objective_of, stage_settings, stages_of
from prunejax.methods.augment import make_augment, normalise
from prunejax.methods.entry import accuracy_of
from prunejax.nn import ARCHITECTURES, make_networks
from prunejax.pruning import (
    Pruner,
    ScheduleSteps,
    begin_schedules,
    make_pruner,
    schedule_steps,
)
from prunejax.pruning.entry import Prunable
from prunejax.training.optim import make_learning_rate, make_optimizer
from prunejax.types import Array, Key, Scalar, Tree

Metrics = dict[str, Array]
"""`loss`, `sparsity` and, with a linear head, `accuracy`: [] of one model, `[models]` of many."""
LossOf = Callable[[Tree, Tree, Tree, Array, Array], tuple[Array, tuple[Metrics, Tree]]]
"""`(trained, params, batch_stats, views, labels) -> loss, (metrics, batch_stats)`; `trained` are
the parts of `params` to differentiate by."""


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
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
    schedules: tuple[ScheduleSteps, ...]
    """For each begin of the experiment; see `pruning.begin_schedules`."""
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


def make_task(
    config: Config, stage: str, image_shape: tuple[int, ...], num_classes: int, epoch_steps: int
) -> Task:
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
    return Task(
        config=config,
        stage=stage,
        settings=settings,
        objective=objective,
        networks=networks,
        loss_of=_make_loss(config, settings, objective, networks),
        optimizer=make_optimizer(settings, config.optim),
        learning_rate=make_learning_rate(settings.learning_rate, settings.epochs, epoch_steps),
        pruner=make_pruner(config, stage),
        schedules=begin_schedules(config, stage, settings.epochs * epoch_steps),
        counted=make_pruner(config, first).prunable,
        image_shape=image_shape,
        num_classes=num_classes,
        epoch_steps=epoch_steps,
    )


def make_tasks(config: Config, dataset: Dataset) -> dict[str, Task]:
    """The task of every stage of a run, in order.

    Raises:
        UserError: if the settings cannot be trained, or not on this data.
    """
    validate(config, dataset.image_shape[-1])
    tasks = {}
    for stage in stages_of(config):
        batch_size = stage_settings(config, stage).batch_size
        epoch_steps = math.ceil(len(dataset.train_labels) / batch_size)
        task = make_task(config, stage, dataset.image_shape, dataset.num_classes, epoch_steps)
        _check_schedules(task)
        tasks[stage] = task
    return tasks


def check(config: Config) -> None:
    """Refuses what can be refused before the data is at hand.

    Raises:
        UserError: naming the field or the entry.
    """
    validate(config)
    ARCHITECTURES[config.model.name].check(config.model)
    for stage in stages_of(config):
        _check_steps(config, stage, schedule_steps(config, stage))  # of begins nothing is known yet
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
    attained = {level: pruner.select.attained(level) for level in config.sparsities}
    for level, reached in attained.items():
        if abs(reached - level) > 1e-6:
            levels = ",".join(fraction(value) for value in sorted({*attained.values()} - {0.0}))
            raise UserError(
                f"experiment {config.experiment.name!r}: selection {pruning.select!r} reaches "
                f"{fraction(reached)} and not the sparsity {fraction(level)}; "
                f"use --sparsities={levels or 'others'}"
            )


def _field(config: Config, stage: str) -> str:
    pruning = config.experiment.pruning
    return f"prune.{'head' if stage == 'head' or pruning is None else pruning.schedule}"


def _check_steps(config: Config, stage: str, steps: ScheduleSteps) -> None:
    """What a schedule must fulfil whatever the length of its stage."""
    begin, end, every = (int(step) for step in steps)
    if end < 0:  # it never comes
        return
    field = _field(config, stage)
    if begin >= end:
        raise UserError(f"{field} is {begin}/{end}/{every}; it needs begin_step < end_step")
    updates = make_pruner(config, stage).updates(steps, 0.5)
    if updates.first > updates.last:
        raise UserError(
            f"{field} is {begin}/{end}/{every}: no multiple of {every} lies in it, so with "
            "prune.at_multiples nothing would be pruned"
        )


def _check_schedules(task: Task) -> None:
    pruning = task.config.experiment.pruning
    if pruning is not None and pruning.begins and task.stage == stages_of(task.config)[0]:
        _check_begins(task, pruning.begins)
        return
    for schedule in task.schedules:
        _check_steps(task.config, task.stage, schedule)
        # A schedule may number the stage's steps from 1.
        if schedule.end - task.pruner.count_from >= task.steps:
            raise UserError(
                f"{_field(task.config, task.stage)}.end_step is {schedule.end}, beyond stage "
                f"{task.stage!r}, which has {task.steps} steps"
            )


def _check_begins(task: Task, begins: tuple[int | float, ...]) -> None:
    """What the schedules of a population must fulfil in which the begin is an axis."""
    known: dict[int, int | float] = {}
    for begin, schedule in zip(begins, task.schedules, strict=True):
        first, end = int(schedule.begin), int(schedule.end)
        told = f"begin of pruning {begin}, step {first} of the {task.steps} of stage {task.stage!r}"
        if first in known:
            raise UserError(f"{told}: begin {known[first]} is the same step; give one of them")
        known[first] = begin
        if end - task.pruner.count_from >= task.steps:
            raise UserError(
                f"{told}: its span of {end - first} steps would end after the stage; begin "
                f"earlier, or shorten {_field(task.config, task.stage)}"
            )
        if first >= end:
            raise UserError(f"{told}: no step is left to prune at; begin earlier")
        _check_steps(task.config, task.stage, schedule)


def resolve(config: Config, dataset: Dataset) -> Config:
    """`config` with what follows from the data and the entries it names.

    The data's mean and std where none are given, what tables and figures call the method and the
    architecture, and the steps of the first stage.
    """
    method = METHODS[config.experiment.method]
    first = stage_settings(config, stages_of(config)[0])
    shown = Appearance(
        label=method.label,
        colour=method.colour,
        architecture=ARCHITECTURES[config.model.name].label(config.model),
        first_stage_steps=first.epochs * math.ceil(len(dataset.train_labels) / first.batch_size),
    )
    data = with_statistics(config.data, dataset)
    return dataclasses.replace(config, data=data, appearance=shown)


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
