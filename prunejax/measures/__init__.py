"""Package `measures`: what trained models do with the test images.

It is open to *measures* (`Measure` in `entry`): a function of one model's outputs, in a file of its
own that adds it to `MEASURES`. `evaluate` computes what is missing or outdated in a run's
directory, one file a measure; `load_measures` reads them for a report.
"""

import importlib
from typing import TYPE_CHECKING, Any

from prunejax.measures.entry import (
    MEASURES,
    ArraySpec,
    Column,
    Context,
    Measure,
    ModelOutputs,
    decisive_settings,
)
from prunejax.measures.metrics import (
    accuracy,
    modal_class,
    pruning_identified_exemplars,
    q_score,
    recall,
)
from prunejax.measures.neighbors import knn_predict, knn_purity, prediction_depth
from prunejax.measures.results import RunMeasures
from prunejax.measures.store import load_measures

if TYPE_CHECKING:
    from prunejax.measures.evaluation import evaluate, outdated

__all__ = [
    "MEASURES",
    "ArraySpec",
    "Column",
    "Context",
    "Measure",
    "ModelOutputs",
    "RunMeasures",
    "accuracy",
    "decisive_settings",
    "evaluate",
    "knn_predict",
    "knn_purity",
    "load_measures",
    "modal_class",
    "outdated",
    "prediction_depth",
    "pruning_identified_exemplars",
    "q_score",
    "recall",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Imports what trains and restores on first use: a report needs none of it."""
    if name in ("evaluate", "outdated"):
        return getattr(importlib.import_module("prunejax.measures.evaluation"), name)
    raise AttributeError(f"module 'prunejax.measures' has no attribute {name!r}")
