"""What an architecture is, and the registry that its file adds it to."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
from jaxtyping import Float

from prunejax.config import Model
from prunejax.registry import Registry
from prunejax.types import Array

Representation = Float[Array, "batch dim"]
"""What an encoder makes of each image, float32: not normalised, and what the measures measure."""
Probe = Float[Array, "batch _"]
"""The features inside an encoder at one depth, float32, averaged over their positions."""


class Architecture(NamedTuple):
    """An encoder that a configuration can name.

    The module is called as `encoder(images, train=False)` with images `[batch, height, width,
    channels]` and returns the representation and a list of probes, from the first layer to the
    last. `train` makes it normalise by the batch and update its collection `batch_stats`.
    """

    name: str
    """How `model.name` refers to it, for instance `wide_resnet`."""
    make: Callable[[Model, str, str], nn.Module]
    """From the settings, the dtype to compute in and the strategy of `conv`, the encoder."""
    label: Callable[[Model], str]
    """How reports call it, for instance `WideResNet-16-2`."""
    check: Callable[[Model], None]
    """Raises a UserError for settings of which there is no such network."""


ARCHITECTURES: Registry[Architecture] = Registry("architecture", "prunejax.nn")
