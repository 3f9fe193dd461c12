"""Room `methods`: how models are trained.

Losses, augmentation, and the entry it is open to: a training `Method` (label, colour, stages,
views, loss), one file each: `cross_entropy`, `supcon`, `simclr`.
"""

from prunejax.methods.entry import METHODS, Loss, Method, Objective
from prunejax.methods.stages import is_gradual, is_one_shot, objective_of, stage_settings, stages_of

__all__ = [
    "METHODS",
    "Loss",
    "Method",
    "Objective",
    "is_gradual",
    "is_one_shot",
    "objective_of",
    "stage_settings",
    "stages_of",
]
