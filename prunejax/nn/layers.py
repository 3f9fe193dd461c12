"""What the encoders are built of: convolutions, probes, and the groups of blocks they share."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from prunejax.config import UserError
from prunejax.nn.conv import convolution
from prunejax.types import Array

GROUPS = 3
LAYERS_PER_BLOCK = 2
KAIMING_NORMAL = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""Source: He et al. 2015, eq. 14 (of the backward pass)."""
Features = Float[Array, "batch height width channels"]


class Block(NamedTuple):
    """The position of a residual block in its network."""

    name: str
    """The prefix of its parameters' names, for instance `group1_block0`."""
    width: int
    """The channels of its output."""
    stride: int
    """The stride of its first convolution: 2 where a group halves the image, else 1."""


def make_conv(dtype: str, strategy: str) -> Callable[..., nn.Conv]:
    """Returns `(features, kernel_size, strides=1, padding=..., name=...) -> nn.Conv`.

    The convolutions have no bias and are initialised Kaiming-normal by fan-out.

    Args:
        dtype: what they compute in; their kernels are float32.
        strategy: how a population of them is computed, see `conv.convolution`.
    """
    return partial(
        nn.Conv,
        use_bias=False,
        kernel_init=KAIMING_NORMAL,
        dtype=dtype,
        conv_general_dilated=convolution(strategy),
    )


def mean_over_positions(features: Features) -> Float[Array, "batch channels"]:
    """The global average pool, in float32."""
    return features.astype(jnp.float32).mean((1, 2))


def residual_blocks(depth: int, layers_outside: int, widen_factor: int) -> list[Block]:
    """The blocks of a residual network for CIFAR, from the first to the last.

    Each of three groups has as many blocks, of two layers each, and 16, 32 or 64 times
    `widen_factor` channels; the first convolution of the second and of the third has a stride of 2.
    Source: He et al. 2016, sec. 4.2; Zagoruyko & Komodakis 2016, table 1.

    Args:
        depth: the layers of the network.
        layers_outside: how many of them are in no block.
        widen_factor: how many times wider than He et al.'s it is.
    """
    per_group = (depth - layers_outside) // (GROUPS * LAYERS_PER_BLOCK)
    blocks = []
    for group in range(GROUPS):
        for index in range(per_group):
            width = 16 * 2**group * widen_factor
            # The first group keeps the size of the image.
            halves = group > 0 and index == 0
            stride = 2 if halves else 1
            blocks.append(Block(f"group{group}_block{index}", width, stride))
    return blocks


def check_depth(network: str, depth: int, layers_outside: int) -> None:
    """Refuses a depth that `residual_blocks` cannot divide among its groups.

    Raises:
        UserError: with the first depths that there are of `network`, which is its name in prose.
    """
    step = GROUPS * LAYERS_PER_BLOCK
    in_blocks = depth - layers_outside
    if in_blocks > 0 and in_blocks % step == 0:
        return
    first = [str(layers_outside + step * per_group) for per_group in (1, 2, 3, 4)]
    raise UserError(
        f"model.depth is {depth}; a {network} has {step}n+{layers_outside} layers: "
        f"{', '.join(first)}, ..."
    )
