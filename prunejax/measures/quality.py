"""The Q-Score of each test image's representation, and what it is made of."""

import numpy as np

from prunejax.measures.entry import MEASURES, ArraySpec, Context, Measure, ModelOutputs
from prunejax.measures.metrics import q_score


def measure_quality(outputs: ModelOutputs, context: Context) -> dict[str, np.ndarray]:
    """The scores `q`, `z` and `l1`; see `metrics.q_score`."""
    q, z, l1 = q_score(outputs.representations)
    return {"q": np.asarray(q), "z": np.asarray(z), "l1": np.asarray(l1)}


_SCORE = ArraySpec("f", ("models", "examples"), low=0)

QUALITY = MEASURES.add(
    Measure(
        name="quality",
        version=1,
        arrays={"q": _SCORE, "z": _SCORE, "l1": _SCORE},
        function=measure_quality,
        needs=frozenset({"representations"}),
    )
)
