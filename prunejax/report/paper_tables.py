"""Tables of the paper's experiments only: Table 3, and the paper's findings one by one."""

import dataclasses
from typing import NamedTuple

import numpy as np

from prunejax.report.comparison import (
    DIGITS,
    POWER,
    difference_cell,
    effect,
    power_of,
    verdict,
)
from prunejax.report.noise import FLOOR, noise_floors
from prunejax.report.published import (
    Published,
    find_papers,
    other_depth,
    paper_key,
    paper_title,
)
from prunejax.report.resamples import INTERVALS, Resamples
from prunejax.report.study import (
    DenseAndPruned,
    Study,
    dense_and_pruned,
    headline,
    percent,
    pruned_experiments,
    scope,
)
from prunejax.report.table import NOTHING, Cell, Table
from prunejax.report.tables import grid, pies_and_accuracy

TABLE_3 = "sup_gmp"
"""The experiment of the paper's Table 3."""


def table_3(study: Study, published: Published | None = None) -> Table:
    """PIEs of Sup / GMP next to those of Hooker et al. 2019, as Table 3."""
    heading = f"Table 3. {paper_title(study, TABLE_3)}: PIEs among {scope(study)}, and accuracy"
    table = Table("table_3", heading, note=f"{FLOOR} Shown: its mean.")
    names = filter(None, [find_papers(study, TABLE_3)])
    table = grid(table, study, list(names), pies_and_accuracy(study), published)
    if published is None:
        return table
    theirs = published.get("PIE", {}).get("hooker", {})
    rows = [[*row, Cell(theirs.get(row[0].value, "-"))] for row in table.rows]
    header = [*table.header, "Hooker et al. 2019 PIE"]
    return dataclasses.replace(table, header=header, rows=rows)


class Finding(NamedTuple):
    """A finding of the paper."""

    text: str
    effect: str
    """The name of the effect, as in `comparison.effect`."""
    sign: int
    """The sign of the effect that the paper finds."""
    experiments: tuple[str, ...]
    """The keys in `published.PAPER` of the experiment with the effect, or of both that differ."""


FINDINGS = (
    Finding(
        "GMP costs SCL more accuracy than Sup [points]", "accuracy", +1, ("scl_gmp", "sup_gmp")
    ),
    Finding(
        "One-Shot costs SCL more accuracy than Sup [points]",
        "accuracy",
        +1,
        ("scl_one_shot", "sup_one_shot"),
    ),
    Finding("GMP gives SCL more PIEs than Sup", "pies", +1, ("scl_gmp", "sup_gmp")),
    Finding("One-Shot gives SCL more PIEs than Sup", "pies", +1, ("scl_one_shot", "sup_one_shot")),
    Finding(
        "Δ GMP costs SCL less accuracy than GMP [points]",
        "accuracy",
        -1,
        ("scl_delayed_gmp", "scl_gmp"),
    ),
    Finding("Δ GMP gives SCL fewer PIEs than GMP", "pies", -1, ("scl_delayed_gmp", "scl_gmp")),
    Finding("GMP lowers SCL's Q-Score", "q", +1, ("scl_gmp",)),
    Finding("GMP lowers SCL's Q-Score more than Sup's", "q", +1, ("scl_gmp", "sup_gmp")),
    Finding("PIEs of SCL / GMP are deeper than other images [layers]", "depth", +1, ("scl_gmp",)),
    Finding("PIEs of Sup / GMP are deeper than other images [layers]", "depth", +1, ("sup_gmp",)),
)


def has_findings(study: Study) -> bool:
    """Whether the study has both experiments of any of the paper's comparisons."""
    for finding in FINDINGS:
        # A finding of a single experiment is not enough for a table of which most rows are empty.
        present = [key for key in finding.experiments if find_papers(study, key) is not None]
        if len(present) == 2:
            return True
    return False


def _shown_findings(study: Study) -> list[Finding]:
    """The findings with a row in the table.

    A study of the paper's experiments alone has a row for each finding, also for those not run yet.
    One that has other experiments has rows for the findings that it can show.
    """
    if all(paper_key(study, name) is not None for name in pruned_experiments(study)):
        return list(FINDINGS)
    shown = []
    for finding in FINDINGS:
        if all(find_papers(study, key) is not None for key in finding.experiments):
            shown.append(finding)
    return shown


