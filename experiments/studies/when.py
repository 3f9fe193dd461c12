"""When to prune: start steps from the first step of training to its last eighth.

Sup and SCL at the paper's spans and intervals. The paper has two points of SCL's curve: GMP starts
after 0.5% of training and delayed GMP after 10%.
"""

from experiments.studies.paper import SCL_DENSE, SUP_DENSE
from prunejax.config import Experiment, Pruning, Sweep

STARTS = tuple(eighth / 8 for eighth in range(8))
"""As fractions of the first stage. Sup's span, a quarter of it, does not fit behind the last."""
SPARSITIES = (0.9,)

SUP_WHEN = Experiment(
    "sup_when",
    pruning=Pruning("sup", sparsities=SPARSITIES, shorten=True),
    dense_parent="sup_dense",
    label="GMP by start",
)
SCL_WHEN = Experiment(
    "scl_when",
    method="supcon",
    pruning=Pruning("scl", sparsities=SPARSITIES, shorten=True),
    dense_parent="scl_dense",
    label="GMP by start",
    baseline="sup_when",
    prune_head=False,
)


def when() -> list[Experiment | Sweep]:
    """Each start of SCL is compared with the same start of Sup."""
    return [SUP_DENSE, Sweep(SUP_WHEN, STARTS), SCL_DENSE, Sweep(SCL_WHEN, STARTS)]
