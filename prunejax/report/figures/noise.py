"""PIEs by the number of models that vote: those of pruning, and those of training noise alone."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prunejax.measures import RunMeasures
from prunejax.report.comparison import dense_and_pruned
from prunejax.report.figures.costs import looks_of
from prunejax.report.figures.style import in_style, say_missing, set_title, subplots
from prunejax.report.noise import extrapolated, noise_by_size, pies_by_size
from prunejax.report.study import (
    Study,
    at,
    headline,
    method_of,
    methods,
    percent,
    title,
)

WIDTH = 4.2
"""Of a panel, in inches."""


def pies_and_noise(study: Study) -> Figure:
    """A panel for each method: PIEs at the headline sparsity by the number of models.

    Means over subsets of seeds. Crosses: between disjoint subsets of the dense models; dotted: on
    to all of them by the square root of their number.
    """
    level = headline(study)
    looks = looks_of(study)
    with in_style(study):
        figure, axes = subplots(1, len(methods(study)), WIDTH, 3.2, sharey=True)
        for axis, method in zip(axes[0], methods(study), strict=True):
            names = [name for name in looks if method_of(study, name) == method]
            heading = f"{method.label}, {percent(study, level)}% pruned"
            dense = at(study, names[0], 0.0) if names else None
            if dense is None or len(dense.seeds) < 2:
                why = "needs 2 dense models" if names else "not pruned"
                say_missing(axis, heading, WIDTH, why)
                continue
            for name in names:
                models = dense_and_pruned(study, name, level)
                if not isinstance(models, str):
                    curve = pies_by_size(*models)
                    label = title(study, name)
                    axis.plot(curve.sizes, curve.pies, ms=4, label=label, **looks[name])
            _draw_noise(axis, dense)
            axis.set_xlabel("models on either side")
            axis.set_ylabel("PIEs [test images]")
            axis.tick_params(labelleft=True)  # also where the first panel has none
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.legend(fontsize=8)
            set_title(axis, heading, WIDTH)
        # Only now: to set a limit is to end its fitting to lines that are drawn later.
        axes[0, 0].set_ylim(bottom=0)
        return figure


def _draw_noise(axis: Axes, dense: RunMeasures) -> None:
    noise = noise_by_size(dense)
    axis.plot(noise.sizes, noise.pies, "x", color="black", ms=5, label="training noise alone")
    further = extrapolated(noise, len(dense.seeds))
    axis.plot(further.sizes, further.pies, ":", color="black", label="the same, extrapolated")
