"""Levels of sparsity: as they were requested, and as they are printed.

Members carry their sparsity in single precision. So levels are equal if their float32 are, and
no two different levels are printed as the same text.
"""

from collections.abc import Iterable

import numpy as np


def as_requested(level: float | np.floating) -> float:
    """The level whose float32 a model has, in the fewest digits: 0.9 for 0.8999999761581421."""
    return float(fraction(level))


def fraction(level: float | np.floating) -> str:
    """A level between 0 and 1 in the fewest digits that no other level has, for instance `0.9`."""
    return np.format_float_positional(np.float32(level), trim="-")


def percent(level: float | np.floating, levels: Iterable[float | np.floating]) -> str:
    """A level in %, in the fewest digits that none of `levels` has, nor 0% or 100%.

    At least 3 digits are looked at: `90`, `33.3`, and `99.95`, which is not 100%. Of levels in one
    table all are to be given.
    """
    shown = as_requested(level)
    others = {as_requested(other) for other in levels} | {0.0, 1.0}
    others.discard(shown)
    for digits in range(3, 9):
        text = f"{100 * shown:.{digits}g}"
        if all(text != f"{100 * other:.{digits}g}" for other in others):
            return text
    return f"{100 * shown:.9g}"  # enough for any two of float32
