"""Package `pruning`: which weights are pruned, and when.

Open to two plug-ins, one file each: a `Score` (`magnitude`, `random_score`, `saliency`), what a
weight is worth, and an `Allocation` (`layerwise`, `global_ranking`, `erk`, `n_of_m`), how many
weights are pruned in each layer. With a schedule they make a `Pruner`.
"""

from prunejax.pruning.entry import ALLOCATIONS, SCORES, Allocation, Prunable, Score
from prunejax.pruning.magnitude import global_masks, layerwise_masks
from prunejax.pruning.masks import (
    apply_masks,
    convolution_and_head_kernels,
    convolution_kernels,
    head_kernel,
    init_masks,
    sparsity,
)
from prunejax.pruning.pruner import (
    Pruner,
    configured_schedule,
    expected_sparsity,
    make_pruner,
    schedule_steps,
)
from prunejax.pruning.schedules import ScheduleSteps, is_prune_step, polynomial_schedule

__all__ = [
    "ALLOCATIONS",
    "SCORES",
    "Allocation",
    "Prunable",
    "Pruner",
    "ScheduleSteps",
    "Score",
    "apply_masks",
    "configured_schedule",
    "convolution_and_head_kernels",
    "convolution_kernels",
    "expected_sparsity",
    "global_masks",
    "head_kernel",
    "init_masks",
    "is_prune_step",
    "layerwise_masks",
    "make_pruner",
    "polynomial_schedule",
    "schedule_steps",
    "sparsity",
]
