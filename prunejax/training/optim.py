"""The learning rate and the optimizer of a stage, as PyTorch's SGD has them."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from prunejax.config import LearningRate, Optim, Stage
from prunejax.types import Array, Scalar


def make_learning_rate(
    config: LearningRate, epochs: int, steps_per_epoch: int
) -> Callable[[Scalar], Float[Array, ""]]:
    """Returns `step -> learning rate`, constant within an epoch as in the authors' code.

    In epoch e of E, counted from 0, with m of the milestones in {0, ..., e}, it is

        (final + (initial - final) * (1 + cos(pi * e / E)) / 2) * factor**m

    or, where `final` is None, `initial * factor**m`. The cosine would reach `final` in epoch E,
    which there is not. Source: Loshchilov & Hutter 2017, eq. 5, without restarts.

    Where it is `chained` to a cosine, it is that of `chained_rates`.

    Args:
        config: what the formula names.
        epochs: of the stage.
        steps_per_epoch: optimizer steps in each of them; step 0 is the stage's first.
    """
    rates = None
    if config.chained and config.final is not None:
        rates = chained_rates(config, config.final, epochs)

    def learning_rate(step: Scalar) -> Float[Array, ""]:
        epoch = jnp.asarray(step) // steps_per_epoch
        if rates is not None:
            return jnp.asarray(rates)[epoch]
        rate = config.initial
        if config.final is not None:
            cosine = (1 + jnp.cos(jnp.pi * epoch / epochs)) / 2
            rate = config.final + (config.initial - config.final) * cosine
        passed = jnp.sum(epoch >= jnp.array(config.milestone_epochs, int))
        return jnp.asarray(rate * config.factor**passed)

    return learning_rate


def chained_rates(config: LearningRate, final: float, epochs: int) -> Float[np.ndarray, " epochs"]:
    """The rate of every epoch where milestones and cosine change it in turn.

    With n[e] milestones at epoch e and c[e] = (1 + cos(pi * e / E)) / 2 it is

        r[0] = initial * factor**n[0]
        r[e] = final + (r[e - 1] * factor**n[e] - final) * c[e] / c[e - 1]

    So a milestone changes where the cosine comes from, and not where it leads: to `final`, in epoch
    E, which there is not. After a milestone that puts it below `final` the rate rises.

    Source: PyTorch's `MultiStepLR` and `CosineAnnealingLR`, in this order after every epoch.

    Args:
        config: the initial rate, the milestones and their factor.
        final: what the cosine leads to.
        epochs: of the stage.
    """
    cosine = (1 + np.cos(np.pi * np.arange(epochs) / epochs)) / 2
    rates = []
    rate = config.initial
    for epoch in range(epochs):
        rate *= config.factor ** config.milestone_epochs.count(epoch)
        if epoch:
            rate = final + (rate - final) * cosine[epoch] / cosine[epoch - 1]
        rates.append(rate)
    return np.array(rates, np.float32)


def make_optimizer(stage: Stage, optim: Optim) -> optax.GradientTransformation:
    """Returns SGD as in PyTorch, up to the factor `-learning_rate`.

    With the gradient g of the weights w, its update is u:

        d = g + weight_decay * w
        v = momentum * v + d
        u = d + momentum * v if nesterov else v

    The factor depends on the step, which the whole population shares and which therefore no
    optimizer state holds: the caller applies w = w - learning_rate * u.
    """
    decay = optax.add_decayed_weights(stage.weight_decay)
    momentum = optax.trace(optim.momentum, nesterov=stage.nesterov)
    return optax.chain(decay, momentum)
