"""Calibration: whether a model is right as often as it is confident."""

import numpy as np
from jaxtyping import Float, Int

from prunejax.measures.entry import MEASURES, ArraySpec, Column, Context, Measure, ModelOutputs
from prunejax.types import Array


def expected_calibration_error(
    logits: Float[Array, "examples classes"], labels: Int[Array, " examples"], bins: int = 15
) -> float:
    """How far a model's confidence is from its accuracy, in [0, 1]; 0 is calibrated.

    With B_m the examples whose confidence, the largest softmax output, lies in (m-1, m] / bins:
    the sum over m of |B_m| / examples times |accuracy(B_m) - mean confidence(B_m)|. An empty bin
    adds nothing; of several largest logits the lowest class is the prediction.

    Source: Guo et al. 2017, eq. 3.
    """
    logits = np.asarray(logits, np.float64)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    confidence = powers.max(-1) / powers.sum(-1)
    right = logits.argmax(-1) == np.asarray(labels)

    inner_edges = np.arange(1, bins) / bins
    indices = np.digitize(confidence, inner_edges, right=True)
    # |B_m| cancels in the product: the sum is of right answers less confidence, bin by bin.
    excess = np.bincount(indices, weights=right - confidence, minlength=bins)
    return float(np.abs(excess).sum() / len(confidence))


def measure_calibration(outputs: ModelOutputs, context: Context) -> dict[str, np.ndarray]:
    """The expected calibration error `ece` of the linear head on the test images."""
    error = expected_calibration_error(outputs.logits, context.test_labels)
    return {"ece": np.asarray(error)}


CALIBRATION = MEASURES.add(
    Measure(
        name="calibration",
        version=1,
        arrays={"ece": ArraySpec("f", ("models",), low=0, high=1)},
        function=measure_calibration,
        needs=frozenset({"logits"}),
        columns=(Column("ece", "ECE [%]", scale=100),),
    )
)
