"""Training loss by step."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from prunejax.report.figures.style import blocks, in_style, mark_missing, set_title, subplots
from prunejax.report.study import (
    STAGE_TITLES,
    Study,
    levels,
    method_of,
    percent,
    stage_title,
    title,
)
from prunejax.runs.log import at_steps, spans_of

Curves = Mapping[str, Sequence[Mapping]]
"""The lines of `metrics.jsonl` by the name of the experiment."""
WIDTH = 3.1
"""The width of a panel, in inches."""
SHORTEST = 0.8
"""The least width of a stage, relative to its width if all stages were equally long."""
WIDE_ENOUGH_FOR_TWO = 0.4
"""The fraction of a panel's width in which two tick labels of steps fit."""
GAP = 0.16
"""The gap between the stages of a panel, for axis labels, as a fraction of its width."""


def training_curves(study: Study, curves: Curves) -> Figure:
    """Training loss of every experiment by step through all its stages.

    A line is the mean over the seeds of one sparsity, with their range.
    """
    rows = blocks(study, list(study), widest=4)
    with in_style(study):
        figure, axes = subplots(len(rows), max(len(row) for row in rows), WIDTH, 2.6)
        for axes_of_row, row in zip(axes, rows, strict=True):
            for axis in axes_of_row[len(row) :]:
                axis.set_visible(False)
            leftmost = True
            for axis, name in zip(axes_of_row, row, strict=False):
                if not curves.get(name):
                    mark_missing(axis, title(study, name), WIDTH, "no curve")
                    continue
                _panel(axis, study, name, curves[name], leftmost)
                leftmost = False
        return figure


def _panel(
    axis: Axes, study: Study, name: str, lines: Sequence[Mapping[str, Any]], leftmost: bool
) -> None:
    """The curves of a run; each stage has its own axes, as it has another loss."""
    set_title(axis, title(study, name), WIDTH)
    even = _of_even_spans(lines)
    stages = [list(group) for _, group in itertools.groupby(even, lambda line: line["stage"])]
    parts = _axes_of_stages(axis, [stage[-1]["step"] - stage[0]["step"] for stage in stages])
    for number, (part, of_stage) in enumerate(zip(parts, stages, strict=True)):
        _draw_stage(part, study, name, of_stage, labelled=number == 0)
        # A method's first stage has the method's label; fine-tuning has its own title.
        stage = of_stage[0]["stage"]
        heading = stage_title(stage)
        if number == 0 and stage not in STAGE_TITLES:
            heading = method_of(study, name).label
        text = part.text(0.03, 1, heading, fontsize=8, va="top", transform=part.transAxes)
        # However long a stage's name is, its axes stay as wide as they are.
        text.set_in_layout(False)
        _scale(part)
        part.set_xlabel("step")
    if leftmost:
        parts[0].set_ylabel("training loss")
    if parts[0].get_legend_handles_labels()[0]:
        parts[0].legend(fontsize=8)


def _axes_of_stages(axis: Axes, lengths: Sequence[int]) -> Sequence[Axes]:
    """Axes in a panel, as wide as their stages are long; short ones wide enough to be read."""
    if len(lengths) == 1:
        return [axis]
    axis.set_axis_off()
    shares = np.array(lengths) / max(sum(lengths), 1)
    shares = np.maximum(shares, SHORTEST / len(shares))
    gap = min(GAP, 0.5 / len(shares))
    widths = shares / shares.sum() * (1 - gap * (len(shares) - 1))
    starts = np.cumsum(widths + gap) - (widths + gap)
    parts = []
    for start, width in zip(starts, widths, strict=True):
        part = axis.inset_axes((start, 0, width, 1))
        between = max(1, round(6 * width))
        fewest = 2 if width > WIDE_ENOUGH_FOR_TWO else 1
        locator = MaxNLocator(between, steps=(1, 2, 5, 10), integer=True, min_n_ticks=fewest)
        part.xaxis.set_major_locator(locator)
        parts.append(part)
    return parts


def _scale(axis: Axes) -> None:
    """Leaves space for the heading; the scale is logarithmic if the loss spans a factor of ten."""
    axis.margins(y=0.2)
    low, high = axis.dataLim.y0, axis.dataLim.y1
    if 0 < 10 * low < high < np.inf:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())


def _draw_stage(
    axis: Axes, study: Study, name: str, lines: Sequence[Mapping[str, Any]], labelled: bool
) -> None:
    """A line and a range for each sparsity."""
    run = study[name]
    present = levels(study)
    steps = [line["step"] for line in lines]
    losses = np.array([line["loss"] for line in lines])
    for level in run.levels:
        # The losses of failed models end before the last step.
        chosen = losses[:, (run.sparsities == np.float32(level)) & ~run.failed]
        if not chosen.size:
            continue
        # One colour for each sparsity of the study, without the palest, which white hides.
        fraction = present.index(level) / max(len(present) - 1, 1)
        colour = mpl.colormaps["viridis"](0.85 * fraction)
        label = f"{percent(study, level)}% pruned" if labelled else None
        axis.plot(steps, chosen.mean(1), color=colour, label=label)
        low, high = chosen.min(1), chosen.max(1)
        axis.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)


def _of_even_spans(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a run; a line over few steps is merged into the one before.

    Such is the last line of an epoch, with a smaller batch at its end: its contrastive loss is
    lower, and the curve would have a spike for each epoch.
    """
    spans = spans_of(lines)
    longest: dict[str, int] = {}
    for line, span in zip(lines, spans, strict=True):
        longest[line["stage"]] = max(span, longest.get(line["stage"], 1))
    kept, stage, width = [], None, 0
    for line, span in zip(lines, spans, strict=True):
        most = longest[line["stage"]]
        if line["stage"] == stage and span < 0.5 * most and width + span < 1.5 * most:
            kept.pop()
            width += span
        else:
            stage, width = line["stage"], span
        kept.append(line["step"])
    return at_steps(lines, set(kept))
