"""Training loss by step."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from prunejax.report.figures.style import blocks, in_style, say_missing, set_title, subplots
from prunejax.report.study import (
    STAGE_TITLES,
    Study,
    levels,
    method_of,
    percent,
    stage_title,
    title,
)

Curves = Mapping[str, Sequence[Mapping]]
"""The lines of `metrics.jsonl` by the name of the experiment."""
WIDTH = 3.1
"""Of a panel, in inches."""


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
            for axis, name in zip(axes_of_row, row, strict=False):
                if curves.get(name):
                    _panel(axis, study, name, curves[name])
                else:
                    say_missing(axis, title(study, name), WIDTH, "no curve")
            axes_of_row[0].set_ylabel("training loss [nats]")
        return figure


def _panel(axis: Axes, study: Study, name: str, lines: Sequence[Mapping]) -> None:
    last_step = lines[-1]["step"]
    stages = itertools.groupby(lines, key=lambda line: line["stage"])
    for number, (stage, of_stage) in enumerate(stages):
        of_stage = list(of_stage)
        _draw_stage(axis, study, name, of_stage, labelled=number == 0)
        # A method's first stage is what the method is about; fine-tuning has its own title.
        heading = stage_title(stage)
        if number == 0 and stage not in STAGE_TITLES:
            heading = method_of(study, name).label
        # A short stage at the end has its heading to the left, where there is room for it.
        first_step = of_stage[0]["step"]
        at_end = first_step > 0.7 * last_step
        place = {"x": last_step, "ha": "right"} if at_end else {"x": first_step, "ha": "left"}
        above = axis.get_xaxis_transform()
        text = axis.text(y=1, s=heading, fontsize=8, va="top", transform=above, **place)
        # Where no loss is finite the steps lie outside the panel, and the text must not count.
        text.set_in_layout(False)

    axis.margins(y=0.15)
    set_title(axis, title(study, name), WIDTH)
    axis.set_xlabel("step")
    # A loss that falls by more than ten times is shown on a logarithmic scale, if it has one.
    low, high = axis.dataLim.y0, axis.dataLim.y1
    if 0 < 10 * low < high < np.inf:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)


def _draw_stage(
    axis: Axes, study: Study, name: str, lines: Sequence[Mapping[str, Any]], labelled: bool
) -> None:
    """A line and a range for each sparsity."""
    run = study[name]
    present = levels(study)
    steps = [line["step"] for line in lines]
    losses = np.array([line["loss"] for line in lines])
    for level in run.levels:
        # Excluded models were frozen: their losses end somewhere on the way.
        chosen = losses[:, (run.sparsities == np.float32(level)) & ~run.excluded]
        if not chosen.size:
            continue
        # One colour for each sparsity of the study; not up to the palest, which paper swallows.
        place = present.index(level) / max(len(present) - 1, 1)
        colour = mpl.colormaps["viridis"](0.85 * place)
        label = f"{percent(study, level)}% pruned" if labelled else None
        axis.plot(steps, chosen.mean(1), color=colour, label=label)
        low, high = chosen.min(1), chosen.max(1)
        axis.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
