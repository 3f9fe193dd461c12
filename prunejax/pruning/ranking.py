"""Which weights have the lowest scores, in linear time and with a traced count."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, UInt32

from prunejax.types import Array, Scalar

PART = 4096


def count_pruned(size: int, sparsity: Scalar) -> int | Int[Array, ""]:
    """How many of `size` weights a sparsity prunes: the nearest whole number, of two the even one.

    A traced sparsity is a float32, up to 3e-8 from the requested one. Its product with the
    size may round the other way only within 1e-5 of a half, or 1e-3 for 100 million weights.
    """
    if isinstance(sparsity, int | float):
        return round(sparsity * size)
    # In single precision the product would miss by whole weights where there are tens of millions.
    # So each factor is one of 12 bits and a rest, and the large product one of whole numbers.
    high, low = divmod(size, PART)
    parts = jnp.asarray(sparsity, jnp.float32) * PART
    coarse = jnp.round(parts).astype(jnp.int32)
    rest = parts - coarse.astype(jnp.float32)
    whole = coarse * high + coarse * low // PART
    further = (coarse * low % PART).astype(jnp.float32) / PART + rest * (size / PART)
    floor = jnp.floor(further)
    whole += floor.astype(jnp.int32)
    beyond = further - floor
    up = (beyond > 0.5) | ((beyond == 0.5) & (whole % 2 == 1))
    return whole + up.astype(jnp.int32)


def prune_lowest(
    scores: Float[Array, " n"], mask: Bool[Array, " n"], count: Scalar
) -> Bool[Array, " n"]:
    """`mask` less the weights of lowest score, so that `count` are pruned in all.

    What was pruned before ranks below all others; of equal scores the one of lower index goes
    first, and no number (NaN) ranks above all.

    The bit patterns of floats are ordered as the floats once the negative ones are turned round, so
    the threshold is found bit by bit, counting what lies below. Sorting 690,000 weights takes a
    hundred times as long.
    """
    ranks = jnp.where(mask, _ordered_bits(scores), jnp.uint32(0))

    def add_bit(position: Array, threshold: Array) -> Array:
        candidate = threshold | (jnp.uint32(1) << (31 - position).astype(jnp.uint32))
        return jnp.where(jnp.sum(ranks < candidate) < count, candidate, threshold)

    threshold = jax.lax.fori_loop(0, 32, add_bit, jnp.uint32(0))
    below = ranks < threshold
    tied = ranks == threshold
    tied_and_pruned = tied & (jnp.cumsum(tied) <= count - jnp.sum(below))
    return jnp.asarray(mask) & ~(below | tied_and_pruned)


def _ordered_bits(scores: Float[Array, " n"]) -> UInt32[Array, " n"]:
    """Whole numbers from 1 that are ordered as the scores."""
    # NaN has a sign, too, which differs between machines: 0/0 is negative on some.
    scores = jnp.where(jnp.isnan(scores), jnp.nan, jnp.asarray(scores, jnp.float32))
    bits = jax.lax.bitcast_convert_type(scores, jnp.uint32)
    sign = jnp.uint32(1 << 31)
    # Two's complement: -0.0 has the number of 0.0, and none has 0.
    return jnp.where(bits >= sign, ~bits + 1, bits | sign)
