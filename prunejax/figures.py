"""Measures -> matplotlib figures. Each is a function of a study's measures; a panel without its models says so.

Where a panel's points are test images, point i is image i and the axes' `gid` is `point_to(...)`: the models whose
predictions the report shows beside the image.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from prunejax.evaluate import Measures
from prunejax.tables import METHODS, NAMES, PAIRS, Study, at, cell_title, headline, levels, run_of

Curves = Mapping[str, Sequence[Mapping]]
"""The lines of `metrics.jsonl` by the name of the experiment."""

COLOURS = {"sup": "#0072B2", "scl": "#D55E00"}  # Okabe & Ito's blue and vermilion, safe for the colour-blind
CLASS_COLOURS = mpl.color_sequences["petroff10"]  # made for the same
POINTS = {"other test images": ("#808080", 0.4, 5), "PIEs": ("#D55E00", 0.9, 12)}
"""Colour, opacity and size."""
STAGES = {"sup": "cross-entropy", "scl": "contrastive", "head": "linear head", "finetune": "fine-tuning"}
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "font.size": 9,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # class names are no formulas
    "svg.hashsalt": "prunejax",
}


def point_to(*cells: tuple[str, float]) -> str:
    """The `gid` of axes whose points are test images: the (method, sparsity) of the models to name beside them."""
    return json.dumps([[run_of(*cell), cell[1]] for cell in cells])


def _missing(axis: Axes, title: str, why: str = "not run") -> None:
    axis.set_title(title)
    axis.set_axis_off()
    axis.text(0.5, 0.5, why, ha="center", va="center", transform=axis.transAxes, color="#666666")


def _grid(rows: int, columns: int, width: float, height: float, **shared: Any) -> tuple[Figure, np.ndarray]:  # noqa: ANN401
    figure = Figure(figsize=(width * columns, height * rows + 0.4))
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def figure_1(study: Study, sparsity: float | None = None) -> Figure:
    """UMAP of Sup and SCL representations: dense, pruned by GMP and by One-Shot, as Figure 1 (there at 95%)."""
    level = max(levels(study)) if sparsity is None else sparsity
    return _umap_grid(study, [[(f"{k}_gmp", 0.0), (f"{k}_gmp", level), (f"{k}_one_shot", level)] for k in NAMES])


def figure_5(study: Study) -> Figure:
    """UMAP of every method's representations: dense, at the sparsity nearest to 90% and at the highest, as Figure 5."""
    chosen = dict.fromkeys((0.0, headline(study), max(levels(study))))
    return _umap_grid(study, [[(method, level) for method in METHODS] for level in chosen])


def _umap_grid(study: Study, cells: Sequence[Sequence[tuple[str, float]]]) -> Figure:
    names = next(iter(study.values())).class_names
    colours = CLASS_COLOURS if len(names) <= 10 else mpl.colormaps["viridis"](np.linspace(0, 1, len(names)))
    with mpl.rc_context(STYLE):
        figure, axes = _grid(len(cells), len(cells[0]), 2.6, 2.6)
        for axis, (method, sparsity) in zip(axes.flat, itertools.chain(*cells), strict=True):
            models = at(study, method, sparsity)
            title = cell_title(method, sparsity)
            if models is None or np.isnan(models.umap).all():
                _missing(axis, title, "not run" if models is None else "not probed")
                continue
            purity = models.probed.purity.mean()
            axis.set_title(f"{title}: purity {100 * purity:.0f}%")
            axis.set_gid(point_to((method, sparsity)))
            size = min(8.0, 6000 / len(models.labels))
            shades = [colours[label] for label in models.modal_class]
            axis.scatter(*models.umap[0].T, s=size, c=shades, linewidths=0, rasterized=True)
            axis.set_axis_off()
        handles = [Line2D([], [], marker="o", linestyle="", color=c) for c in colours[: len(names)]]
        if len(names) <= 20:
            figure.legend(
                handles, list(names), loc="outside lower center", ncols=2 * len(cells[0]), title="modal prediction"
            )
        return figure


def figure_2(study: Study, sparsity: float | None = None) -> Figure:
    """Q-Score of each test image, dense on x and pruned on y (means over models), PIEs marked, as Figure 2."""
    return _dense_against_pruned(study, sparsity, "q", "Q-Score")


def figure_3(study: Study, sparsity: float | None = None) -> Figure:
    """Prediction depth of each test image, dense on x and pruned on y (means over probed models), as Figure 3."""
    return _dense_against_pruned(study, sparsity, "depth", "prediction depth [layers]")


