"""What does pruning destroy in a network trained one way, compared with another, and when?

Populations of networks (seeds x sparsities) are trained, pruned, measured and compared in JAX. It
began as a reimplementation of Corti et al., "Studying the impact of magnitude pruning on
contrastive learning methods". `ROOMS` is the house: imports run only down this list, and so does
the data. The names of `PUBLIC` modules are short ways to what users call.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunejax.runs import load_population, run

ROOMS = (
    "types",
    "config",
    "registry",
    "data",
    "nn",
    "methods",
    "pruning",
    "training",
    "runs",
    "measures",
    "report",
)
PUBLIC = ("losses", "prune", "metrics", "neighbors", "models")
"""Modules that only re-export functions of several rooms."""
__all__ = ["PUBLIC", "ROOMS", "load_population", "run"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Imports on first use, so that `--help` need not wait for JAX."""
    if name in ("run", "load_population"):
        return getattr(importlib.import_module("prunejax.runs"), name)
    if name in (*ROOMS, *PUBLIC):
        return importlib.import_module(f"prunejax.{name}")
    raise AttributeError(f"module 'prunejax' has no attribute {name!r}")
