"""UMAP: the test images' representations in two dimensions, to look at."""

import numpy as np

from prunejax.measures.entry import MEASURES, ArraySpec, Context, Measure, ModelOutputs


def measure_umap(outputs: ModelOutputs, context: Context) -> dict[str, np.ndarray]:
    """The places `umap` of the test images, of arbitrary scale.

    Source: McInnes et al. 2018.
    """
    import umap  # compiles for seconds when imported

    # One thread, without which a seed does not fix the result.
    embedding = umap.UMAP(random_state=context.settings.umap_seed, n_jobs=1)
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
