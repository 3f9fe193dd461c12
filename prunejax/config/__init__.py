"""Room `config`: the settings of a run, what refuses them, how they are written, read and changed.

`settings` holds them in two parts: those that decide a result (`Identity`) and those that only say
how it is computed, saved, measured and shown (`Operation`). Nothing here imports JAX.
"""

from prunejax.config.checks import validate
from prunejax.config.errors import UserError
from prunejax.config.files import differences, from_json, load_config, to_json
from prunejax.config.overrides import override
from prunejax.config.settings import (
    Appearance,
    Augment,
    Checkpoint,
    Config,
    Data,
    Execution,
    Experiment,
    LearningRate,
    MeasureSettings,
    Model,
    Optim,
    Prune,
    Pruning,
    Schedule,
    Stage,
    SupCon,
)

__all__ = [
    "Appearance",
    "Augment",
    "Checkpoint",
    "Config",
    "Data",
    "Execution",
    "Experiment",
    "LearningRate",
    "MeasureSettings",
    "Model",
    "Optim",
    "Prune",
    "Pruning",
    "Schedule",
    "Stage",
    "SupCon",
    "UserError",
    "differences",
    "from_json",
    "load_config",
    "override",
    "to_json",
    "validate",
]
