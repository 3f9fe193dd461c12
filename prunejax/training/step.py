"""`init` and `step` of ONE model in one stage, pure; the population vmaps them."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, UInt8

from prunejax.pruning import ScheduleSteps
from prunejax.pruning.masks import apply_masks, init_masks, sparsity
from prunejax.training.spec import Metrics, StageSpec, make_batch
from prunejax.training.state import TrainState, key_for
from prunejax.types import Array, Scalar, Tree


class PerModel(NamedTuple):
    """The inputs of a member to a step, apart from its state; `[models, ...]` for a population."""

    seed: Scalar
    final_sparsity: Scalar
    order: Int[Array, "*models num_train"]
    """The order in which it sees the training images in this epoch."""


class Shared(NamedTuple):
    """The inputs that all members have in common at every step."""

    schedule: ScheduleSteps
    images: UInt8[Array, "num_train h w c"]
    """The whole training set."""
    labels: Int[Array, " num_train"]


Step = Callable[..., tuple[TrainState, Metrics]]
"""`(state, member, step, shared, batch_size) -> state, metrics`."""


def epoch_order(
    seed: Scalar, stage: str, epoch: Scalar, num_train: int
) -> Int[Array, " num_train"]:
    """Returns the order in which a seed sees the training images in an epoch, int32 `[num_train]`.

    Args:
        seed: of the member.
        stage: of training.
        epoch: of the stage, from 0.
        num_train: training images.
    """
    return jax.random.permutation(key_for(seed, f"{stage}/order", epoch), num_train)


def init(spec: StageSpec, seed: Scalar, previous: TrainState | None = None) -> TrainState:
    """The state at the start of a stage.

    Args:
        spec: the stage.
        seed: of this member.
        previous: the end of the stage before: its parts are kept with their masks, but for the
            projection head, which ends with its stage. None: all parts are new.
    """
    networks, head = spec.networks, spec.objective.network
    kept = dict(previous.params) if previous else {}
    kept.pop("projection", None)
    params = dict(kept)
    batch_stats = previous.batch_stats if previous else {}
    if "encoder" not in params:
        images = jnp.zeros((1, *spec.image_shape))
        variables = networks["encoder"].init(key_for(seed, "init/encoder"), images)
        params["encoder"], batch_stats = variables["params"], variables["batch_stats"]
    if head not in params:
        representation = jnp.zeros((1, representation_size(spec)))
        variables = networks[head].init(key_for(seed, f"init/{head}"), representation)
        params[head] = variables["params"]

    masks = {}
    for name, part in params.items():
        masks[name] = previous.masks[name] if previous and name in kept else init_masks(part)
    return TrainState(
        params=params,
        batch_stats=batch_stats,
        masks=masks,
        opt_state=spec.optimizer.init(spec.trained(params)),
        failed_at=previous.failed_at if previous else jnp.array(-1, jnp.int32),
        plateau_steps=jnp.zeros((), jnp.int32),
    )


def representation_size(spec: StageSpec) -> int:
    """The number of features of the encoder's representation."""
    images = jax.ShapeDtypeStruct((1, *spec.image_shape), jnp.float32)
    encoder = spec.networks["encoder"]
    (representation, _), _ = jax.eval_shape(encoder.init_with_output, jax.random.key(0), images)
    return representation.shape[-1]


def prune_once(
    spec: StageSpec, state: TrainState, seed: Scalar, final_sparsity: Scalar
) -> TrainState:
    """Returns a trained dense model pruned in one shot.

    Args:
        spec: the first stage of the one-shot run.
        state: of the dense model.
        seed: of the member.
        final_sparsity: of the member.

    Source: Paganini & Forde 2020.
    """
    key = key_for(seed, f"{spec.stage}/score")
    params, masks = spec.pruner.update(state.params, state.masks, final_sparsity, key)
    return dataclasses.replace(state, params=params, masks=masks)


