"""PIEs by the number of models that vote: by pruning, and by training noise alone."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prunejax.measures import RunMeasures
from prunejax.report.figures.style import in_style, mark_missing, plot_styles, set_title, subplots
from prunejax.report.noise import NO_FLOOR, extrapolated, noise_by_size, pies_by_size
from prunejax.report.study import (
    Study,
    at,
    cell_title,
    dense_and_pruned,
    headline,
    holder_of,
    percent,
    pruned_experiments,
    title,
)

WIDTH = 4.2
"""The width of a panel, in inches."""


def pies_and_noise(study: Study) -> Figure:
    """A panel for each dense run: PIEs at the headline sparsity by the number of models.

    Means over subsets of seeds. Crosses: between disjoint subsets of the dense models; dotted:
    extrapolated to all of them by the square root of their number.
    """
    level = headline(study)
    styles = plot_styles(study, pruned_experiments(study))
    # The noise is that of the dense models, which several experiments may share.
    of_dense: dict[str | None, list[str]] = {}
    for name in styles:
        of_dense.setdefault(holder_of(study, name, 0.0), []).append(name)
    with in_style(study):
        figure, axes = subplots(1, len(of_dense), WIDTH, 3.2, sharey=True)
        for axis, names in zip(axes[0], of_dense.values(), strict=True):
            heading = f"{cell_title(study, names[0], 0.0)} and {percent(study, level)}% pruned"
            dense = at(study, names[0], 0.0)
            if dense is None or len(dense.seeds) < 2:
                mark_missing(axis, heading, WIDTH, NO_FLOOR)
                continue
            for name in names:
                models = dense_and_pruned(study, name, level)
                if not isinstance(models, str):
                    curve = pies_by_size(*models)
                    label = title(study, name)
                    axis.plot(curve.sizes, curve.pies, ms=4, label=label, **styles[name])
            _draw_noise(axis, dense)
            axis.set_xlabel("models of each population")
            axis.set_ylabel("PIEs [test images]")
            axis.tick_params(labelleft=True)  # also where the first panel has none
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            # Below the panel, where it hides no noise.
            axis.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))
            set_title(axis, heading, WIDTH)
        # Only now: a limit that is set no longer adapts to lines that are drawn later.
        axes[0, 0].set_ylim(bottom=0)
        return figure


def _draw_noise(axis: Axes, dense: RunMeasures) -> None:
    noise = noise_by_size(dense)
    axis.plot(noise.sizes, noise.pies, "x", color="black", ms=5, label="training noise alone")
    further = extrapolated(noise, len(dense.seeds))
    axis.plot(further.sizes, further.pies, ":", color="black", label="the same, extrapolated")