def findings(study: Study, published: Published | None = None) -> Table:
    """The paper's findings at the headline sparsity: our value with its interval; if it holds."""
    resamples = Resamples(study)
    sparsity = headline(study)
    floors = noise_floors(study)
    rows = []
    for finding in _shown_findings(study):
        row = [Cell(finding.text), *_ours(study, resamples, floors, finding, sparsity)]
        if published is not None:
            theirs = _published_difference(finding, published, sparsity)
            text = "-" if np.isnan(theirs) else f"{theirs:.{DIGITS[finding.effect]}f}"
            row.append(Cell(text, theirs))
        rows.append(row)

    header = ["Finding", "Ours [95%]", "Holds here", "Noise floor of each experiment [range]"]
    heading = f"What the paper finds at {percent(study, sparsity)}%, PIEs among {scope(study)}"
    note = f"95% {INTERVALS}. Each finding by itself, not corrected for their number. {POWER} "
    note += f"{FLOOR} Shown: mean and range."
    if published is not None:
        header.append("Paper")
        note += " Paper: PIEs among 10,000, of 30 WRN-16-2 models."
        note += other_depth(study, published)
    return Table("findings", heading, header, rows, note)


def _ours(
    study: Study,
    resamples: Resamples,
    floors: dict[str, Cell],
    finding: Finding,
    sparsity: float,
) -> list[Cell]:
    """Our effect, whether it has the paper's sign, and the noise floors of its experiments."""
    cells = [_cells_of_paper(study, key, sparsity) for key in finding.experiments]
    lacking = [cell for cell in cells if isinstance(cell, str)]
    if lacking:
        return [Cell("; ".join(dict.fromkeys(lacking))), NOTHING, NOTHING]
    found = [cell for cell in cells if isinstance(cell, DenseAndPruned)]

    # The effect of the first experiment, less that of the second if there is one.
    effects = [effect(finding.effect, resamples, models) for models in found]
    found_effect = effects[0]
    for other in effects[1:]:
        found_effect = found_effect.less(other)
    if found_effect.models:
        ours = difference_cell(finding.effect, found_effect)
    else:
        ours = Cell("not probed, or no PIEs" if finding.effect == "depth" else "not measured")

    # PIEs are to be compared with those that training noise alone makes.
    noise = "-"
    if finding.effect == "pies":
        names = [find_papers(study, key) for key in finding.experiments]
        noise = "; ".join(floors[name].text for name in names if name is not None)
    # Depth is known for the probed models only.
    unit = "probed models" if finding.effect == "depth" else "seeds"
    holds = Cell(verdict(ours, finding.sign), beside=power_of(ours, found_effect.models, unit))
    return [ours, holds, Cell(noise)]


def _cells_of_paper(study: Study, key: str, sparsity: float) -> DenseAndPruned | str:
    if not sparsity:
        return "nothing is pruned"
    name = find_papers(study, key)
    if name is None:
        return f"{paper_title(study, key)}, {percent(study, sparsity)}%: not run"
    return dense_and_pruned(study, name, sparsity)


def _published_difference(finding: Finding, published: Published, sparsity: float) -> float:
    """The effect from the paper's means, minus that of a second experiment; NaN if unknown."""
    effects = []
    for key in finding.experiments:
        effects.append(_published_effect(finding.effect, published, key, sparsity))
    return effects[0] - sum(effects[1:])


def _published_effect(name: str, published: Published, key: str, sparsity: float) -> float:
    def mean(column: str, level: float = sparsity) -> float:
        return _published_mean(published, column, key, level)

    if name == "pies":
        return mean("PIE")
    if name == "depth":
        return mean("depth of PIEs") - mean("of non-PIEs")
    column = {"accuracy": "Acc [%]", "q": "Q"}[name]
    return mean(column, 0.0) - mean(column)


def published_level(name: str, published: Published, key: str, sparsity: float) -> float:
    """Returns the paper's value of one of `when.QUANTITIES`; NaN where it has none.

    Args:
        name: the name of the quantity.
        published: the paper's numbers.
        key: the key of the paper's experiment, in `published.PAPER`.
        sparsity: the sparsity, a fraction.
    """
    if name == "q":
        return _published_mean(published, "Q", key, sparsity)
    if name == "depth":
        return _published_mean(published, "depth of PIEs", key, sparsity)
    return _published_effect(name, published, key, sparsity)


def _published_mean(published: Published, column: str, key: str, sparsity: float) -> float:
    text = published.get(column, {}).get(key, {}).get(sparsity, "nan")
    return np.nan if text == "-" else float(text.split()[0])
