"""What the page shows beside the pointer: where test images lie in figures, and what they are."""

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
"""Test images, the first, that the page has tooltips for; more would make it too large."""
THUMBNAIL = 32
"""Pixels of its width, at most."""


def hover_data(
    study: Study, figures: Mapping[str, Figure], dataset: Dataset | None
) -> dict[str, Any]:
    """What the page's script needs.

    Args:
        study: the measures.
        figures: by name, after they were drawn.
        dataset: with the test images; None shows none.
    """
    panels = {name: _panels(figure) for name, figure in figures.items()}
    # Many panels share a cell, for instance the dense models: it is packed once.
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
    """The cells whose predictions are shown beside the points of a panel."""
    gid = axis.get_gid()
    return [] if gid is None else [(name, sparsity) for name, sparsity in json.loads(gid)]


def _key(name: str, sparsity: float) -> str:
    return f"{name} {sparsity}"


def _packed(numbers: np.ndarray | Sequence[int]) -> str:
    """Numbers below 65,536 as 16-bit little-endian integers in base64, a third of their JSON."""
    return base64.b64encode(np.asarray(numbers, "<u2").tobytes()).decode()


def _panels(figure: Figure) -> list[dict[str, Any]]:
    """Where each panel's images lie, in 1/10,000 of the figure's size from its top left corner."""
    size = np.array([figure.bbox.width, figure.bbox.height])
    panels = []
    for axis in figure.axes:
        cells = _pointed_to(axis)
        if not cells:
            continue
        places: dict[int, tuple[int, int]] = {}
        for points in axis.collections:
            # Points that another collection of the panel shows are masked or NaN in this one.
            offsets = np.ma.filled(np.ma.asarray(points.get_offsets(), float), np.nan)
            inside = axis.transData.transform(offsets) / size * 10_000
            for image, (x, y) in enumerate(inside[:MOST_IMAGES]):
                if np.isfinite(x + y):
                    places[image] = (round(x), round(10_000 - y))
        # A lone image fills its panel; points answer to a pointer near them.
        reach = round(axis.bbox.width / size[0] * 5_000) if len(places) == 1 else 0
        panels.append(
            {
                "cells": [_key(*cell) for cell in cells],
                "images": _packed(list(places)),
                "x": _packed([x for x, _ in places.values()]),
                "y": _packed([y for _, y in places.values()]),
                "reach": reach,
            }
        )
    return panels


def _predictions(study: Study, name: str, sparsity: float) -> dict[str, Any]:
    """Of a cell the modal prediction of every image, and how many models agree with it."""
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
    """The test images in one picture."""
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
        place = (index % columns * tile_width, index // columns * tile_height)
        sheet.paste(tile.resize((tile_width, tile_height)), place)
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=60)
    return {
        "sprite": base64.b64encode(buffer.getvalue()).decode(),
        "width": tile_width,
        "height": tile_height,
        "columns": columns,
    }
