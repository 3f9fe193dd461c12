"""The class that each model predicts for each test image."""

import numpy as np

from prunejax.measures.entry import MEASURES, ArraySpec, Context, Measure, ModelOutputs


def measure_predictions(outputs: ModelOutputs, context: Context) -> dict[str, np.ndarray]:
    """The class of the largest logit; of several the lowest."""
    return {"predictions": outputs.logits.argmax(-1)}


PREDICTIONS = MEASURES.add(
    Measure(
        name="predictions",
        version=1,
        arrays={
            "predictions": ArraySpec("i", ("models", "examples"), low=0, high="classes"),
        },
        function=measure_predictions,
        needs=frozenset({"logits"}),
    )
)
