"""The architecture that WideResNet comes from: ResNet in its form for CIFAR."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from prunejax.config import Model
from prunejax.nn.entry import ARCHITECTURES, Architecture, Probe, Representation
from prunejax.nn.layers import (
    Block,
    Features,
    check_depth,
    make_conv,
    mean_over_positions,
    residual_blocks,
)
from prunejax.nn.norm import BatchNorm
from prunejax.types import Array

LAYERS_OUTSIDE = 2
"""The stem and the classifier."""


class ResNet(nn.Module):
    """ResNet-`depth` for CIFAR without its classifier, all its widths times `widen_factor`.

    Each convolution is followed by batch normalisation and ReLU, and the shortcuts have no
    parameters (option A). Strided convolutions pad by one on both sides as in PyTorch.
    Source: He et al. 2016, sec. 4.2.
    """

    depth: int = 20
    widen_factor: int = 1
    dtype: str = "float32"
    conv: str = "unrolled"

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        train: bool = False,
    ) -> tuple[Representation, list[Probe]]:
        """Returns the representation and the probes.

        The probes are the stem after its ReLU, then of each block the inner ReLU and the output.
        The last of them is the representation.

        Args:
            images: normalised, of any size.
            train: whether to normalise by the batch and to update the running statistics.

        Returns:
            The representation `[batch, 64 * widen_factor]` and the probes `[batch, channels]`.
        """
        # The names are those of the parameters in checkpoints.
        conv = make_conv(self.dtype, self.conv)
        norm = partial(BatchNorm, train)
        width = 16 * self.widen_factor
        x = conv(width, (3, 3), padding=1, name="stem")(images.astype(self.dtype))
        x = nn.relu(norm(name="stem_norm")(x))
        probes = [mean_over_positions(x)]
        for block in residual_blocks(self.depth, LAYERS_OUTSIDE, self.widen_factor):
            x, probes_of_block = _apply_block(x, block, conv, norm)
            probes.extend(probes_of_block)
        return mean_over_positions(x), probes


def _apply_block(
    x: Features,
    block: Block,
    conv: Callable[..., nn.Conv],
    norm: Callable[..., BatchNorm],
) -> tuple[Float[Array, "batch _ _ _"], list[Probe]]:
    """The output of a residual block, and its probes."""
    name, width = block.name, block.width
    strides = (block.stride, block.stride)
    hidden = conv(width, (3, 3), strides, padding=1, name=f"{name}_conv0")(x)
    inner = nn.relu(norm(name=f"{name}_norm0")(hidden))
    hidden = conv(width, (3, 3), padding=1, name=f"{name}_conv1")(inner)
    hidden = norm(name=f"{name}_norm1")(hidden)
    # The sum is activated, unlike in WideResNet, so the next block starts with a convolution.
    output = nn.relu(_shortcut(x, block) + hidden)
    return output, [mean_over_positions(inner), mean_over_positions(output)]


def _shortcut(x: Features, block: Block) -> Float[Array, "batch _ _ _"]:
    """The input at every `stride`-th position, with channels of zeros after its own (option A)."""
    # He et al. do not say where the zeros stand; after the old channels is as in their Torch
    # reimplementation (fb.resnet.torch).
    x = x[:, :: block.stride, :: block.stride]
    new_channels = block.width - x.shape[-1]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, new_channels)))


def _make(config: Model, dtype: str, conv: str) -> ResNet:
    return ResNet(config.depth, config.widen_factor, dtype, conv)


def _label(config: Model) -> str:
    if config.widen_factor == 1:
        return f"ResNet-{config.depth}"
    return f"ResNet-{config.depth}x{config.widen_factor}"


def _check(config: Model) -> None:
    check_depth("ResNet", config.depth, LAYERS_OUTSIDE)


ARCHITECTURES.add(Architecture("resnet", _make, _label, _check))
