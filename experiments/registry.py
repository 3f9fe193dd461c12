"""The seven experiments of the paper, as data."""

from prunejax.config import Experiment

SCL = ("scl", "head")

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment("sup_dense", stages=("sup",)),
        Experiment("sup_gmp", stages=("sup",), schedule="sup"),
        Experiment("sup_one_shot", stages=("finetune",), parent="sup_dense"),
        Experiment("scl_dense", stages=SCL, prune_head=False),
        Experiment("scl_gmp", stages=SCL, schedule="scl", prune_head=False),
        Experiment("scl_delayed_gmp", stages=SCL, schedule="scl_delayed", prune_head=False),
        Experiment("scl_one_shot", stages=("finetune",), parent="scl_dense", prune_head=False),
    )
}
"""By name, each dense parent before its children."""
