"""A stage's settings -> learning rate and optax transformation."""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Float

from prunejax.config import LearningRate, Optim, Stage
from prunejax.types import Array, Scalar


def make_learning_rate(config: LearningRate, epochs: int, steps_per_epoch: int) -> Callable[[Scalar], Float[Array, ""]]:
    """Returns `step -> learning rate`, constant within an epoch as in the authors' code."""

    def learning_rate(step: Scalar) -> Float[Array, ""]:
        epoch = jnp.asarray(step) // steps_per_epoch
        rate = config.initial
        if config.final is not None:
            cosine = (1 + jnp.cos(jnp.pi * epoch / epochs)) / 2
            rate = config.final + (config.initial - config.final) * cosine
        passed = jnp.sum(epoch >= jnp.array(config.milestone_epochs, int))
        return jnp.asarray(rate * config.factor**passed)

    return learning_rate


def make_optimizer(stage: Stage, optim: Optim) -> optax.GradientTransformation:
    """SGD as in PyTorch, weight decay inside the momentum, up to the factor `-learning_rate`.

    The factor depends on the step, which the whole population shares and which therefore no optimizer state holds.
    """
    return optax.chain(
        optax.add_decayed_weights(stage.weight_decay), optax.trace(optim.momentum, nesterov=stage.nesterov)
    )
