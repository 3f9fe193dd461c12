"""What does pruning destroy in a network trained one way, compared with another, and when?

Populations of networks (seeds x sparsities) are trained, pruned, measured and compared in JAX. It
began as a reimplementation of Corti et al., "Studying the impact of magnitude pruning on
contrastive learning methods". Imports run only down the list `PACKAGES`, and so does the data.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunejax.runs import load_population, run

PACKAGES = (
    "types",
    "config",
    "registry",
    "cache",
    "memory",
    "data",
    "nn",
    "methods",
    "pruning",
    "training",
    "runs",
    "measures",
    "report",
)
__all__ = ["PACKAGES", "load_population", "run"]
__version__ = "0.3.0.dev0"


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Imports on first use, so that `--help` need not wait for JAX."""
    if name in ("run", "load_population"):
        return getattr(importlib.import_module("prunejax.runs"), name)
    if name in PACKAGES:
        return importlib.import_module(f"prunejax.{name}")
    raise AttributeError(f"module 'prunejax' has no attribute {name!r}")
