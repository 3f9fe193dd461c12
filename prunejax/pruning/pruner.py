"""The pruner of one stage: which leaves, by which score, and how many."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from prunejax.config import Config, Schedule, UserError
from prunejax.methods import is_one_shot, objective_of, stages_of
from prunejax.pruning.entry import SCORES, SELECTIONS, Prunable, Score, Selection
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
    select: Selection
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

        Raises:
            UserError: if a prunable leaf has no gradient where the score needs them, or the score
                or the selection returns something of another structure than the params.
        """
        if self.score.needs_gradients:
            gradients = self._complete(gradients or {}, params)
        scores = self.score.function(params, gradients, key)
        _require_like(params, scores, f"score {self.score.name!r}")
        masks = self.select.function(scores, masks, sparsity, self.prunable)
        _require_like(params, masks, f"selection {self.select.name!r}", bool)
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
    prunes nothing has the paper's pruner, whose updates never come: so dense and pruned runs share
    their programs, and a score that this stage has no gradients for is not asked.

    Raises:
        UserError: if the experiment names a score, a selection or a schedule that there is not.
    """
    pruning = config.experiment.pruning
    prunes_here = is_one_shot(config.experiment) or schedule_steps(config, stage) != NEVER
    score, select = "magnitude", "layerwise"
    if pruning is not None and prunes_here:
        score, select = pruning.score, pruning.select
    prunable = convolution_kernels
    # A head that comes after the pruned stage is not pruned by its schedule.
    trains_head = objective_of(config, stages_of(config)[0]).network == "head"
    if config.experiment.prune_head and trains_head:
        prunable = convolution_and_head_kernels
    if stage == "head" and config.prune.head is not None:
        prunable = head_kernel
    if pruning is not None and pruning.spare:
        prunable = without(prunable, pruning.spare)
    return Pruner(
        score=SCORES[score],
        select=SELECTIONS[select],
        prunable=prunable,
        power=config.prune.power,
        at_multiples=config.prune.at_multiples,
        count_from=config.prune.count_from,
    )


def schedule_steps(config: Config, stage: str) -> ScheduleSteps:
    """The pruning schedule of a stage; where there is none, one that never comes.

    The experiment's own is of its first stage; `prune.head` is of a later head stage.

    Raises:
        UserError: if the experiment names a schedule that there is not.
    """
    pruning = config.experiment.pruning
    if pruning is None or pruning.schedule is None:
        return NEVER
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
        return NEVER
    return ScheduleSteps(schedule.begin_step, schedule.end_step, schedule.every_steps)


def begin_schedules(config: Config, stage: str, steps: int) -> tuple[ScheduleSteps, ...]:
    """The schedule of a stage for each begin of the experiment, or the one if it names none.

    A begin moves the schedule: its span and interval stay. In later stages all are alike.

    Args:
        config: of the run.
        stage: one of its stages.
        steps: that the stage has.

    Raises:
        UserError: as `schedule_steps`.
    """
    schedule = schedule_steps(config, stage)
    pruning = config.experiment.pruning
    if pruning is None or not pruning.begins:
        return (schedule,)
    if stage != stages_of(config)[0]:
        return (schedule,) * len(pruning.begins)
    span = int(schedule.end) - int(schedule.begin)
    count_from = config.prune.count_from
    schedules = []
    for begin in pruning.begins:
        first = begin if isinstance(begin, int) else count_from + round(begin * steps)
        end = first + span
        if pruning.shorten:
            end = min(end, count_from + steps - 1)
        schedules.append(ScheduleSteps(first, end, schedule.every))
    return tuple(schedules)


def expected_sparsity(
    config: Config,
    stage: str,
    steps: int,
    final_sparsity: float,
    schedule: ScheduleSteps | None = None,
) -> float:
    """What the masks should have come to after `steps` steps of the first stage, `stage`.

    Args:
        config: of the run.
        stage: its first.
        steps: taken.
        final_sparsity: of the member.
        schedule: the member's, one of `begin_schedules`. None: the experiment's only one.
    """
    if config.experiment.pruning is None:
        return 0.0
    pruner = make_pruner(config, stage)
    if is_one_shot(config.experiment):
        return pruner.select.attained(final_sparsity)
    updates = pruner.updates(schedule or schedule_steps(config, stage), final_sparsity)
    newest = last_update(updates, steps - 1)
    if newest is None:
        return 0.0
    return pruner.select.attained(float(updates.target(newest)))


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
