"""Public names of room `measures`: pure functions on predictions and representations."""

from prunejax.measures.metrics import (
    accuracy,
    modal_class,
    pruning_identified_exemplars,
    q_score,
    recall,
)

__all__ = ["accuracy", "modal_class", "pruning_identified_exemplars", "q_score", "recall"]
