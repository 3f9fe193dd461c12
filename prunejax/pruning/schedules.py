"""When masks are updated, and to what sparsity."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from prunejax.types import Array, Scalar

StepNumber = int | np.integer | Array
"""A step of a stage, from 0; may be traced."""


class ScheduleSteps(NamedTuple):
    """A schedule as the compiled step gets it: traced, so that experiments share the program.

    Its steps are numbered as in the configuration, from `prune.count_from`.
    """

    begin: StepNumber
    end: StepNumber
    every: StepNumber


NEVER = ScheduleSteps(-2, -1, 1)
"""The schedule of a stage that is not pruned: its steps are never reached."""


class Updates(NamedTuple):
    """The mask updates of one member, by steps of the stage from 0."""

    first: StepNumber
    """The step before which masks are updated for the first time."""
    last: StepNumber
    every: StepNumber
    target: Callable[[Scalar], Float[Array, ""]]
    """`step -> sparsity`, for the steps at which masks are updated."""

    def due(self, step: Scalar) -> Bool[Array, ""]:
        """Whether masks are updated at this step."""
        return is_prune_step(step, self.first, self.last, self.every)


def polynomial_schedule(
    final_sparsity: Scalar, begin_step: Scalar, end_step: Scalar, power: Scalar = 3
) -> Callable[[Scalar], Float[Array, ""]]:
    """Returns `step -> sparsity`.

    It is s_f (1 - (1 - p)^power) with p = (step - begin) / (end - begin), clipped to [0, 1].

    Args:
        final_sparsity: s_f, reached at `end_step`.
        begin_step: before which it is 0.
        end_step: from which on it is s_f.
        power: of the polynomial.

    Source: Zhu & Gupta 2017, eq. 1, with initial sparsity 0.
    """

    def sparsity_at(step: Scalar) -> Float[Array, ""]:
        span = jnp.maximum(end_step - begin_step, 1)
        progress = jnp.clip((jnp.asarray(step) - begin_step) / span, 0, 1)
        progress = jnp.where(jnp.asarray(step) < end_step, progress, 1)
        return jnp.asarray(final_sparsity * (1 - (1 - progress) ** power))

    return sparsity_at


def is_prune_step(
    step: Scalar, begin_step: Scalar, end_step: Scalar, every_steps: Scalar
) -> Bool[Array, ""]:
    """Whether masks are updated before this step: at begin, begin + every, ..., always at end.

    Args:
        step: of the stage; may be traced.
        begin_step: of the first update.
        end_step: of the last one.
        every_steps: between two updates.
    """
    since = jnp.asarray(step) - begin_step
    due = (since % every_steps == 0) | (jnp.asarray(step) == end_step)
    return (since >= 0) & (jnp.asarray(step) <= end_step) & due


def gradual_updates(
    steps: ScheduleSteps,
    final_sparsity: Scalar,
    power: Scalar,
    at_multiples: bool,
    count_from: int = 0,
) -> Updates:
    """The updates that a schedule makes.

    Args:
        steps: the schedule.
        final_sparsity: the target of the update at `end`.
        power: of the polynomial.
        at_multiples: as the released code, update at the multiples of `every` between begin and
            end only: each target then comes up to a period late, and the last ones never.
        count_from: what the schedule calls the stage's first step. The steps of the updates are
            counted from 0 all the same.
    """
    begin, end, every = steps
    first, last = begin, end
    if at_multiples:
        first = (begin + every - 1) // every * every  # rounded up; the steps may be traced
        last = end // every * every
    first, last = first - count_from, last - count_from
    target = polynomial_schedule(final_sparsity, begin, end, power)
    # The first update has the target of `begin`.
    return Updates(first, last, every, lambda step: target(step - first + begin))


def last_update(updates: Updates, step: int) -> int | None:
    """The step of the newest update at or before `step`, or None if there was none yet."""
    if step < updates.first:
        return None
    if step >= updates.last:
        return int(updates.last)
    return int(step - (step - updates.first) % updates.every)
