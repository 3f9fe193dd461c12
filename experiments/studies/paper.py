"""The seven experiments of the paper: Sup and SCL, pruned gradually, later, or at once."""

from prunejax.config import Experiment, Pruning

SUP_DENSE = Experiment("sup_dense")
SUP_GMP = Experiment(
    "sup_gmp",
    pruning=Pruning(schedule="sup"),
    dense="sup_dense",
    label="GMP",
)
SUP_ONE_SHOT = Experiment(
    "sup_one_shot",
    pruning=Pruning(schedule=None, select="global"),
    dense="sup_dense",
    label="One-Shot",
)
SCL_DENSE = Experiment("scl_dense", method="supcon", prune_head=False)
SCL_GMP = Experiment(
    "scl_gmp",
    method="supcon",
    pruning=Pruning(schedule="scl"),
    dense="scl_dense",
    label="GMP",
    against="sup_gmp",
    prune_head=False,
)
SCL_DELAYED_GMP = Experiment(
    "scl_delayed_gmp",
    method="supcon",
    pruning=Pruning(schedule="scl_delayed"),
    dense="scl_dense",
    label="Δ GMP",
    against="sup_gmp",  # delayed pruning exists for SCL only
    prune_head=False,
)
SCL_ONE_SHOT = Experiment(
    "scl_one_shot",
    method="supcon",
    pruning=Pruning(schedule=None, select="global"),
    dense="scl_dense",
    label="One-Shot",
    against="sup_one_shot",
    prune_head=False,
)


def paper() -> list[Experiment]:
    """Corti et al., Tables 1 to 6 and Figures 1 to 7."""
    return [
        SUP_DENSE,
        SUP_GMP,
        SUP_ONE_SHOT,
        SCL_DENSE,
        SCL_GMP,
        SCL_DELAYED_GMP,
        SCL_ONE_SHOT,
    ]
