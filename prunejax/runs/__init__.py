"""Room `runs`: a run and its directory: trained, saved, resumed, restored.

`loop.run` is a whole run; `directory`, `provenance`, `log` and `checkpoint` write and read its
parts, `trial` shows that this works in a place, `damage` what is no longer as it was written, and
`forked` what a pruned run takes from its dense one;
`load_population` restores its models on any machine.
"""

from prunejax.runs.checkpoint import load_population
from prunejax.runs.forked import fork_steps
from prunejax.runs.log import load_curves
from prunejax.runs.loop import Outcome, Start, begin, run, train
from prunejax.runs.provenance import load_provenance
from prunejax.runs.restored import RestoredPopulation

__all__ = [
    "Outcome",
    "RestoredPopulation",
    "Start",
    "begin",
    "fork_steps",
    "load_curves",
    "load_population",
    "load_provenance",
    "run",
    "train",
]
