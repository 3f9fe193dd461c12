"""Measures -> tables, figures, and one HTML page. Each table and figure is a function of measures alone."""

import base64
import csv
import dataclasses
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from prunejax.checkpoint import write_whole
from prunejax.evaluate import Measures, dense_of

Study = Mapping[str, Measures]
"""Measures by the name of the experiment."""
Curves = Mapping[str, Sequence[Mapping]]
"""The lines of `metrics.jsonl` by the name of the experiment."""

COLOURS = {"sup": "#0072B2", "scl": "#D55E00"}  # Okabe & Ito's blue and vermilion, safe for the colour-blind
NAMES = {"sup": "Sup", "scl": "SCL"}
METHODS = {
    "sup_gmp": "Sup / GMP",
    "sup_one_shot": "Sup / One-Shot",
    "scl_gmp": "SCL / GMP",
    "scl_delayed_gmp": "SCL / Δ GMP",
    "scl_one_shot": "SCL / One-Shot",
}
STAGES = {"sup": "cross-entropy", "scl": "contrastive", "head": "linear head", "finetune": "fine-tuning"}
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "font.size": 9,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "prunejax",
}


@dataclasses.dataclass(frozen=True)
class Published:
    """The paper's numbers, to stand beside ours."""

    sparsities: Sequence[float]
    accuracy: Mapping[str, Sequence[tuple[float, float]]]
    """In %, (mean, standard deviation) by method."""
    pies: Mapping[str, Sequence[int | None]]
    hooker_pies: Sequence[int | None]


@dataclasses.dataclass(frozen=True)
class Table:
    """A titled table of text cells."""

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return f"**{self.title}**\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"

    def csv(self) -> str:
        """The table as comma-separated values."""
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([self.header, *self.rows])
        return buffer.getvalue()


def table_1(study: Study, published: Published | None = None) -> Table:
    """PIEs and test accuracy by sparsity and method, as Table 1; the published value in parentheses beside ours."""
    rows = []
    for sparsity in _levels(study.values()):
        row = [f"{100 * sparsity:.3g}"]
        for method in METHODS:
            row += [_pies_cell(study, method, sparsity, published), _accuracy_cell(study, method, sparsity, published)]
        rows.append(row)
    header = ["Sparsity [%]", *(f"{title} {what}" for title in METHODS.values() for what in ("PIE", "Acc [%]"))]
    beside = "; in parentheses the paper's, of 10,000 images and 30 WRN-16-2 models" if published else ""
    title = f"Table 1. PIEs among {_images(study)} test images, and test accuracy (mean ± std over seeds){beside}"
    return Table("table_1", title, header, rows)


def table_3(study: Study, published: Published | None = None) -> Table:
    """PIEs of Sup / GMP beside the paper's and those of Hooker et al. 2019, as Table 3."""
    header = ["Sparsity [%]", "PIE", "Acc [%]"]
    header += ["Hooker et al. 2019 PIE", "Paper PIE", "Paper Acc [%]"] if published else []
    rows = []
    for sparsity in _levels(study[name] for name in ("sup_dense", "sup_gmp") if name in study):
        row = [f"{100 * sparsity:.3g}", *(cell(study, "sup_gmp", sparsity) for cell in (_pies_cell, _accuracy_cell))]
        if published:
            index = _published_row(published, sparsity)
            if index is None:
                row += ["not published"] * 3
            else:
                mean, deviation = published.accuracy["sup_gmp"][index]
                pies = (published.hooker_pies[index], published.pies["sup_gmp"][index])
                row += [*map(_count, pies), f"{mean} ± {deviation}"]
        rows.append(row)
    return Table("table_3", f"Table 3. Sup / GMP: PIEs among {_images(study)} test images, and accuracy", header, rows)


def _images(study: Study) -> str:
    return f"{len(next(iter(study.values())).labels):,}"


def _levels(runs: object) -> list[float]:
    return sorted({level for measures in runs for level in measures.levels})  # pyright: ignore[reportGeneralTypeIssues]


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def _published_row(published: Published, sparsity: float) -> int | None:
    close = [abs(level - sparsity) < 1e-6 for level in published.sparsities]
    return close.index(True) if any(close) else None


def _measured(study: Study, method: str, sparsity: float) -> Measures | None:
    """The run that holds a cell; sparsity 0 is the method's dense run."""
    measures = study.get(method if sparsity else dense_of(method))
    return measures if measures is not None and sparsity in measures.levels else None


def _pies_cell(study: Study, method: str, sparsity: float, published: Published | None = None) -> str:
    if sparsity == 0:
        return "-"
    measures, dense = _measured(study, method, sparsity), study.get(dense_of(method))
    cell = "not run" if measures is None else "no dense run"
    if measures and dense:
        cell = str(measures.pies(dense, sparsity).sum())
    if published is None or (index := _published_row(published, sparsity)) is None:
        return cell
    return f"{cell} ({_count(published.pies[method][index])})"


def _accuracy_cell(study: Study, method: str, sparsity: float, published: Published | None = None) -> str:
    measures = _measured(study, method, sparsity)
    cell = "not run"
    if measures:
        values = 100 * measures.accuracy(sparsity)
        cell = f"{values.mean():.2f} ± {values.std():.2f}"
    if published is None or (index := _published_row(published, sparsity)) is None:
        return cell
    return f"{cell} ({published.accuracy[method][index][0]})"


