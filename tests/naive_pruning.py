"""A small tree of weights, and masks and schedules the slow way, for the tests of pruning."""

from collections.abc import Iterator

import jax
import numpy as np

KERNELS = ("stem", "conv")
"""The convolutions of `tree`."""


def tree(seed=0):
    """Normal weights, in the structure of a model's params."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        "encoder": {
            "stem": {"kernel": normal(3, 3, 3, 16)},
            "conv": {"kernel": normal(3, 3, 16, 8)},
            "norm": {"scale": np.ones(8, np.float32), "bias": np.zeros(8, np.float32)},
        },
        "head": {"Dense_0": {"kernel": normal(8, 10), "bias": np.zeros(10, np.float32)}},
    }


def naive_masks(scores, mask, sparsity):
    """Sorts the scores stably, behind what is pruned already, and prunes the first ones."""
    order = np.lexsort((np.ravel(scores), np.ravel(mask)))
    kept = mask.copy()
    kept.flat[order[: round(sparsity * scores.size)]] = False
    return kept


def naive_updates(begin, end, every, final, at_multiples=False, power=3):
    """`{step: sparsity}` of all mask updates, step by step.

    With `at_multiples` the targets are those of begin, begin + every, ..., one at each multiple.
    """
    updates = {}
    scheduled = begin
    for step in range(begin, end + 1):
        if at_multiples:
            due = step % every == 0
        else:
            due = (step - begin) % every == 0 or step == end
            scheduled = step
        if due:
            progress = (scheduled - begin) / (end - begin)
            updates[step] = final * (1 - (1 - progress) ** power)
            scheduled += every
    return updates


def assert_only_shrunk(masks, before):
    """No weight that was pruned is back."""
    for new, old in zip(jax.tree.leaves(masks), jax.tree.leaves(before), strict=True):
        assert np.all(np.asarray(old) | ~np.asarray(new))


def assert_equal_trees(ours, theirs):
    """Leaf by leaf, digit for digit."""
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def equations(jaxpr) -> Iterator:
    """All equations of a program, those of its loops, calls and branches too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner_programs = value if isinstance(value, list | tuple) else [value]
            for inner in inner_programs:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def equations_in_branches(jaxpr) -> Iterator:
    """Those that are computed only if a condition holds."""
    for equation in equations(jaxpr):
        if equation.primitive.name == "cond":
            for branch in equation.params["branches"]:
                yield from equations(branch.jaxpr)
