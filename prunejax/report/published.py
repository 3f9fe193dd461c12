"""The numbers that a paper published, and which experiments of a study they are of."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from prunejax.config import Pruning
from prunejax.report.study import Study, experiment, settings_of, title

Published = Mapping[str, Mapping[str, Mapping[Any, str]]]
"""Numbers as the paper writes them: by column, experiment and sparsity.

`hyperparameters` are by name and `Sup` or `SCL`; `PIE` also has those of `hooker`.
"""


class PaperExperiment(NamedTuple):
    """What an experiment of the paper is, and how the paper calls it."""

    method: str
    pruning: Pruning
    title: str


ARCHITECTURE = "WideResNet-16-2"
"""The paper's network, as `config.display.architecture` has it."""
AT_ONCE = Pruning(None, allocation="global")
PAPER = {
    "sup_gmp": PaperExperiment("cross_entropy", Pruning("sup"), "Sup / GMP"),
    "sup_one_shot": PaperExperiment("cross_entropy", AT_ONCE, "Sup / One-Shot"),
    "scl_gmp": PaperExperiment("supcon", Pruning("scl"), "SCL / GMP"),
    "scl_delayed_gmp": PaperExperiment("supcon", Pruning("scl_delayed"), "SCL / Δ GMP"),
    "scl_one_shot": PaperExperiment("supcon", AT_ONCE, "SCL / One-Shot"),
}
"""The paper's pruned experiments (Corti et al.), by what its numbers are kept under."""


def paper_key(study: Study, name: str) -> str | None:
    """Which of the paper's experiments this one of the study is, whatever its name; or None.

    It is trained and pruned as in the paper, and the study calls that way of pruning as the paper
    does.
    """
    ours = experiment(study, name)
    for key, theirs in PAPER.items():
        label = theirs.title.split(" / ")[1]
        if (ours.method, ours.pruning, ours.label) == (theirs.method, theirs.pruning, label):
            return key
    return None


def find_papers(study: Study, key: str) -> str | None:
    """The name that an experiment of the paper has in the study, or None if that lacks it."""
    return next((name for name in study if paper_key(study, name) == key), None)


def number(
    published: Published | None, study: Study, column: str, name: str, sparsity: float
) -> str | None:
    """What the paper has for a cell, or None."""
    key = paper_key(study, name)
    if published is None or key is None:
        return None
    found = published.get(column, {}).get(key, {}).get(sparsity, "-")
    return None if found == "-" else found


def other_depth(study: Study, published: Published | None) -> str:
    """Why the paper's depths are not those of our layers, as the end of a note; or nothing."""
    if published is None:
        return ""
    told = []
    if settings_of(study, "depth").depth_count != "last_wrong":
        told.append("counts the last wrong probe, usually one less than the first right one")
    if next(iter(study.values())).config.display.architecture != ARCHITECTURE:
        told.append(f"is of the layers of {ARCHITECTURE}")
    return f" The paper's depth {', and '.join(told)}." if told else ""


def paper_title(study: Study, key: str) -> str:
    """How an experiment of the paper is called, whether the study has it or not."""
    name = find_papers(study, key)
    return PAPER[key].title if name is None else title(study, name)
