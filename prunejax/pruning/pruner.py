"""The pruner of one stage: which leaves, by which score, and how many."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from prunejax.config import Config, Schedule, UserError
from prunejax.methods import is_one_shot, objective_of, stages_of
from prunejax.pruning.entry import ALLOCATIONS, SCORES, Allocation, Prunable, Score
from prunejax.pruning.masks import (
    apply_masks,
    convolution_and_head_kernels,
    convolution_kernels,
    head_kernel,
    name_of,
    without,
)
from prunejax.pruning.schedules import NEVER, ScheduleSteps, Updates, gradual_updates, last_update
from prunejax.types import Array, Key, Scalar, Tree


class Pruner(NamedTuple):
    """How masks are updated in a stage."""

    score: Score
    allocation: Allocation
    prunable: Prunable
    power: int
    at_multiples: bool
    count_from: int = 0

    def updates(self, steps: ScheduleSteps, final_sparsity: Scalar) -> Updates:
        """When, and to what sparsity."""
        return gradual_updates(
            steps, final_sparsity, self.power, self.at_multiples, self.count_from
        )

    def update(
        self,
        params: Tree,
        masks: Tree,
        sparsity: Scalar,
        key: Key,
        gradients: Tree | None = None,
    ) -> tuple[Tree, Tree]:
        """Prunes to `sparsity`; returns the pruned params and their masks.

        Args:
            params: of one model.
            masks: what was kept so far.
            sparsity: fraction of the prunable weights; may be traced.
            key: for scores that are drawn.
            gradients: of the parts of `params` that are trained, if the score needs them.

        Raises:
            UserError: if a prunable leaf has no gradient where the score needs them, or the score
                or the allocation returns something of another structure than the params.
        """
        if self.score.needs_gradients:
            gradients = self._complete(gradients or {}, params)
        scores = self.score.function(params, gradients, key)
        _require_like(params, scores, f"score {self.score.name!r}")
        masks = self.allocation.function(scores, masks, sparsity, self.prunable)
        _require_like(params, masks, f"allocation {self.allocation.name!r}", bool)
        return apply_masks(params, masks), masks

    def _complete(self, gradients: Tree, params: Tree) -> Tree:
        """The gradients, with zeros for parts that are not trained, if none of these is pruned."""
        known = dict(_named_leaves(gradients))

        def gradient(path: tuple, leaf: Array) -> Array:
            name = name_of(path)
            if name in known:
                return known[name]
            if self.prunable(path, leaf):
                raise UserError(
                    f"score {self.score.name!r} needs gradients, and {name} has none in this "
                    "stage; choose a score without, or a stage that trains it"
                )
            return jnp.zeros_like(leaf)

        return jax.tree_util.tree_map_with_path(gradient, params)


def make_pruner(config: Config, stage: str) -> Pruner:
    """The pruner of a stage.

    A head stage prunes, by `prune.head`, only the head and not the frozen encoder. A stage that
    prunes nothing has the paper's pruner, which is never due: so a score for which this stage has
    no gradients is not computed.

    Raises:
        UserError: if the experiment names an unknown score, allocation or schedule.
    """
    pruning = config.experiment.pruning
    prunes_here = is_one_shot(config.experiment) or configured_schedule(config, stage) is not None
    score, allocation = "magnitude", "layerwise"
    if pruning is not None and prunes_here:
        score, allocation = pruning.score, pruning.allocation
    prunable = convolution_kernels
    # A head that comes after the pruned stage is not pruned by its schedule.
    trains_head = objective_of(config, stages_of(config)[0]).network == "head"
    if config.experiment.prune_head and trains_head:
        prunable = convolution_and_head_kernels
    if stage == "head" and config.prune.head is not None:
        prunable = head_kernel
    if pruning is not None and pruning.exclude:
        prunable = without(prunable, pruning.exclude)
    return Pruner(
        score=SCORES[score],
        allocation=ALLOCATIONS[allocation],
        prunable=prunable,
        power=config.prune.power,
        at_multiples=config.prune.at_multiples,
        count_from=config.prune.count_from,
    )


def configured_schedule(config: Config, stage: str) -> ScheduleSteps | None:
    """Returns the schedule that the settings name for a stage, or None for none.

    The experiment's own is for its first stage; `prune.head` is for a later head stage.

    Raises:
        UserError: if the experiment names a schedule that does not exist.
    """
    pruning = config.experiment.pruning
    if pruning is None or pruning.schedule is None:
        return None
    schedules = {}
    for name, value in vars(config.prune).items():
        if isinstance(value, Schedule):
            schedules[name] = value
    if pruning.schedule not in schedules:
        raise UserError(
            f"experiment {config.experiment.name!r} prunes by the schedule {pruning.schedule!r}; "
            f"there are: {', '.join(schedules)}"
        )
    schedule = None
    if stage == stages_of(config)[0]:
        schedule = schedules[pruning.schedule]
    elif stage == "head":
        schedule = config.prune.head
    if schedule is None:
        return None
    return ScheduleSteps(schedule.begin_step, schedule.end_step, schedule.every_steps)


def schedule_steps(config: Config, stage: str, steps: int) -> ScheduleSteps:
    """Returns the pruning schedule of a stage, or `NEVER` for a stage that prunes nothing.

    The experiment's `pruning.start` moves the schedule of the first stage: its span and interval
    stay.

    Args:
        config: of the run.
        stage: one of its stages.
        steps: that the stage has.

    Raises:
        UserError: if the experiment names a schedule that does not exist.
    """
    schedule = configured_schedule(config, stage)
    pruning = config.experiment.pruning
    if schedule is None or pruning is None:
        return NEVER
    if pruning.start is None or stage != stages_of(config)[0]:
        return schedule
    count_from = config.prune.count_from
    begin = pruning.start
    if not isinstance(begin, int):
        begin = count_from + round(begin * steps)
    end = begin + int(schedule.end) - int(schedule.begin)
    if pruning.shorten:
        end = min(end, count_from + steps - 1)
    return ScheduleSteps(begin, end, schedule.every)


def expected_sparsity(
    config: Config, stage: str, stage_steps: int, taken: int, final_sparsity: float
) -> float:
    """Returns the sparsity that masks have after `taken` steps of the first stage.

    Args:
        config: of the run.
        stage: its first.
        stage_steps: that the stage has.
        taken: steps of the stage, at most `stage_steps`.
        final_sparsity: the member's.
    """
    if config.experiment.pruning is None:
        return 0.0
    pruner = make_pruner(config, stage)
    if is_one_shot(config.experiment):
        return pruner.allocation.achievable(final_sparsity)
    updates = pruner.updates(schedule_steps(config, stage, stage_steps), final_sparsity)
    newest = last_update(updates, taken - 1)
    if newest is None:
        return 0.0
    return pruner.allocation.achievable(float(updates.target(newest)))


def _named_leaves(tree: Tree) -> list[tuple[str, Array]]:
    return [(name_of(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _require_like(params: Tree, tree: Tree, what: str, dtype: type | None = None) -> None:
    """Refuses a tree that is not one array of the right shape for each of the params."""
    expected, found = dict(_named_leaves(params)), dict(_named_leaves(tree))
    odd = sorted(expected.keys() ^ found.keys())
    if odd:
        state = "lacks" if odd[0] in expected else "has"
        raise UserError(
            f"{what} {state} the leaf {odd[0]!r}; it must return a tree with the structure of "
            "the params"
        )
    for name, leaf in found.items():
        if jnp.shape(leaf) != expected[name].shape:
            raise UserError(
                f"{what} returns {name} of shape {jnp.shape(leaf)}, where the params have "
                f"{expected[name].shape}"
            )
        if dtype is not None and leaf.dtype != dtype:
            raise UserError(f"{what} returns {name} as {leaf.dtype}, not {dtype.__name__}")
