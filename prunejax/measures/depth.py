"""Prediction depth: the layer from which nearest-neighbour probes are right about an image."""

import numpy as np

from prunejax.config import UserError
from prunejax.measures.entry import MEASURES, ArraySpec, Column, Context, Measure, ModelOutputs
from prunejax.measures.neighbors import knn_predict, last_wrong_probe, prediction_depth


def measure_depth(outputs: ModelOutputs, context: Context) -> dict[str, np.ndarray]:
    """The prediction `depth` of each test image, from 1, counted as `measure.depth_count` says.

    Raises:
        UserError: if there are fewer training images than `measure.neighbors`.
    """
    settings = context.settings
    fitted = outputs.train_probes
    if settings.neighbors > len(context.train_labels):
        raise UserError(
            f"measure.neighbors is {settings.neighbors}; "
            f"{len(context.train_labels)} training images have not that many neighbours"
        )

    votes = []
    for fit, test in zip(fitted, outputs.probes, strict=True):
        votes.append(knn_predict(fit, context.train_labels, test, settings.neighbors))
        context.progress(1 / len(fitted))

    if settings.depth_target == "label":
        target = context.test_labels
    else:
        target = outputs.logits.argmax(-1).astype(np.int32)
    count = prediction_depth if settings.depth_count == "first_right" else last_wrong_probe
    return {"depth": np.asarray(count(np.stack(votes), target))}


DEPTH = MEASURES.add(
    Measure(
        name="depth",
        version=1,
        arrays={"depth": ArraySpec("i", ("models", "examples"), low=1, high=2**15)},
        function=measure_depth,
        needs=frozenset({"probes", "logits"}),
        models="probed",
        settings=("neighbors", "depth_target", "depth_examples", "depth_count"),
        columns=(Column("depth", "Depth"),),
    )
)
