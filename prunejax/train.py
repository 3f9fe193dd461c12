"""`init` and `step` of ONE model in one stage, pure; the population vmaps them.

Every random draw is a function of (seed, step, purpose): no generator state is kept, so a member sees the same batches
and views alone, in a population, after a resume and on any number of devices.
"""

import dataclasses
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, UInt8

from prunejax import losses, prune
from prunejax.augment import make_augment, normalise
from prunejax.config import Config, steps_per_epoch
from prunejax.models import make_networks
from prunejax.optim import make_learning_rate, make_optimizer
from prunejax.types import Array, Key, Scalar, TrainState, Tree

Metrics = dict[str, Float[Array, ""]]
ScheduleSteps = tuple[Scalar, Scalar, Scalar]
"""(begin, end, every) of gradual pruning, traced so that experiments differing in them share one compiled program."""


def key_for(seed: Scalar, purpose: str, step: Scalar = 0) -> Key:
    """The PRNG key of one purpose at one step."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))
    return jax.random.fold_in(key, step)


def epoch_order(seed: Scalar, stage_name: str, epoch: Scalar, num_train: int) -> Int[Array, " num_train"]:
    """The order in which a seed sees the training images in an epoch."""
    return jax.random.permutation(key_for(seed, f"{stage_name}/order", epoch), num_train)


def prunable_leaves(config: Config, stage_name: str) -> prune.Prunable:
    """The leaves that this stage prunes; a head stage, by `prune.head`, only the head and not the frozen encoder."""
    if stage_name == "head" and config.prune.head is not None:
        return prune.head_kernel
    with_head = config.experiment.prune_head and stage_name != "scl"
    return prune.convolution_and_head_kernels if with_head else prune.convolution_kernels


def schedule_steps(config: Config, stage_name: str) -> ScheduleSteps:
    """The stage's pruning schedule; where there is none, one whose steps are never reached."""
    schedule = config.schedule(stage_name)
    return (schedule.begin_step, schedule.end_step, schedule.every_steps) if schedule else (-2, -1, 1)


