"""The numbers that a paper published, and which experiments of a study they are of."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from prunejax.config import Pruning
from prunejax.report.study import Study, experiment, title

Published = Mapping[str, Mapping[str, Mapping[Any, str]]]
"""Numbers as the paper writes them: by column, experiment and sparsity.

`hyperparameters` are by name and `Sup` or `SCL`; `PIE` also has those of `hooker`.
"""


class PaperExperiment(NamedTuple):
    """What an experiment of the paper is, and how the paper calls it."""

    method: str
    pruning: Pruning
    title: str


AT_ONCE = Pruning(None, select="global")
PAPER = {
    "sup_gmp": PaperExperiment("cross_entropy", Pruning("sup"), "Sup / GMP"),
    "sup_one_shot": PaperExperiment("cross_entropy", AT_ONCE, "Sup / One-Shot"),
    "scl_gmp": PaperExperiment("supcon", Pruning("scl"), "SCL / GMP"),
    "scl_delayed_gmp": PaperExperiment("supcon", Pruning("scl_delayed"), "SCL / Δ GMP"),
    "scl_one_shot": PaperExperiment("supcon", AT_ONCE, "SCL / One-Shot"),
}
"""The paper's pruned experiments (Corti et al.), by name."""


def is_papers(study: Study, name: str) -> bool:
    """Whether the study has this experiment of the paper; one of the same name is not enough."""
    if name not in study or name not in PAPER:
        return False
    # Someone's own study may call anything `sup_gmp`.
    ours = experiment(study, name)
    return (ours.method, ours.pruning) == (PAPER[name].method, PAPER[name].pruning)


def number(
    published: Published | None, study: Study, column: str, name: str, sparsity: float
) -> str | None:
    """What the paper has for a cell, or None."""
    if published is None or not is_papers(study, name):
        return None
    found = published.get(column, {}).get(name, {}).get(sparsity, "-")
    return None if found == "-" else found


def paper_title(study: Study, name: str) -> str:
    """How an experiment of the paper is called, whether the study has it or not."""
    return title(study, name) if is_papers(study, name) else PAPER[name].title
