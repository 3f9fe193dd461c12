"""Package `runs`: a run and its directory: trained, saved, resumed, restored.

`loop.run` is a whole run; `directory`, `provenance`, `log` and `checkpoint` write and read its
parts; `warm_start` is what a pruned run takes from its dense one; `load_population` restores its
models on any machine.
"""

from prunejax.runs.checkpoint import load_population
from prunejax.runs.log import load_curves
from prunejax.runs.loop import Outcome, Start, begin, run, train
from prunejax.runs.provenance import load_provenance
from prunejax.runs.restored import RestoredPopulation
from prunejax.runs.warm_start import start_step

__all__ = [
    "Outcome",
    "RestoredPopulation",
    "Start",
    "begin",
    "load_curves",
    "load_population",
    "load_provenance",
    "run",
    "start_step",
    "train",
]
