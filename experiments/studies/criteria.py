"""Does it matter by which criterion weights are pruned, for Sup as for SCL?

Magnitude, first-order saliency and chance, at the paper's schedules and sparsities. The dense runs
and those by magnitude are the paper's: in one work directory they are trained once.
"""

from dataclasses import replace

from experiments.studies.paper import SCL_DENSE, SCL_GMP, SUP_DENSE, SUP_GMP
from prunejax.config import Experiment, Pruning


def criteria() -> list[Experiment]:
    """Each criterion is compared with magnitude, and magnitude between Sup and SCL."""
    return [
        SUP_DENSE,
        SUP_GMP,
        _by(SUP_GMP, "saliency", "sup_saliency"),
        _by(SUP_GMP, "random", "sup_random"),
        SCL_DENSE,
        SCL_GMP,
        _by(SCL_GMP, "saliency", "scl_saliency"),
        _by(SCL_GMP, "random", "scl_random"),
    ]


def _by(magnitude: Experiment, score: str, name: str) -> Experiment:
    """An experiment that differs from one by magnitude in its score."""
    schedule = magnitude.pruning.schedule if magnitude.pruning else None
    pruning = Pruning(schedule=schedule, score=score)
    return replace(magnitude, name=name, pruning=pruning, label=score, baseline=magnitude.name)
