"""What a training loop reports: the metrics, and the state of every member."""

import dataclasses
from functools import cached_property

import jax
import numpy as np

from prunejax.training import hosts
from prunejax.training.devices import join
from prunejax.training.plan import Plan
from prunejax.training.state import TrainState
from prunejax.types import Tree


@dataclasses.dataclass(frozen=True)
class Progress:
    """A population after `step` steps through all stages."""

    stage: str
    step: int
    plan: Plan
    parts: list[TrainState]
    """The states on the devices, one for each chunk of the plan; the next step overwrites them."""
    metrics: dict[str, np.ndarray]
    """Each `[models]`, averaged since the last report; NaN for members that have failed."""
    ends_stage: bool = False

    @property
    def failed(self) -> np.ndarray:
        """Which members have diverged or collapsed, bool `[models]`."""
        return np.isnan(self.metrics["loss"])

    @cached_property
    def arrays(self) -> TrainState:
        """A copy of every member's state, in order; take it before training goes on.

        With one process it is NumPy `[models, ...]`, copied chunk by chunk, so that no device ever
        holds the population twice. With several, each process has the rows of its own devices, and
        padding comes last.

        Raises:
            RuntimeError: if training has gone on.
        """
        # JAX 0.10 would crash on arrays that were donated.
        if any(leaf.is_deleted() for leaf in jax.tree.leaves(self.parts)):
            raise RuntimeError(
                f"training has gone on from step {self.step}: "
                "take its state before requesting the next report"
            )
        if not hosts.alone():
            return join(self.parts, self.plan.mesh)
        return _gather_chunks(self.parts, self.plan)

    @cached_property
    def state(self) -> TrainState:
        """The same state in NumPy, `[models, ...]`, complete in every process."""
        return first_rows(self.arrays, self.plan.models)


def _gather_chunks(parts: list[TrainState], plan: Plan) -> TrainState:
    def gather(*leaves: jax.Array) -> np.ndarray:
        first = leaves[0]
        gathered = np.empty((plan.models, *first.shape[1:]), first.dtype)
        for chunk, leaf in zip(plan.chunks, leaves, strict=True):
            # Padding repeats the last member, and is equal to it.
            gathered[chunk] = np.asarray(leaf)
        return gathered

    return jax.tree.map(gather, *parts)


def first_rows(arrays: Tree, count: int) -> Tree:
    """The first `count` rows of every leaf in NumPy, complete in every process."""
    if isinstance(jax.tree.leaves(arrays)[0], np.ndarray):
        return arrays
    return jax.tree.map(lambda leaf: hosts.gather(leaf)[:count], arrays)
