"""The seven experiments of the paper: Sup and SCL, pruned gradually, later, or at once."""

from prunejax.config import Experiment, Pruning

SUP_DENSE = Experiment("sup_dense")
SUP_GMP = Experiment(
    "sup_gmp",
    pruning=Pruning(schedule="sup"),
    dense_parent="sup_dense",
    label="GMP",
)
SUP_ONE_SHOT = Experiment(
    "sup_one_shot",
    pruning=Pruning(schedule=None, allocation="global"),
    dense_parent="sup_dense",
    label="One-Shot",
)
SCL_DENSE = Experiment("scl_dense", method="supcon", prune_head=False)
SCL_GMP = Experiment(
    "scl_gmp",
    method="supcon",
    pruning=Pruning(schedule="scl"),
    dense_parent="scl_dense",
    label="GMP",
    baseline="sup_gmp",
    prune_head=False,
)
SCL_DELAYED_GMP = Experiment(
    "scl_delayed_gmp",
    method="supcon",
    pruning=Pruning(schedule="scl_delayed"),
    dense_parent="scl_dense",
    label="Δ GMP",
    baseline="sup_gmp",  # delayed pruning exists for SCL only
    prune_head=False,
)
SCL_ONE_SHOT = Experiment(
    "scl_one_shot",
    method="supcon",
    pruning=Pruning(schedule=None, allocation="global"),
    dense_parent="scl_dense",
    label="One-Shot",
    baseline="sup_one_shot",
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
