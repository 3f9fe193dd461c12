"""Room `pruning`: which weights go, and when.

Open to two entries, one file each: a `Score` (`magnitude`, `random_score`, `saliency`), what a
weight is worth, and a `Selection` (`layerwise`, `global_ranking`, `erk`, `n_of_m`), how the pruned
weights are divided among the leaves. With a schedule they make a `Pruner`.
"""

from prunejax.pruning.entry import SCORES, SELECTIONS, Prunable, Score, Selection
from prunejax.pruning.pruner import (
    Pruner,
    begin_schedules,
    expected_sparsity,
    make_pruner,
    schedule_steps,
)
from prunejax.pruning.schedules import ScheduleSteps

__all__ = [
    "SCORES",
    "SELECTIONS",
    "Prunable",
    "Pruner",
    "ScheduleSteps",
    "Score",
    "Selection",
    "begin_schedules",
    "expected_sparsity",
    "make_pruner",
    "schedule_steps",
]
