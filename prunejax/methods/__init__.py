"""Package `methods`: how models are trained.

Losses, augmentation, and the plug-in it is open to: a training `Method` (label, colour, stages,
views, loss), one file each: `sup`, `scl`, `simclr`.
"""

from prunejax.methods.entry import METHODS, Loss, Method, Objective
from prunejax.methods.losses import collapsed_supcon, cross_entropy, supcon
from prunejax.methods.stages import is_gradual, is_one_shot, objective_of, stage_settings, stages_of

__all__ = [
    "METHODS",
    "Loss",
    "Method",
    "Objective",
    "collapsed_supcon",
    "cross_entropy",
    "is_gradual",
    "is_one_shot",
    "objective_of",
    "stage_settings",
    "stages_of",
    "supcon",
]
