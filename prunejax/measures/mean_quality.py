"""Each model's mean Q-Score over the test images.

It has its own file, of a few bytes a model: seeds can be compared by it where the scores of every
image, the largest measure of a run, are not kept for all of them.
"""

import numpy as np

from prunejax.measures.entry import MEASURES, ArraySpec, Column, Context, Measure, ModelOutputs
from prunejax.measures.metrics import q_score


def measure_mean_quality(outputs: ModelOutputs, context: Context) -> dict[str, np.ndarray]:
    """The mean of `quality`'s `q`, as `mean_q`."""
    q, _, _ = q_score(outputs.representations)
    return {"mean_q": np.asarray(np.asarray(q).mean())}


MEAN_QUALITY = MEASURES.add(
    Measure(
        name="mean_quality",
        version=1,
        arrays={"mean_q": ArraySpec("f", ("models",), low=0)},
        function=measure_mean_quality,
        needs=frozenset({"representations"}),
        columns=(Column("mean_q", "Q-Score", digits=3),),
    )
)
