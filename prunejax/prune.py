"""Public names of room `pruning`: schedules, masks and magnitude pruning."""

from prunejax.pruning.magnitude import global_masks, layerwise_masks
from prunejax.pruning.masks import (
    apply_masks,
    convolution_and_head_kernels,
    convolution_kernels,
    head_kernel,
    init_masks,
    sparsity,
)
from prunejax.pruning.schedules import is_prune_step, polynomial_schedule

__all__ = [
    "apply_masks",
    "convolution_and_head_kernels",
    "convolution_kernels",
    "global_masks",
    "head_kernel",
    "init_masks",
    "is_prune_step",
    "layerwise_masks",
    "polynomial_schedule",
    "sparsity",
]
