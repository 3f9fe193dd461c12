"""When to prune: the begin of pruning from the first step of training to its last eighth.

Sup and SCL at the paper's spans and intervals. The paper has two points of SCL's curve: GMP begins
after 0.5% of training and delayed GMP after 10%.
"""

from experiments.studies.paper import SCL_DENSE, SUP_DENSE
from prunejax.config import Experiment, Pruning

BEGINS = tuple(eighth / 8 for eighth in range(8))
"""As fractions of the first stage. Sup's span, a quarter of it, does not fit behind the last."""
SPARSITIES = (0.9,)

SUP_WHEN = Experiment(
    "sup_when",
    pruning=Pruning("sup", begins=BEGINS, sparsities=SPARSITIES, shorten=True),
    dense="sup_dense",
    label="GMP by begin",
)
SCL_WHEN = Experiment(
    "scl_when",
    method="supcon",
    pruning=Pruning("scl", begins=BEGINS, sparsities=SPARSITIES, shorten=True),
    dense="scl_dense",
    label="GMP by begin",
    against="sup_when",
    prune_head=False,
)


def when() -> list[Experiment]:
    """Each begin of SCL is compared with the same of Sup."""
    return [SUP_DENSE, SUP_WHEN, SCL_DENSE, SCL_WHEN]
