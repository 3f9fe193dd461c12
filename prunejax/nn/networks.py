"""The parts of a model, from its settings."""

import flax.linen as nn

from prunejax.config import Model
from prunejax.nn.entry import ARCHITECTURES
from prunejax.nn.heads import LinearHead, ProjectionHead


def make_networks(config: Model, num_classes: int, dtype: str, conv: str) -> dict[str, nn.Module]:
    """Returns the parts of a model, by the name they have in `params` of a train state.

    Args:
        config: which encoder, and the size of the projection.
        num_classes: of the linear head.
        dtype: what the encoder computes in; the heads compute in float32.
        conv: the strategy of its convolutions, see `conv.convolution`.

    Returns:
        `encoder` (see `Architecture`), `projection` and `head`. The heads' input size is that of
        the representations they are initialised with.

    Raises:
        UserError: if there is no encoder of that name, or none of these settings.
    """
    architecture = ARCHITECTURES[config.name]
    architecture.check(config)
    return {
        "encoder": architecture.make(config, dtype, conv),
        "projection": ProjectionHead(config.projection_dim),
        "head": LinearHead(num_classes),
    }
