"""What stands on an encoder's representation: a projection for SupCon, or the classifier."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from prunejax.nn.entry import Representation
from prunejax.types import Array


class ProjectionHead(nn.Module):
    """Two dense layers onto the unit sphere, for the contrastive loss only.

    Source: Khosla et al. 2020, sec. 3.1.
    """

    dim: int = 128

    @nn.compact
    def __call__(self, representations: Representation) -> Float[Array, "batch _"]:
        """Returns embeddings `[batch, dim]` of Euclidean length 1, or 0 where the projection is."""
        hidden = nn.relu(_exact_dense(representations.shape[-1])(representations))
        embeddings = _exact_dense(self.dim)(hidden)
        # The bound sits inside the square root, where it also keeps the gradient at zero finite.
        squared = jnp.sum(embeddings**2, axis=-1, keepdims=True)
        return embeddings / jnp.sqrt(jnp.maximum(squared, 1e-24))


class LinearHead(nn.Module):
    """The classifier on the representation."""

    num_classes: int

    @nn.compact
    def __call__(self, representations: Representation) -> Float[Array, "batch _"]:
        """Returns logits `[batch, num_classes]`."""
        return _exact_dense(self.num_classes)(representations)


def _exact_dense(features: int) -> nn.Dense:
    # The default precision of accelerators would cost a float32 half its digits, to save nothing.
    return nn.Dense(features, precision=jax.lax.Precision.HIGHEST)
