"""k-NN purity: how far the representations of one class lie together."""

import numpy as np

from prunejax.config import UserError
from prunejax.measures.entry import MEASURES, ArraySpec, Column, Context, Measure, ModelOutputs
from prunejax.measures.neighbors import knn_purity


def measure_purity(outputs: ModelOutputs, context: Context) -> dict[str, np.ndarray]:
    """The `purity` of the test images' representations; see `neighbors.knn_purity`.

    Raises:
        UserError: if there are not more test images than `measure.neighbors`.
    """
    neighbors = context.settings.neighbors
    if neighbors >= len(context.test_labels):
        raise UserError(
            f"measure.neighbors is {neighbors}; "
            f"{len(context.test_labels)} test images have not that many neighbours"
        )
    purity = knn_purity(outputs.representations, context.test_labels, neighbors)
    return {"purity": np.asarray(purity)}


PURITY = MEASURES.add(
    Measure(
        name="purity",
        version=1,
        arrays={"purity": ArraySpec("f", ("models",), low=0, high=1)},
        function=measure_purity,
        needs=frozenset({"representations"}),
        models="probed",
        settings=("neighbors",),
        columns=(Column("purity", "k-NN purity [%]", scale=100, digits=1),),
    )
)
