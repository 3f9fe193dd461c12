"""Entry: random scores, the control of every criterion."""

import jax

from prunejax.pruning.entry import SCORES, Score
from prunejax.types import Key, Tree


def score(params: Tree, gradients: Tree | None, key: Key) -> Tree:
    """Uniform numbers in [0, 1), drawn again at every update, each leaf by its own key."""
    del gradients
    leaves, structure = jax.tree.flatten(params)
    scores = []
    for index, leaf in enumerate(leaves):
        scores.append(jax.random.uniform(jax.random.fold_in(key, index), leaf.shape))
    return jax.tree.unflatten(structure, scores)


SCORES.add(Score("random", score))
