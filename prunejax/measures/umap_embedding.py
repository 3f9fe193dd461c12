"""UMAP: the test images' representations in two dimensions, to look at."""

import numpy as np

from prunejax.config import UserError
from prunejax.measures.entry import MEASURES, ArraySpec, Context, Measure, ModelOutputs

NEIGHBORS = 15
"""Neighbours of each image: UMAP's default."""
FEWEST = 4
"""Images of which UMAP can make a map of two dimensions: its start needs three eigenvectors."""


def measure_umap(outputs: ModelOutputs, context: Context) -> dict[str, np.ndarray]:
    """The positions `umap` of the test images, of arbitrary scale.

    Source: McInnes et al. 2018.

    Raises:
        UserError: if there are too few test images.
    """
    images = len(context.test_labels)
    if images < FEWEST:
        raise UserError(f"UMAP needs {FEWEST} test images at least; there are {images}")
    import umap  # compiles for seconds when imported

    # Few images have fewer neighbours; one thread, without which a seed does not fix the result.
    embedding = umap.UMAP(
        n_neighbors=min(NEIGHBORS, images - 1),
        random_state=context.settings.umap_seed,
        n_jobs=1,
    )
    return {"umap": np.asarray(embedding.fit_transform(outputs.representations))}


UMAP = MEASURES.add(
    Measure(
        name="umap",
        version=1,
        arrays={"umap": ArraySpec("f", ("levels", "examples", 2))},
        function=measure_umap,
        needs=frozenset({"representations"}),
        models="first",
        settings=("umap_seed",),
    )
)
