"""Package `config`: the settings of a run, their checks, how they are written, read and changed.

`settings` has them in two parts: the result-defining ones (`ResultSettings`), and those that only
say how a run is computed, saved, measured and shown (`RuntimeSettings`). Nothing here imports JAX.
"""

from prunejax.config.checks import validate
from prunejax.config.errors import UserError
from prunejax.config.files import differences, from_json, load_config, to_json
from prunejax.config.overrides import override
from prunejax.config.settings import (
    Augment,
    Checkpoint,
    Config,
    Data,
    Display,
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
from prunejax.config.sweep import Sweep, expand

__all__ = [
    "Augment",
    "Checkpoint",
    "Config",
    "Data",
    "Display",
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
    "Sweep",
    "UserError",
    "differences",
    "expand",
    "from_json",
    "load_config",
    "override",
    "to_json",
    "validate",
]
