"""What does magnitude pruning destroy in a network trained with a supervised contrastive loss?

A purely functional JAX/Flax reimplementation of Corti et al., "Studying the impact of magnitude pruning on
contrastive learning methods". The modules are rooms in one line: data flows, and imports run, only down this list.
"""

import importlib
from typing import Any

ROOMS = (
    *("types", "config", "data", "augment", "conv", "norm", "models", "losses", "prune", "optim", "train"),
    *("hosts", "devices", "programs", "population", "rundir", "checkpoint", "metrics", "neighbors", "evaluate"),
    *("tables", "uncertainty", "figures", "report"),
)
__all__ = [*ROOMS, "load_population"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Imports a room on first use, so that `--help` need not wait for JAX."""
    if name == "load_population":
        return importlib.import_module("prunejax.checkpoint").load_population
    if name in ROOMS:
        return importlib.import_module(f"prunejax.{name}")
    raise AttributeError(f"module 'prunejax' has no attribute {name!r}")
