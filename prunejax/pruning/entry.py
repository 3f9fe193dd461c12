"""What a pruner is made of: a score of each weight, and a allocation of those that go."""

from collections.abc import Callable
from typing import Any, NamedTuple

from prunejax.registry import Registry
from prunejax.types import Array, Key, Scalar, Tree

Prunable = Callable[[tuple[Any, ...], Array], bool]
"""`(path, leaf) -> bool`: whether a leaf of `params` or of `masks` may be pruned."""


class Score(NamedTuple):
    """What each weight is worth; those of the lowest scores are pruned first."""

    name: str
    function: Callable[[Tree, Tree | None, Key], Tree]
    """`(params, gradients, key) -> scores`, float32 trees with the structure of `params`; the
    gradients are None unless they are needed, and the key differs with seed and step."""
    needs_gradients: bool = False
    """Whether it needs the gradients of the step's own batch. Masks are then updated after the
    step's gradients and before its update, else before its forward pass."""


def every_target(sparsity: float) -> float:
    """Masks come as near to any target as whole weights allow."""
    return sparsity


class Allocation(NamedTuple):
    """How many weights of which leaf go."""

    name: str
    function: Callable[[Tree, Tree, Scalar, Prunable], Tree]
    """`(scores, masks, sparsity, prunable) -> masks`, which only shrink; the sparsity may be
    traced."""
    achievable: Callable[[float], float] = every_target
    """`target -> sparsity` that masks really have, for allocations that reach only some."""


SCORES: Registry[Score] = Registry("score", "prunejax.pruning")
ALLOCATIONS: Registry[Allocation] = Registry("allocation", "prunejax.pruning")