def _dense_against_pruned(study: Study, sparsity: float | None, quantity: str, label: str) -> Figure:
    level = headline(study) if sparsity is None else sparsity
    with mpl.rc_context(STYLE):
        figure, axes = _grid(1, len(METHODS), 2.6, 3.3)
        for axis, method in zip(axes.flat, METHODS, strict=True):
            dense, pruned = at(study, method, 0.0), at(study, method, level)
            if dense is None or pruned is None:
                _missing(axis, cell_title(method, level))
                continue
            pies = pruned.pies(dense)
            if quantity == "depth":
                dense, pruned = dense.probed, pruned.probed
            if not (len(dense.seeds) and len(pruned.seeds)):
                _missing(axis, cell_title(method, level), "not probed")
                continue
            x, y = (getattr(models, quantity).mean(0) for models in (dense, pruned))
            correlation = np.corrcoef(x, y)[0, 1] if x.std() and y.std() else np.nan
            if quantity == "depth":  # few different values: spread them within a fifth of a layer
                noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, len(x)))
                x, y = x + noise[0], y + noise[1]
            axis.set_title(f"{cell_title(method, level)}\n{pies.sum():,} PIEs, r = {correlation:.2f}")
            axis.set_gid(point_to((method, 0.0), (method, level)))
            for chosen, (colour, alpha, size) in zip((~pies, pies), POINTS.values(), strict=True):
                shown = np.where(chosen, y, np.nan)
                area = size * min(1.0, (1000 / len(x)) ** 0.5)
                axis.scatter(x, shown, s=area, color=colour, alpha=alpha, linewidths=0, rasterized=True)
            low, high = min(x.min(), y.min()), max(x.max(), y.max())
            axis.plot([low, high], [low, high], color="black", linewidth=0.8, linestyle="--")
            axis.set_box_aspect(1)
            axis.set_xlabel(f"{label}, dense")
        axes[0, 0].set_ylabel(f"{label}, pruned")
        handles = [Line2D([], [], marker="o", linestyle="", color=colour) for colour, *_ in POINTS.values()]
        identity = Line2D([], [], color="black", linewidth=0.8, linestyle="--")
        figure.legend([*handles, identity], [*POINTS, "unchanged"], loc="outside lower center", ncols=3)
        return figure