def figure_4(study: Study, method: str) -> Figure | None:
    """PIEs per class for Sup (top) and SCL, a column per sparsity, as Figure 4; `method` is `gmp` or `one_shot`.

    Strong: PIEs of both training methods; light: of this one alone. None if a run is missing.
    """
    needed = [f"{kind}_{which}" for which in ("dense", method) for kind in COLOURS]
    if any(name not in study for name in needed):
        return None
    levels = sorted(set(study[f"sup_{method}"].levels) & set(study[f"scl_{method}"].levels))
    if not levels:
        return None
    pies = {
        (kind, level): study[f"{kind}_{method}"].pies(study[f"{kind}_dense"], level)
        for kind in COLOURS
        for level in levels
    }
    labels, classes = study["sup_dense"].labels, study["sup_dense"].class_names
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 2.9 * len(levels), 4.6))
        axes = figure.subplots(2, len(levels), sharex=True, sharey="col", squeeze=False)
        for row, kind in enumerate(COLOURS):
            for column, level in enumerate(levels):
                axis, found = axes[row, column], pies[kind, level]
                shared = found & pies["scl" if kind == "sup" else "sup", level]
                both = np.bincount(labels[shared], minlength=len(classes))
                alone = np.bincount(labels[found & ~shared], minlength=len(classes))
                axis.bar(range(len(classes)), both, color=COLOURS[kind], label="PIE of Sup and SCL")
                axis.bar(range(len(classes)), alone, bottom=both, color=COLOURS[kind], alpha=0.35, label="of one only")
                axis.set_title(f"{NAMES[kind]}, {100 * level:.3g}% pruned: {found.sum()} PIEs")
                axis.yaxis.get_major_locator().set_params(integer=True)
                axis.set_xticks(range(len(classes)), classes, rotation=90 if max(map(len, classes)) > 2 else 0)
            axes[row, 0].set_ylabel("PIEs [test images]")
            axes[row, 0].legend(loc="upper left", fontsize=8)
        for axis in axes[-1]:
            axis.set_xlabel("true class")
        for axis in axes.flat:
            axis.margins(y=0.3)
        return figure


def training_curves(curves: Curves, study: Study) -> Figure:
    """Training loss of every experiment by step through all its stages: mean over seeds, and range, per sparsity."""
    names = [name for name in ("sup_dense", "scl_dense", *METHODS) if name in curves and name in study]
    shades = mpl.colormaps["viridis"]
    levels = _levels(study.values())
    with mpl.rc_context(STYLE):
        columns = min(len(names), 4)
        rows = -(-len(names) // columns)
        figure = Figure(figsize=(3.1 * columns, 2.6 * rows + 0.4))
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis, name in zip(axes.flat, names, strict=False):
            for number, (stage, lines) in enumerate(itertools.groupby(curves[name], key=lambda line: line["stage"])):
                lines = list(lines)
                steps, losses = [line["step"] for line in lines], np.array([line["loss"] for line in lines])
                for level in study[name].levels:
                    chosen = losses[:, study[name].sparsities == np.float32(level)]
                    colour = shades(0.85 * levels.index(level) / max(len(levels) - 1, 1))
                    label = None if number else f"{100 * level:.3g}% pruned"
                    axis.plot(steps, chosen.mean(1), color=colour, label=label)
                    axis.fill_between(steps, chosen.min(1), chosen.max(1), color=colour, alpha=0.2, linewidth=0)
                axis.annotate(
                    STAGES[stage], (steps[0], losses[0].max()), (0, 4), textcoords="offset points", fontsize=8
                )
            axis.margins(y=0.15)
            axis.set(title=METHODS.get(name, f"{NAMES[name[:3]]}, dense"), xlabel="step")
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


def write(
    directory: Path,
    tables: Sequence[Table],
    figures: Mapping[str, tuple[Figure, str]],
    heading: str,
    notes: Sequence[str],
) -> Path:
    """Writes tables (Markdown, CSV), figures (PNG, SVG) and the page that shows them; returns the page's path.

    Args:
        directory: made if need be.
        tables: in the order of the page.
        figures: by file name, with their captions.
        heading: of the page.
        notes: paragraphs under it, for instance what could not be compared.
    """
    for part in ("tables", "figures"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    for table in tables:
        write_whole(directory / "tables" / f"{table.name}.md", table.markdown())
        write_whole(directory / "tables" / f"{table.name}.csv", table.csv())
    pictures = []
    for name, (figure, caption) in figures.items():
        with mpl.rc_context(STYLE):
            figure.savefig(directory / "figures" / f"{name}.svg", metadata={"Date": None})
            figure.savefig(directory / "figures" / f"{name}.png", dpi=150)
        data = base64.b64encode((directory / "figures" / f"{name}.png").read_bytes()).decode()
        pictures.append({"name": name, "caption": caption, "data": data})
    environment = jinja2.Environment(loader=jinja2.PackageLoader("prunejax", ""), autoescape=True)
    page = environment.get_template("report.html.j2").render(
        heading=heading, notes=notes, tables=tables, pictures=pictures
    )
    write_whole(directory / "report.html", page)
    return directory / "report.html"


def load_curves(run_dir: Path) -> list[dict]:
    """The lines of a run's `metrics.jsonl`."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