def _gradual(
    config: Config, schedule: ScheduleSteps, final_sparsity: Scalar
) -> tuple[Scalar, Scalar, Callable[[Scalar], Float[Array, ""]]]:
    """The steps of a schedule's first and last update, and `step -> sparsity` of those that are made."""
    begin, end, every = schedule
    first, last = (-(-begin // every) * every, end // every * every) if config.prune.at_multiples else (begin, end)
    target = prune.polynomial_schedule(final_sparsity, begin, end, config.prune.power)
    return first, last, lambda step: target(step - first + begin)  # the first update has the target of `begin`


def sparsity_after(config: Config, steps: int, final_sparsity: float) -> float:
    """What an experiment's masks should have come to after `steps` steps of its first stage, where it is pruned."""
    stage_name = config.experiment.stages[0]
    if config.schedule(stage_name) is None:
        return final_sparsity
    *_, every = schedule = schedule_steps(config, stage_name)
    first, last, target = _gradual(config, schedule, final_sparsity)
    step = min(steps - 1, last)
    if step < first:
        return 0.0
    step -= (step - first) % every if step < last else 0
    return float(target(step))


def init(
    config: Config,
    stage_name: str,
    seed: Scalar,
    image_shape: tuple[int, ...],
    num_classes: int,
    previous: TrainState | None = None,
) -> TrainState:
    """The state at the start of a stage: parts that `previous` has are kept with their masks, the others are new.

    Args:
        config: the run.
        stage_name: one of `config.experiment.stages`.
        seed: of this member.
        image_shape: (height, width, channels).
        num_classes: of the linear head.
        previous: the end of the stage before, or None.
    """
    stage = config.stage(stage_name)
    networks = make_networks(config.model, num_classes, config.compute_dtype, config.population.convolution)
    head = "projection" if stage.loss == "supcon" else "head"
    representation = jnp.zeros((1, 64 * config.model.widen_factor))
    kept = previous.params if previous else {}
    params, batch_stats = dict(kept), previous.batch_stats if previous else {}
    params.pop("projection", None)
    if "encoder" not in params:
        variables = networks["encoder"].init(key_for(seed, "init/encoder"), jnp.zeros((1, *image_shape)))
        params["encoder"], batch_stats = variables["params"], variables["batch_stats"]
    if head not in params:
        params[head] = networks[head].init(key_for(seed, f"init/{head}"), representation)["params"]
    masks = {
        name: previous.masks[name] if previous and name in kept else prune.init_masks(params[name]) for name in params
    }
    opt_state = make_optimizer(stage, config.optim).init(_trained(params, stage.frozen_encoder))
    frozen_at = previous.frozen_at if previous else jnp.array(-1, jnp.int32)
    return TrainState(params, batch_stats, masks, opt_state, frozen_at, jnp.zeros((), jnp.int32))


def prune_once(config: Config, stage_name: str, state: TrainState, final_sparsity: Scalar) -> TrainState:
    """One-shot pruning: one global ranking of all prunable weights. Source: Paganini & Forde 2020."""
    masks = prune.global_masks(state.params, state.masks, final_sparsity, prunable_leaves(config, stage_name))
    return dataclasses.replace(state, params=prune.apply_masks(state.params, masks), masks=masks)


def make_step(
    config: Config,
    stage_name: str,
    num_train: int,
    num_classes: int,
    split: Callable[[Array], Array] = lambda images: images,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Returns `step(state, seed, final_sparsity, order, step, schedule, images, labels, batch_size)`.

    It updates the masks if the schedule says so, then takes one SGD step on the images that `order` names next.
    `images` and `labels` are the whole training set. The metrics are `loss`, `sparsity` and, with a linear head,
    `accuracy`, of this batch. `split` may spread a batch of images over devices; it changes no value.

    A step after which anything would not be finite is not taken, and the model is frozen: it stays as it was before,
    and its metrics are NaN from then on. So is one whose contrastive loss stays on the plateau of collapse.
    """
    stage = config.stage(stage_name)
    epoch_steps = steps_per_epoch(stage, num_train)
    learning_rate = make_learning_rate(stage.learning_rate, stage.epochs, epoch_steps)
    optimizer = make_optimizer(stage, config.optim)
    loss_of = make_loss(config, stage_name, num_classes)
    draw = make_batch(config, stage_name, split)
    prunable = prunable_leaves(config, stage_name)

    def step_fn(
        state: TrainState,
        seed: Scalar,
        final_sparsity: Scalar,
        order: Int[Array, " num_train"],
        step: Scalar,
        schedule: ScheduleSteps,
        images: UInt8[Array, "num_train h w c"],
        labels: Int[Array, " num_train"],
        batch_size: int,
    ) -> tuple[TrainState, Metrics]:
        first, last, target = _gradual(config, schedule, final_sparsity)

        def update_masks(params: Tree, masks: Tree) -> tuple[Tree, Tree]:
            masks = prune.layerwise_masks(params, masks, target(step), prunable)
            return prune.apply_masks(params, masks), masks

        with jax.named_scope("update_masks"):
            due = prune.is_prune_step(step, first, last, schedule[-1])
            params, masks = jax.lax.cond(due, update_masks, lambda *same: same, state.params, state.masks)
        with jax.named_scope("augment"):
            chosen = jax.lax.dynamic_slice(order, (step % epoch_steps * stage.batch_size,), (batch_size,))
            views = draw(key_for(seed, f"{stage_name}/augment", step), images[chosen])
        trained = _trained(params, stage.frozen_encoder)
        gradients, (metrics, batch_stats) = jax.grad(loss_of, has_aux=True)(
            trained, params, state.batch_stats, views, labels[chosen]
        )
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(gradients, state.opt_state, trained)
            rate = learning_rate(step)
            moved = jax.tree.map(lambda leaf, update: leaf - rate * update, trained, updates)
        with jax.named_scope("apply_masks"):
            params = prune.apply_masks(params | moved, masks)
        metrics["sparsity"] = prune.sparsity(masks, prunable_leaves(config, config.experiment.stages[0]))
        after = TrainState(params, batch_stats, masks, opt_state, state.frozen_at, state.plateau_steps)
        collapsed = None
        if stage.loss == "supcon":
            collapsed = losses.collapsed_supcon(len(views), config.supcon.temperature, config.supcon.base_temperature)
        return _unless_failed(config, step, state, after, moved, metrics, collapsed)

    return step_fn


@jax.named_scope("freeze")
def _unless_failed(
    config: Config,
    step: Scalar,
    before: TrainState,
    after: TrainState,
    moved: Tree,
    metrics: Metrics,
    collapsed: float | None,
) -> tuple[TrainState, Metrics]:
    """What a step leaves: `after`, or `before` and NaN for a model that it shows to have failed, or that had before.

    `moved` are the weights before they are masked; `collapsed` the loss of a collapsed encoder, if there is such.
    """
    plateau_steps, loss = before.plateau_steps, metrics["loss"]
    if collapsed is not None:
        flat = jnp.abs(loss - collapsed) <= config.supcon.collapse_tolerance * collapsed
        plateau_steps = jnp.where(before.frozen_at < 0, jnp.where(flat, plateau_steps + 1, 0), plateau_steps)
    # A gradient that is not finite moves a weight that is not; of the activations the loss alone does not tell: on
    # CPU XLA's maximum drops NaN, and so does ReLU.
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, after.batch_stats, moved))]
    healthy = jnp.stack(finite).all() & (plateau_steps < config.supcon.collapse_steps)
    frozen_at = jnp.where(healthy | (before.frozen_at >= 0), before.frozen_at, step)
    lives = frozen_at < 0
    before, after = (dataclasses.replace(s, frozen_at=frozen_at, plateau_steps=plateau_steps) for s in (before, after))
    metrics = jax.tree.map(lambda value: jnp.where(lives, value, jnp.nan), metrics)
    return jax.tree.map(lambda new, old: jnp.where(lives, new, old), after, before), metrics


def make_batch(
    config: Config, stage_name: str, split: Callable[[Array], Array] = lambda images: images
) -> Callable[[Key, UInt8[Array, "batch h w c"]], Float[Array, "n h w c"]]:
    """Returns `(key, images) -> views`, augmented and normalised: `[batch, ...]`, or for SupCon both views, stacked."""
    contrastive = config.stage(stage_name).loss == "supcon"
    augment = jax.vmap(make_augment(config.scl_augment if contrastive else config.sup_augment))

    def draw(key: Key, images: Array) -> Array:
        if contrastive:
            images = jnp.concatenate([images, images])
        images = split(images)
        return normalise(augment(jax.random.split(key, len(images)), images), config.data)

    return draw


def make_loss(config: Config, stage_name: str, num_classes: int) -> Callable[..., tuple[Array, tuple[Metrics, Tree]]]:
    """Returns `(trained, params, batch_stats, views, labels) -> loss, (metrics, batch_stats)`.

    `trained` are the parts of `params` to differentiate by. A frozen encoder runs in evaluation mode.
    """
    stage = config.stage(stage_name)
    networks = make_networks(config.model, num_classes, config.compute_dtype, config.population.convolution)

    def loss_of(trained: Tree, params: Tree, batch_stats: Tree, views: Array, labels: Array) -> tuple:
        params = params | trained
        variables = {"params": params["encoder"], "batch_stats": batch_stats}
        if stage.frozen_encoder:
            representations, _ = networks["encoder"].apply(variables, views)
        else:
            (representations, _), updated = networks["encoder"].apply(
                variables, views, train=True, mutable=["batch_stats"]
            )
            batch_stats = updated["batch_stats"]
        if stage.loss == "supcon":
            embeddings = networks["projection"].apply({"params": params["projection"]}, representations)
            embeddings = embeddings.reshape(2, len(labels), -1)
            loss = losses.supcon(embeddings, labels, config.supcon.temperature, config.supcon.base_temperature)
            return loss, ({"loss": loss}, batch_stats)
        logits = networks["head"].apply({"params": params["head"]}, representations)
        loss = losses.cross_entropy(logits, labels)
        accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == labels)
        return loss, ({"loss": loss, "accuracy": accuracy}, batch_stats)

    return loss_of


def _trained(params: Tree, frozen_encoder: bool) -> Tree:
    return {name: part for name, part in params.items() if not (frozen_encoder and name == "encoder")}


def make_apply(config: Config) -> Callable[..., tuple[Array, Array, list[Array]]]:
    """Returns `(state, images uint8) -> representations [batch, dim], logits [batch, classes], probes`.

    The networks are in evaluation mode. Where the state has no linear head the logits have no class. For the probes,
    each `[batch, channels]`, see `models.WideResNet`.
    """

    def apply(state: TrainState, images: UInt8[Array, "batch h w c"]) -> tuple[Array, Array, list[Array]]:
        head = state.params.get("head")
        num_classes = head["Dense_0"]["bias"].size if head else 0
        networks = make_networks(config.model, num_classes, config.compute_dtype, config.population.convolution)
        inputs = normalise(jnp.asarray(images, jnp.float32) / 255, config.data)
        variables = {"params": state.params["encoder"], "batch_stats": state.batch_stats}
        representations, probes = networks["encoder"].apply(variables, inputs)
        logits = networks["head"].apply({"params": head}, representations) if head else jnp.zeros((len(images), 0))
        return representations, logits, probes

    return apply