def figure_4(study: Study) -> Figure:
    """PIEs per class under One-Shot pruning for Sup (top) and SCL, at up to three sparsities, as Figure 4.

    Strong: PIEs of both training methods; light: of this one alone.
    """
    pruned = [level for level in levels(study) if level]
    chosen = [pruned[i] for i in sorted({0, len(pruned) // 2, len(pruned) - 1})] if pruned else [0.0]
    return _pies_per_class(study, [[(method, level) for level in chosen] for method in PAIRS["One-Shot"]], "all")


def figure_7(study: Study) -> Figure:
    """PIEs per class at every sparsity (rows) for every method (columns), as Figure 7; see `figure_4`."""
    chosen = [level for level in levels(study) if level] or [0.0]
    return _pies_per_class(study, [[(method, level) for method in METHODS] for level in chosen], "row")


def _pies_per_class(
    study: Study, cells: Sequence[Sequence[tuple[str, float]]], same_scale: Literal["all", "row"]
) -> Figure:
    partner = {scl: sup for sup, scl in PAIRS.values()} | {"sup_gmp": "scl_gmp", "sup_one_shot": "scl_one_shot"}
    labels, names = next(iter(study.values())).labels, next(iter(study.values())).class_names
    with mpl.rc_context(STYLE):
        figure, axes = _grid(len(cells), len(cells[0]), 2.9, 2.0, sharex=True, sharey=same_scale)
        for axis, (method, level) in zip(axes.flat, itertools.chain(*cells), strict=True):
            pies = {}
            for each in (method, partner[method]):
                dense, models = at(study, each, 0.0), at(study, each, level)
                if level and dense is not None and models is not None:
                    pies[each] = models.pies(dense)
            if method not in pies:
                _missing(axis, cell_title(method, level))
                continue
            shared = pies[method] & pies[partner[method]] if partner[method] in pies else np.zeros_like(pies[method])
            both, alone = (np.bincount(labels[x], minlength=len(names)) for x in (shared, pies[method] & ~shared))
            colour, places = COLOURS[method[:3]], range(len(names))
            axis.bar(places, both, color=colour)
            axis.bar(places, alone, bottom=both, color=colour, alpha=0.35)
            alone_here = "" if partner[method] in pies else f"\n({METHODS[partner[method]]} not run)"
            axis.set_title(f"{cell_title(method, level)}: {pies[method].sum()} PIEs{alone_here}")
            axis.yaxis.get_major_locator().set_params(integer=True)
            axis.set_xticks(places, names, rotation=90 if max(map(len, names)) > 2 else 0)
        for row in axes:
            row[0].set_ylim(0, max(1, row[0].get_ylim()[1]))
            row[0].set_ylabel("PIEs [test images]")
        for axis in axes[-1]:
            axis.set_xlabel("true class")
        handles = [
            Patch(color=COLOURS[kind], alpha=alpha, label=f"{name}: {what}")
            for kind, name in NAMES.items()
            for what, alpha in (("PIE of both", 1.0), ("of this one only", 0.35))
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(cells[0])))
        return figure


def figure_6(study: Study, images: np.ndarray, sparsity: float | None = None, columns: int = 8) -> Figure:
    """Each method's PIEs on which most models agree, before and after pruning, as Figure 6.

    Under each image `[height, width, channels]` uint8: the true class; the modal prediction of the dense models (U, for
    uncompressed) and of the pruned ones (S, for sparse), and how many of them agree with it.
    """
    level = headline(study) if sparsity is None else sparsity
    names = next(iter(study.values())).class_names
    with mpl.rc_context(STYLE):
        figure, axes = _grid(len(METHODS), columns, 1.25, 1.9)
        for row, method in zip(axes, METHODS, strict=True):
            dense, pruned = at(study, method, 0.0), at(study, method, level)
            for axis in row:
                axis.set_axis_off()
            row[0].set_title(cell_title(method, level), loc="left")
            if dense is None or pruned is None or not level:
                row[0].text(0, 0.5, "not run", color="#666666")
                continue
            modes = [(models.modal_class, agreement(models)) for models in (dense, pruned)]
            certain = modes[0][1] / len(dense.seeds) + modes[1][1] / len(pruned.seeds)
            found = np.flatnonzero(pruned.pies(dense))
            chosen = found[np.argsort(-certain[found], kind="stable")][:columns]
            if not chosen.size:
                row[0].text(0, 0.5, "no PIEs", color="#666666")
            for axis, image in zip(row, chosen, strict=False):
                axis.imshow(images[image].squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                lines = [f"label: {names[dense.labels[image]]}"]
                for letter, models, (mode, agree) in zip("US", (dense, pruned), modes, strict=True):
                    lines.append(f"{letter}: {names[mode[image]]} {agree[image]}/{len(models.seeds)}")
                axis.text(0.5, -0.06, "\n".join(lines), ha="center", va="top", transform=axis.transAxes, fontsize=8)
                axis.set_gid(point_to((method, 0.0), (method, level)))
                position = np.full((len(images), 2), np.nan)
                position[image] = (images.shape[2] - 1) / 2, (images.shape[1] - 1) / 2
                axis.scatter(*position.T, s=0)
        return figure


def agreement(models: Measures) -> np.ndarray:
    """How many models predict the modal class of each test image, `[examples]`."""
    return np.sum(models.predictions == models.modal_class, axis=0)


def training_curves(study: Study, curves: Curves) -> Figure:
    """Training loss of every experiment by step through all its stages: mean over seeds, and range, per sparsity."""
    names = [name for name in ("sup_dense", "scl_dense", *METHODS) if name in study]
    shades = mpl.colormaps["viridis"]
    present = levels(study)
    with mpl.rc_context(STYLE):
        columns = min(len(names), 4)
        figure, axes = _grid(-(-len(names) // columns), columns, 3.1, 2.6)
        for axis, name in zip(axes.flat, names, strict=False):
            title = METHODS.get(name, f"{NAMES[name[:3]]}, dense")
            if name not in curves:
                _missing(axis, title, "no curve")
                continue
            for number, (stage, lines) in enumerate(itertools.groupby(curves[name], key=lambda line: line["stage"])):
                lines = list(lines)
                steps, losses = [line["step"] for line in lines], np.array([line["loss"] for line in lines])
                for level in study[name].levels:
                    chosen = losses[:, (study[name].sparsities == np.float32(level)) & ~study[name].excluded]
                    if not chosen.size:
                        continue
                    colour = shades(0.85 * present.index(level) / max(len(present) - 1, 1))
                    label = None if number else f"{100 * level:.3g}% pruned"
                    axis.plot(steps, chosen.mean(1), color=colour, label=label)
                    axis.fill_between(steps, chosen.min(1), chosen.max(1), color=colour, alpha=0.2, linewidth=0)
                axis.text(steps[0], 1, STAGES[stage], fontsize=8, va="top", transform=axis.get_xaxis_transform())
            axis.margins(y=0.15)
            axis.set(title=title, xlabel="step")
            if axis.dataLim.y1 > 10 * axis.dataLim.y0:
                axis.set_yscale("log")
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter("{x:g}")
                axis.yaxis.set_minor_formatter(NullFormatter())
            axis.legend(fontsize=8)
        for axis in axes.flat[len(names) :]:
            axis.set_visible(False)
        for row in axes:
            row[0].set_ylabel("training loss [nats]")
        return figure
