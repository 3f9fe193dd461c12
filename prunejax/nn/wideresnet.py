"""The architecture of the paper: WideResNet."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
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

LAYERS_OUTSIDE = 4
"""The stem, and the three shortcuts that Zagoruyko & Komodakis count as layers."""


class WideResNet(nn.Module):
    """Pre-activation WideResNet-`depth`-`widen_factor` without its classifier.

    Source: Zagoruyko & Komodakis 2016, in the authors' variant: the shortcut convolution sees the
    activated input. Strided convolutions pad by one on both sides as in PyTorch, where XLA's 'SAME'
    would pad by (0, 1).
    """

    depth: int = 16
    widen_factor: int = 2
    dtype: str = "float32"
    conv: str = "unrolled"

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        train: bool = False,
    ) -> tuple[Representation, list[Probe]]:
        """Returns the representation and the probes.

        The probes are the stem, then of each block the inner ReLU, the second convolution and,
        where the width does not change, the residual sum.

        Args:
            images: normalised, of any size.
            train: whether to normalise by the batch and to update the running statistics.

        Returns:
            The representation `[batch, 64 * widen_factor]` and the probes `[batch, channels]`.
        """
        # The names are those of the parameters in checkpoints.
        conv = make_conv(self.dtype, self.conv)
        norm = partial(BatchNorm, train)
        x = conv(16, (3, 3), padding=1, name="stem")(images.astype(self.dtype))
        probes = [mean_over_positions(x)]
        for block in residual_blocks(self.depth, LAYERS_OUTSIDE, self.widen_factor):
            x, probes_of_block = _apply_block(x, block, conv, norm)
            probes.extend(probes_of_block)
        # The blocks end before an activation, which the last of them still needs.
        x = nn.relu(norm(name="final_norm")(x))
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
    activated = nn.relu(norm(name=f"{name}_norm0")(x))
    hidden = conv(width, (3, 3), strides, padding=1, name=f"{name}_conv0")(activated)
    hidden = nn.relu(norm(name=f"{name}_norm1")(hidden))
    probes = [mean_over_positions(hidden)]
    hidden = conv(width, (3, 3), padding=1, name=f"{name}_conv1")(hidden)
    probes.append(mean_over_positions(hidden))
    # Where the width changes there is no probe of the sum: the paper has 16 of WideResNet-16-2.
    if x.shape[-1] == width:
        x = x + hidden
        probes.append(mean_over_positions(x))
        return x, probes
    shortcut = conv(width, (1, 1), strides, padding=0, name=f"{name}_shortcut")(activated)
    return shortcut + hidden, probes


def _make(config: Model, dtype: str, conv: str) -> WideResNet:
    return WideResNet(config.depth, config.widen_factor, dtype, conv)


def _label(config: Model) -> str:
    return f"WideResNet-{config.depth}-{config.widen_factor}"


def _check(config: Model) -> None:
    check_depth("WideResNet", config.depth, LAYERS_OUTSIDE)


ARCHITECTURES.add(Architecture("wide_resnet", _make, _label, _check))
