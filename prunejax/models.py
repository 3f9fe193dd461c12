"""Linen WideResNet returning its representation and every probe, the projection head and the linear head."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from prunejax.config import Model
from prunejax.conv import convolution
from prunejax.norm import BatchNorm
from prunejax.types import Array

kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
Representation = Float[Array, "batch dim"]


class WideResNet(nn.Module):
    """Pre-activation WideResNet-`depth`-`widen_factor` without its classifier.

    Source: Zagoruyko & Komodakis 2016, in the authors' variant: the shortcut convolution sees the activated input.
    Strided convolutions pad by one on both sides as in PyTorch, where XLA's 'SAME' would pad by (0, 1).
    """

    depth: int = 16
    widen_factor: int = 2
    dtype: str = "float32"
    conv: str = "unrolled"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool = False
    ) -> tuple[Representation, list[Float[Array, "batch _"]]]:
        """Returns the representation `[batch, 64 * widen_factor]` and the probes, averaged over positions.

        The probes are the stem, then of each block the inner ReLU, the second convolution and, where the width does
        not change, the residual sum. `train` normalises by the batch and updates the running statistics.
        """
        conv = partial(
            nn.Conv,
            use_bias=False,
            kernel_init=kaiming_normal,
            dtype=self.dtype,
            conv_general_dilated=convolution(self.conv),
        )
        norm = partial(BatchNorm, train)
        probes = []

        def probe(features: Array) -> Array:
            probes.append(features.astype(jnp.float32).mean((1, 2)))
            return features

        x = probe(conv(16, (3, 3), padding=1, name="stem")(images.astype(self.dtype)))
        for group in range(3):
            for block in range((self.depth - 4) // 6):
                width = 16 * 2**group * self.widen_factor
                stride = 2 if group > 0 and block == 0 else 1
                x = self._block(x, width, stride, conv, norm, probe, f"group{group}_block{block}")
        x = nn.relu(norm(name="final_norm")(x))
        return x.astype(jnp.float32).mean((1, 2)), probes

    @staticmethod
    def _block(x: Array, width: int, stride: int, conv: Callable, norm: Callable, probe: Callable, name: str) -> Array:
        strides = (stride, stride)
        activated = nn.relu(norm(name=f"{name}_norm0")(x))
        hidden = conv(width, (3, 3), strides, padding=1, name=f"{name}_conv0")(activated)
        hidden = probe(nn.relu(norm(name=f"{name}_norm1")(hidden)))
        hidden = probe(conv(width, (3, 3), padding=1, name=f"{name}_conv1")(hidden))
        if x.shape[-1] == width:
            return probe(x + hidden)
        return conv(width, (1, 1), strides, padding=0, name=f"{name}_shortcut")(activated) + hidden


class ProjectionHead(nn.Module):
    """Two dense layers onto the unit sphere, for the contrastive loss only. Source: Khosla et al. 2020, sec. 3.1."""

    dim: int = 128

    @nn.compact
    def __call__(self, representations: Representation) -> Float[Array, "batch _"]:
        """Embeddings `[batch, dim]` of Euclidean length 1 (0 where the projection is 0)."""
        hidden = nn.relu(nn.Dense(representations.shape[-1])(representations))
        embeddings = nn.Dense(self.dim)(hidden)
        # The bound sits inside the square root, where it also keeps the gradient at zero finite.
        squared = jnp.sum(embeddings**2, axis=-1, keepdims=True)
        return embeddings / jnp.sqrt(jnp.maximum(squared, 1e-24))


class LinearHead(nn.Module):
    """The classifier on the representation."""

    num_classes: int

    @nn.compact
    def __call__(self, representations: Representation) -> Float[Array, "batch _"]:
        """Logits `[batch, num_classes]`."""
        return nn.Dense(self.num_classes)(representations)


def make_networks(config: Model, num_classes: int, dtype: str, conv: str) -> dict[str, Any]:
    """The parts of a model by the name they have in `TrainState.params`: `encoder`, `projection`, `head`."""
    return {
        "encoder": WideResNet(config.depth, config.widen_factor, dtype, conv),
        "projection": ProjectionHead(config.projection_dim),
        "head": LinearHead(num_classes),
    }
