"""A study's tables and figures -> files, and one self-contained HTML page."""

import base64
import io
import json
from collections.abc import Sequence
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from prunejax import figures, tables, uncertainty
from prunejax.config import Config, UserError
from prunejax.data import Dataset
from prunejax.evaluate import Measures
from prunejax.rundir import write_whole
from prunejax.tables import Published, Study, Table
from prunejax.types import Path

TOOLTIPS = 10_000
"""Test images at most, the first, that the page has tooltips for; more would make it too large."""


def write(
    directory: Path,
    study: Study,
    config: Config,
    source: str,
    curves: figures.Curves,
    notes: Sequence[str] = (),
    published: Published | None = None,
    dataset: Dataset | None = None,
) -> Path:
    """Writes tables (CSV, Markdown, LaTeX), figures (PNG, SVG) and the page that shows them; returns the page's path.

    Args:
        directory: made if need be.
        study: the measures of each experiment, all of the same test images.
        config: that they share.
        source: what every caption ends with, for instance models, preset and commit.
        curves: the training curves.
        notes: for instance which runs are not shown, and why.
        published: the paper's numbers, if they are for this data.
        dataset: the images, for the gallery and the tooltips; None leaves these out.
    """
    for part in ("tables", "figures"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    all_tables = make_tables(study, config, published)
    for table in all_tables:
        for suffix, text in (("md", table.markdown()), ("csv", table.csv()), ("tex", table.latex())):
            write_whole(directory / "tables" / f"{table.name}.{suffix}", text)
    pictures, panels = [], {}
    for name, (figure, title, alt) in make_figures(study, curves, dataset).items():
        png = _save(figure, directory / "figures" / name)
        data, width = base64.b64encode(png).decode(), round(100 * figure.get_figwidth())
        pictures.append({"name": name, "title": title, "alt": alt, "data": data, "width": width})
        panels[name] = _panels(figure)
    environment = jinja2.Environment(loader=jinja2.PackageLoader("prunejax", ""), autoescape=True)
    page = environment.get_template("report.html.j2").render(
        answer=uncertainty.answer(all_tables[0]),
        about=about(study, config),
        source=source,
        notes=notes,
        tables=all_tables,
        pictures=pictures,
        hover={"panels": panels, **_predictions(study), **(_thumbnails(dataset) if dataset else {"sprite": None})},
    )
    write_whole(directory / "report.html", page)
    return directory / "report.html"


def make_tables(study: Study, config: Config, published: Published | None = None) -> list[Table]:
    """Every table, in the order of the page; the first answers the study's question."""
    papers = (tables.table_1, tables.table_3, tables.table_4, tables.table_5, tables.table_6)
    lacking = (uncertainty.intervals, uncertainty.overlap, uncertainty.recall_change)
    one, *others = (make(study, published) for make in papers)
    second = tables.table_2(config, published)
    asked = [uncertainty.comparison(study), uncertainty.findings(study, published)]
    return [*asked, one, second, *others, *(make(study) for make in lacking)]


def make_figures(
    study: Study, curves: figures.Curves, dataset: Dataset | None = None
) -> dict[str, tuple[Figure, str, str]]:
    """Every figure with its title and a text for who cannot see it, by file name; no gallery without the images."""
    near, most = (f"{100 * level:.3g}%" for level in (tables.headline(study), max(tables.levels(study))))
    count = next(iter(study.values())).measure.neighbors
    both = near if near == most else f"{near} and {most}"
    panel = "One panel per method"
    made = {
        "figure_1": (
            figures.figure_1(study),
            f"Figure 1. UMAP of one model's representations of the test images: dense and {most} pruned, coloured by "
            f"modal prediction. Purity: how many of an image's {count} nearest neighbours share its label (model mean)",
            "Scatter plots of test images in two dimensions; rows Sup and SCL, columns dense, GMP and One-Shot.",
        ),
        "figure_2": (
            figures.figure_2(study),
            f"Figure 2. Q-Score of each test image, mean over models: dense and {near} pruned; r is Pearson's",
            f"{panel}: dense Q-Score on x, pruned on y, a point per test image, PIEs marked, with the identity line.",
        ),
        "figure_3": (
            figures.figure_3(study),
            f"Figure 3. Prediction depth of each test image, mean over probed models: dense and {near} pruned; points "
            "are spread by up to a tenth of a layer",
            f"{panel}: dense depth on x, pruned on y, a point per test image, PIEs marked, with the identity line.",
        ),
        "figure_4": (
            figures.figure_4(study),
            "Figure 4. PIEs per class under One-Shot pruning",
            "Bar charts of PIEs by true class, rows Sup and SCL, columns sparsities; strong colour for PIEs of both.",
        ),
        "figure_5": (
            figures.figure_5(study),
            f"Figure 5. UMAP by method: dense, {both} pruned, coloured by modal prediction",
            "Scatter plots of test images in two dimensions; rows sparsities, columns methods.",
        ),
        "figure_7": (
            figures.figure_7(study),
            "Figure 7. PIEs per class at every sparsity",
            "Bar charts of PIEs by true class, rows sparsities, columns methods; strong colour for PIEs of both.",
        ),
        "training_curves": (
            figures.training_curves(study, curves),
            "Training loss: mean and range over seeds",
            "Line charts of the loss by step, one panel per experiment, one line per sparsity.",
        ),
    }
    if dataset is not None:
        made["figure_6"] = (
            figures.figure_6(study, dataset.test_images),
            f"Figure 6. PIEs at {near} on which most models agree: the label, the modal prediction of the dense models "
            "(U) and of the pruned ones (S), and how many models agree with it",
            "A gallery of test images, one row per method, with their labels and predictions.",
        )
    return dict(sorted(made.items()))


def about(study: Study, config: Config) -> str:
    """What was trained and measured, in a few lines."""
    run = next(iter(study.values()))
    probes = run.measure
    trained, fitted = (
        "all" if count is None else f"{count:,}" for count in (config.data.train_examples, probes.depth_examples)
    )
    return (
        f"WideResNet-{config.model.depth}-{config.model.widen_factor} trained on {trained} training images of "
        f"{config.data.name} and measured on {len(run.labels):,} test images, {config.models} seeds a cell. Prediction "
        f"depth: the first layer from which {probes.neighbors}-NN probes, fitted on {fitted} training images, all give "
        f"the {probes.depth_target}, over {probes.probe_models} models a cell at most."
    )


def _save(figure: Figure, path: Path) -> bytes:
    drawn = {}
    for form, metadata in (("svg", {"Date": None}), ("png", None)):
        buffer = io.BytesIO()
        with mpl.rc_context(figures.STYLE):
            figure.savefig(buffer, format=form, metadata=metadata, dpi=150)
        drawn[form] = buffer.getvalue()
        path.with_suffix(f".{form}").write_bytes(drawn[form])
    return drawn["png"]


def _key(method: str, sparsity: float) -> str:
    return f"{method} {sparsity:g}"


def _packed(numbers: np.ndarray | Sequence[int]) -> str:
    """Numbers below 65,536 as 16-bit little-endian integers, in base64: a third of their size in JSON."""
    return base64.b64encode(np.asarray(numbers, "<u2").tobytes()).decode()


def _panels(figure: Figure) -> list[dict[str, Any]]:
    """Where each panel's test images lie, in 1/10,000 of the figure's width and height from its top left corner."""
    panels = []
    size = np.array([figure.bbox.width, figure.bbox.height])
    for axis in figure.axes:
        if (gid := axis.get_gid()) is None:
            continue
        places: dict[int, tuple[int, int]] = {}
        for points in axis.collections:
            offsets = np.ma.filled(np.ma.asarray(points.get_offsets(), float), np.nan)
            inside = axis.transData.transform(offsets) / size * 10_000
            shown = enumerate(inside[:TOOLTIPS])
            places |= {i: (round(x), round(10_000 - y)) for i, (x, y) in shown if np.isfinite(x + y)}
        panels.append(
            {
                "cells": [_key(*cell) for cell in json.loads(gid)],
                "images": _packed(list(places)),
                "x": _packed([x for x, _ in places.values()]),
                "y": _packed([y for _, y in places.values()]),
                # A lone image fills its panel; points answer to a pointer near them.
                "reach": round(axis.bbox.width / size[0] * 5_000) if len(places) == 1 else 0,
            }
        )
    return panels


def _predictions(study: Study) -> dict[str, Any]:
    """What the tooltips say: of each cell the modal prediction of every image, and how many models agree with it."""
    run = next(iter(study.values()))
    cells = {}
    for name, measures in study.items():
        for level in measures.levels:
            models: Measures = measures.at(level)
            title = tables.cell_title(name if level else f"{name[:3]}_gmp", level)
            modes, agree = (_packed(x[:TOOLTIPS]) for x in (models.modal_class, figures.agreement(models)))
            cells[_key(name, level)] = {"title": title, "models": len(models.seeds), "modes": modes, "agree": agree}
    return {"cells": cells, "labels": _packed(run.labels[:TOOLTIPS]), "names": run.class_names.tolist()}


def _thumbnails(dataset: Dataset) -> dict[str, Any]:
    """The test images in one picture, at most 32 pixels wide each."""
    images = dataset.test_images[:TOOLTIPS]
    height, width = images.shape[1:3]
    scale = min(1.0, 32 / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    columns = int(np.ceil(np.sqrt(len(images))))
    sheet = Image.new("RGB", (columns * size[0], -(-len(images) // columns) * size[1]))
    for index, image in enumerate(images):
        tile = Image.fromarray(image.squeeze() if image.shape[-1] == 1 else image)
        sheet.paste(tile.resize(size), (index % columns * size[0], index // columns * size[1]))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=60)
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"sprite": data, "width": size[0], "height": size[1], "columns": columns}


def load_curves(run_dir: Path, models: int) -> list[dict]:
    """The lines of a run's `metrics.jsonl`, which hold the losses of so many models.

    Raises:
        UserError: if it is missing or damaged.
    """
    path = run_dir / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            line |= {"step": int(line["step"]), "loss": np.array(line["loss"], float)}  # a frozen model's null is NaN
        if any(line["stage"] not in figures.STAGES or line["loss"].shape != (models,) for line in lines):
            raise ValueError(f"a line that is not of {models} models")
        return lines
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no readable training curve ({type(error).__name__}: {error})") from None
