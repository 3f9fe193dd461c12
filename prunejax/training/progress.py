"""A population on its way: its members on the devices, and what is told of them."""

import dataclasses
from functools import cached_property
from typing import Any

import jax
import numpy as np

from prunejax.training import hosts
from prunejax.training.devices import join
from prunejax.training.forks import Branch
from prunejax.training.plan import Plan
from prunejax.training.state import TrainState
from prunejax.training.step import PerModel, Shared


@dataclasses.dataclass
class Group:
    """A branch of the population on the devices."""

    branch: Branch
    plan: Plan
    """Its chunks are of places in `branch.trained`."""
    parts: list[TrainState]
    """Program by program; the next step overwrites them."""
    shared: Shared
    fixed: list[PerModel]
    """What the members of each program bring to the steps of an epoch."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """A population on its way, after `step` steps through all stages."""

    stage: str
    step: int
    groups: list[Group]
    """All members but those that wait."""
    resting: TrainState
    """NumPy `[models, ...]`, in which the members that wait stand."""
    stands_at: np.ndarray
    """The step that each member has come to, int `[models]`: later than `step` for those that
    wait; see `forks`."""
    metrics: dict[str, np.ndarray]
    """Each `[models]`, averaged since the last report; NaN for members that were frozen in it or
    before, and for those that wait."""
    ends_stage: bool = False

    @property
    def frozen(self) -> np.ndarray:
        """Which members have diverged or collapsed, bool `[models]`."""
        frozen = np.asarray(self.resting.frozen_at) >= 0
        for group in self.groups:
            rows = group.branch.rows
            frozen[rows] = np.isnan(self.metrics["loss"][rows])
        return frozen

    @cached_property
    def arrays(self) -> TrainState:
        """A copy of every member's state, in order.

        One process has it in NumPy, taken chunk by chunk, so that no device ever holds two of the
        population. Of several each has what its devices have, and the padding comes last; but where
        members are forked it is NumPy too, whole in every process. To be taken before training goes
        on, as `state`.

        Raises:
            RuntimeError: if it has gone on.
        """
        # Where JAX 0.10 would crash.
        parts = [group.parts for group in self.groups]
        if any(leaf.is_deleted() for leaf in jax.tree.leaves(parts)):
            raise RuntimeError(
                f"training has gone on from step {self.step}: "
                "take its state before the next is asked for"
            )
        if not hosts.alone() and _is_whole(self.groups, len(self.stands_at)):
            return join(self.groups[0].parts, self.groups[0].plan.mesh)
        return state_of(self.groups, self.resting)

    @cached_property
    def state(self) -> TrainState:
        """The same in NumPy, `[models, ...]`, whole in every process."""
        return whole(self.arrays, len(self.stands_at))


def _is_whole(groups: list[Group], count: int) -> bool:
    """Whether a single group trains all members, each for itself."""
    return len(groups) == 1 and np.array_equal(groups[0].branch.trained, np.arange(count))


def state_of(groups: list[Group], resting: TrainState) -> TrainState:
    """Every member's state: its own, or of the one that is trained for it."""
    state = jax.tree.map(np.copy, resting)
    for group in groups:
        branch = group.branch
        for part, chunk in zip(group.parts, group.plan.chunks, strict=True):
            found = jax.tree.map(hosts.gather, part)
            # Where each of the rows that are trained in this chunk stands in it; padding repeats
            # the last, and is the same.
            rows = np.flatnonzero(np.isin(branch.places, chunk))
            order = np.argsort(chunk, kind="stable")
            places = order[np.searchsorted(chunk, branch.places[rows], sorter=order)]

            def put(
                leaf: np.ndarray,
                new: np.ndarray,
                rows: np.ndarray = branch.rows[rows],
                places: np.ndarray = places,
            ) -> None:
                leaf[rows] = new[places]

            jax.tree.map(put, state, found)
    return state


def whole(arrays: Any, count: int) -> Any:  # noqa: ANN401
    """The first rows of arrays in NumPy, in every process."""
    if isinstance(jax.tree.leaves(arrays)[0], np.ndarray):
        return arrays
    return jax.tree.map(lambda leaf: hosts.gather(leaf)[:count], arrays)


class Sums:
    """The metrics of each member since the last report."""

    def __init__(self, models: int) -> None:
        self.totals: dict[str, np.ndarray] = {}
        self.steps = np.zeros(models, np.float32)

    def add(self, groups: list[Group], totals: list[list[dict[str, Any]]], taken: int) -> None:
        """Adds the sums over `taken` steps, of a member its own or of the one trained for it."""
        for group, chunks in zip(groups, totals, strict=True):
            branch = group.branch
            self.steps[branch.rows] += taken
            found = whole(join(chunks, group.plan.mesh), len(branch.trained))
            for name, values in found.items():
                total = self.totals.setdefault(name, np.zeros_like(self.steps))
                total[branch.rows] += values[branch.places]

    def averages(self) -> dict[str, np.ndarray]:
        """Each metric, `[models]`; NaN of members that took no step."""
        steps = np.where(self.steps > 0, self.steps, np.nan)
        return {name: total / steps for name, total in self.totals.items()}
