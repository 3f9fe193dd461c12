"""The published numbers of a paper, and the experiments of a study that they belong to."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from prunejax.config import Pruning
from prunejax.report.study import Study, experiment, settings_of, title

Published = Mapping[str, Mapping[str, Mapping[Any, str]]]
"""Numbers as the paper writes them: by column, experiment and sparsity.

`hyperparameters` are by name and `Sup` or `SCL`; `PIE` also has those of `hooker`.
"""


class PaperExperiment(NamedTuple):
    """An experiment of the paper, with the title that the paper gives it."""

    method: str
    pruning: Pruning
    title: str


ARCHITECTURE = "WideResNet-16-2"
"""The paper's network, as `config.display.architecture` has it."""
ONE_SHOT = Pruning(None, allocation="global")
PAPER = {
    "sup_gmp": PaperExperiment("cross_entropy", Pruning("sup"), "Sup / GMP"),
    "sup_one_shot": PaperExperiment("cross_entropy", ONE_SHOT, "Sup / One-Shot"),
    "scl_gmp": PaperExperiment("supcon", Pruning("scl"), "SCL / GMP"),
    "scl_delayed_gmp": PaperExperiment("supcon", Pruning("scl_delayed"), "SCL / Δ GMP"),
    "scl_one_shot": PaperExperiment("supcon", ONE_SHOT, "SCL / One-Shot"),
}
"""The paper's pruned experiments (Corti et al.), by the keys of its numbers."""


def paper_key(study: Study, name: str) -> str | None:
    """Which of the paper's experiments this one of the study is, whatever its name; or None.

    It is trained and pruned as in the paper, and has the paper's label for its way of pruning.
    """
    ours = experiment(study, name)
    for key, theirs in PAPER.items():
        label = theirs.title.split(" / ")[1]
        if (ours.method, ours.pruning, ours.label) == (theirs.method, theirs.pruning, label):
            return key
    return None


def find_papers(study: Study, key: str) -> str | None:
    """The name of a paper's experiment in the study, or None if the study does not have it."""
    return next((name for name in study if paper_key(study, name) == key), None)


def number(
    published: Published | None, study: Study, column: str, name: str, sparsity: float
) -> str | None:
    """Returns the paper's number for a cell, or None.

    Args:
        published: the paper's numbers.
        study: the measures.
        column: the header of the column.
        name: the name of the experiment in the study.
        sparsity: the sparsity of the cell, a fraction.
    """
    key = paper_key(study, name)
    if published is None or key is None:
        return None
    found = published.get(column, {}).get(key, {}).get(sparsity, "-")
    return None if found == "-" else found


def other_depth(study: Study, published: Published | None) -> str:
    """Why the paper's depths differ from ours, as the end of a note; empty if they do not."""
    if published is None:
        return ""
    reasons = []
    if settings_of(study, "depth").depth_count != "last_wrong":
        reasons.append("counts the last wrong probe, usually one less than the first right one")
    if next(iter(study.values())).config.display.architecture != ARCHITECTURE:
        reasons.append(f"is of the layers of {ARCHITECTURE}")
    return f" The paper's depth {', and '.join(reasons)}." if reasons else ""


def paper_title(study: Study, key: str) -> str:
    """The title of an experiment of the paper, whether the study has it or not."""
    name = find_papers(study, key)
    return PAPER[key].title if name is None else title(study, name)
