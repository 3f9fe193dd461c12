"""What do labels in the contrastive loss change? SimCLR with SCL and Sup, dense and by GMP."""

from dataclasses import replace

from experiments.studies.paper import SCL_DENSE, SCL_GMP, SUP_DENSE, SUP_GMP
from prunejax.config import Experiment


def simclr() -> list[Experiment]:
    """SimCLR sees the batches and views of SCL; the two differ in the labels alone."""
    return [
        SUP_DENSE,
        SUP_GMP,
        SCL_DENSE,
        SCL_GMP,
        replace(SCL_DENSE, name="simclr_dense", method="simclr"),
        replace(
            SCL_GMP,
            name="simclr_gmp",
            method="simclr",
            dense_parent="simclr_dense",
            baseline="scl_gmp",
        ),
    ]
