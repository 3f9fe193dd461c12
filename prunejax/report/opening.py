"""The start of the page: a plain sentence for any reader, then the findings."""

from prunejax.report.comparison import answer, answered, verdict
from prunejax.report.study import (
    Study,
    compared_methods,
    headline,
    prunes,
    sweep_label,
    without_sweeps,
)
from prunejax.report.table import Table
from prunejax.report.when import Trend, trends, when_sentence


def opening(study: Study, compared: Table) -> tuple[str, list[str]]:
    """The results of the study in sentences.

    Args:
        study: the measures.
        compared: the `comparison` of its experiments other than sweeps.

    Returns:
        One or two plain sentences, and the findings with their numbers: those of the comparison
        and those of the sweeps over start steps.
    """
    single = without_sweeps(study)
    found = []
    for trend in trends(study):
        # A sweep may have its own sparsities.
        if trend.sparsity == headline({trend.sweep.first: study[trend.sweep.first]}):
            found.append(trend)
    sentences = [when_sentence(study, trend) for trend in found]
    if prunes(single) or not sentences:
        sentences = [*answer(single, compared), *sentences]
    plain = [_hurt_more(single, compared), _best_start(study, found)]
    return " ".join(filter(None, plain)), sentences


def _hurt_more(study: Study, compared: Table) -> str:
    """Which of two methods loses more by the first way of pruning; empty if none are compared."""
    methods = compared_methods(study)
    if methods is None:
        return ""
    first, second = methods
    rows = answered(compared)
    if not rows:
        return ""
    row = rows[0]
    words = {
        "yes": f"it costs {first} more",
        "no": f"it costs {first} less",
        "undecided": "it is undecided which of them it costs more",
    }
    return (
        f"Pruning {row.sparsity.text}% of the weights ({row.pruning.text}) costs networks trained "
        f"by {first} {row.first_lost.value:.1f} points of test accuracy, and those trained by "
        f"{second} {row.second_lost.value:.1f}: {words[verdict(row.lost_difference)]}."
    )


def _best_start(study: Study, found: list[Trend]) -> str:
    """The best start of pruning, if a trend is decided; empty if not, and without sweeps."""
    found_best = []
    for trend in found:
        if trend.found != "undecided":
            label = sweep_label(study, trend.sweep)
            start = f"{100 * trend.cheapest:.3g}%"
            lost = f"{trend.lost[trend.cheapest]:.1f} points"
            found_best.append(
                f"{label} loses least on average ({lost}) if pruning starts at {start}"
            )
    if not found_best:
        return ""
    return f"Of the starting points tried, {', and '.join(found_best)} of the first training stage."