def make_step(spec: StageSpec, split: Callable[[Array], Array] = lambda images: images) -> Step:
    """Returns `step(state, member, step, shared, batch_size)`.

    It updates the masks if the schedule says so and takes one SGD step on the images that the
    member's order names next. A score that needs no gradients prunes before the forward pass; one
    that does prunes by the gradients of this very batch, before they are used.

    The metrics are `loss`, `sparsity` and, with a linear head, `accuracy`, of this batch. `split`
    may spread a batch of images over devices; it changes no value.

    A step after which anything would not be finite is not taken, and the model has failed: it stays
    as it was before, and its metrics are NaN from then on. So has a model with a loss that stays on
    the plateau of collapse.
    """
    draw = make_batch(spec.config, spec.objective, split)
    prunes_by_gradients = spec.pruner.score.needs_gradients

    def step_fn(
        state: TrainState, member: PerModel, step: Scalar, shared: Shared, batch_size: int
    ) -> tuple[TrainState, Metrics]:
        params, masks = state.params, state.masks
        if not prunes_by_gradients:
            params, masks = _update_masks(spec, params, masks, member, step, shared.schedule)

        with jax.named_scope("augment"):
            start = step % spec.epoch_steps * spec.settings.batch_size
            chosen = jax.lax.dynamic_slice(member.order, (start,), (batch_size,))
            key = key_for(member.seed, f"{spec.stage}/augment", step)
            views = draw(key, shared.images[chosen])
        gradients, (metrics, batch_stats) = jax.grad(spec.loss_of, has_aux=True)(
            spec.trained(params), params, state.batch_stats, views, shared.labels[chosen]
        )

        if prunes_by_gradients:
            params, masks = _update_masks(
                spec, params, masks, member, step, shared.schedule, gradients
            )
        with jax.named_scope("optimizer"):
            trained = spec.trained(params)
            updates, opt_state = spec.optimizer.update(gradients, state.opt_state, trained)
            rate = spec.learning_rate(step)
            moved = jax.tree.map(lambda leaf, update: leaf - rate * update, trained, updates)
        with jax.named_scope("apply_masks"):
            params = apply_masks(params | moved, masks)
        metrics["sparsity"] = sparsity(masks, spec.counted)
        after = dataclasses.replace(
            state, params=params, batch_stats=batch_stats, masks=masks, opt_state=opt_state
        )
        return _unless_failed(spec, step, state, after, moved, metrics, len(views))

    return step_fn


@jax.named_scope("update_masks")
def _update_masks(
    spec: StageSpec,
    params: Tree,
    masks: Tree,
    member: PerModel,
    step: Scalar,
    schedule: ScheduleSteps,
    gradients: Tree | None = None,
) -> tuple[Tree, Tree]:
    """The params and masks after the update that is due at this step, if there is one.

    The step is not batched, so that this stays a branch under `vmap`.
    """
    updates = spec.pruner.updates(schedule, member.final_sparsity)

    def update(params: Tree, masks: Tree) -> tuple[Tree, Tree]:
        key = key_for(member.seed, f"{spec.stage}/score", step)
        return spec.pruner.update(params, masks, updates.target(step), key, gradients)

    def leave(params: Tree, masks: Tree) -> tuple[Tree, Tree]:
        return params, masks

    return jax.lax.cond(updates.due(step), update, leave, params, masks)


@jax.named_scope("freeze")
def _unless_failed(
    spec: StageSpec,
    step: Scalar,
    before: TrainState,
    after: TrainState,
    moved: Tree,
    metrics: Metrics,
    samples: int,
) -> tuple[TrainState, Metrics]:
    """Returns the state and metrics of a step: `after`, unless the model has failed.

    A model that fails, or that had before, keeps the state `before`, and its metrics are NaN.

    Args:
        spec: the stage.
        step: of the stage.
        before: the state at the start of the step.
        after: the state at its end.
        moved: the weights before they are masked.
        metrics: of the step.
        samples: views x batch.
    """
    plateau_steps = _plateau_steps(spec, before, metrics["loss"], samples)
    # A gradient that is not finite moves a weight that is not; of the activations the loss alone
    # is not enough: on CPU XLA's maximum drops NaN, and so does ReLU.
    leaves = jax.tree.leaves((metrics["loss"], after.batch_stats, moved))
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
    healthy = finite & (plateau_steps < spec.config.supcon.collapse_steps)
    failed_at = jnp.where(healthy | (before.failed_at >= 0), before.failed_at, step)
    is_healthy = failed_at < 0

    def unless_failed(new: Array, old: Array) -> Array:
        return jnp.where(is_healthy, new, old)

    marks = {"failed_at": failed_at, "plateau_steps": plateau_steps}
    before = dataclasses.replace(before, **marks)
    after = dataclasses.replace(after, **marks)
    metrics = jax.tree.map(lambda value: jnp.where(is_healthy, value, jnp.nan), metrics)
    return jax.tree.map(unless_failed, after, before), metrics


def _plateau_steps(
    spec: StageSpec, before: TrainState, loss: Float[Array, ""], samples: int
) -> Int[Array, ""]:
    """For how many steps in a row the loss has been that of a collapsed encoder."""
    collapsed_loss = spec.objective.collapsed_loss
    if collapsed_loss is None:
        return before.plateau_steps
    collapsed = collapsed_loss(spec.config, samples)
    flat = jnp.abs(loss - collapsed) <= spec.config.supcon.collapse_tolerance * collapsed
    counted = jnp.where(flat, before.plateau_steps + 1, 0)
    return jnp.where(before.failed_at < 0, counted, before.plateau_steps)
