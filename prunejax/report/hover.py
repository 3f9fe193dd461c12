"""The tooltips of the page: the positions of test images in figures, and their predictions."""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from prunejax.data import Dataset
from prunejax.report.figures.gallery import agreement, as_picture
from prunejax.report.study import Study, at, cell_title

MOST_IMAGES = 10_000
"""The number of first test images that have tooltips; more would make the page too large."""
THUMBNAIL = 32
"""The most pixels of a thumbnail's width."""


def hover_data(
    study: Study, figures: Mapping[str, Figure], dataset: Dataset | None
) -> dict[str, Any]:
    """The data of the page's script.

    Args:
        study: the measures.
        figures: the figures by name, after they were drawn.
        dataset: the test images; None shows no images.
    """
    panels = {name: _panels(figure) for name, figure in figures.items()}
    # Many panels share a cell, for instance that of the dense models: it is packed once.
    cells = {}
    for figure in figures.values():
        for axis in figure.axes:
            for name, sparsity in _pointed_to(axis):
                key = _key(name, sparsity)
                if key not in cells:
                    cells[key] = _predictions(study, name, sparsity)
    run = next(iter(study.values()))
    thumbnails = _thumbnails(dataset) if dataset is not None else {"sprite": None}
    return {
        "panels": panels,
        "cells": cells,
        "labels": _packed(run.labels[:MOST_IMAGES]),
        "names": list(run.class_names),
        **thumbnails,
    }


def _pointed_to(axis: Axes) -> list[tuple[str, float]]:
    """The cells with predictions that are shown at the points of a panel."""
    gid = axis.get_gid()
    return [] if gid is None else [(name, sparsity) for name, sparsity in json.loads(gid)]


def _key(name: str, sparsity: float) -> str:
    return f"{name} {sparsity}"


def _packed(numbers: np.ndarray | Sequence[int]) -> str:
    """Numbers below 65,536 as 16-bit little-endian integers in base64, a third of their JSON."""
    return base64.b64encode(np.asarray(numbers, "<u2").tobytes()).decode()


def _panels(figure: Figure) -> list[dict[str, Any]]:
    """The positions of each panel's images, in 1/10,000 of the figure's size from the top left."""
    size = np.array([figure.bbox.width, figure.bbox.height])
    panels = []
    for axis in figure.axes:
        cells = _pointed_to(axis)
        if not cells:
            continue
        positions: dict[int, tuple[int, int]] = {}
        for points in axis.collections:
            # Points that another collection of the panel shows are masked or NaN in this one.
            offsets = np.ma.filled(np.ma.asarray(points.get_offsets(), float), np.nan)
            inside = axis.transData.transform(offsets) / size * 10_000
            for image, (x, y) in enumerate(inside[:MOST_IMAGES]):
                if np.isfinite(x + y):
                    positions[image] = (round(x), round(10_000 - y))
        # A single image fills its panel; a point reacts to a pointer near it.
        reach = round(axis.bbox.width / size[0] * 5_000) if len(positions) == 1 else 0
        panels.append(
            {
                "cells": [_key(*cell) for cell in cells],
                "images": _packed(list(positions)),
                "x": _packed([x for x, _ in positions.values()]),
                "y": _packed([y for _, y in positions.values()]),
                "reach": reach,
            }
        )
    return panels


def _predictions(study: Study, name: str, sparsity: float) -> dict[str, Any]:
    """The modal prediction of every image by a cell, and how many of its models agree with it."""
    models = at(study, name, sparsity)
    if models is None:
        raise ValueError(f"a figure shows {name} at {sparsity}, which has no models")
    return {
        "title": cell_title(study, name, sparsity),
        "models": len(models.seeds),
        "modes": _packed(models.modal_class[:MOST_IMAGES]),
        "agree": _packed(agreement(models)[:MOST_IMAGES]),
    }


def _thumbnails(dataset: Dataset) -> dict[str, Any]:
    """The test images in one sprite."""
    images = dataset.test_images[:MOST_IMAGES]
    height, width = images.shape[1:3]
    # One sprite is smaller, and quicker to load, than thousands of small images.
    scale = min(1.0, THUMBNAIL / width)
    tile_width = max(1, round(width * scale))
    tile_height = max(1, round(height * scale))
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * tile_width, rows * tile_height))
    for index, image in enumerate(images):
        tile = Image.fromarray(as_picture(image))
        position = (index % columns * tile_width, index // columns * tile_height)
        sheet.paste(tile.resize((tile_width, tile_height)), position)
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=60)
    return {
        "sprite": base64.b64encode(buffer.getvalue()).decode(),
        "width": tile_width,
        "height": tile_height,
        "columns": columns,
    }
