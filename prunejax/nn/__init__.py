"""Package `nn`: the networks of a model, written so that populations can be vmapped over them fast.

It is open to architectures: a file here, or a custom module, that adds an `Architecture` to
`ARCHITECTURES` (see `resnet`, and `layers` for what encoders share).
"""

from prunejax.nn.entry import ARCHITECTURES, Architecture
from prunejax.nn.heads import LinearHead, ProjectionHead
from prunejax.nn.networks import make_networks
from prunejax.nn.wideresnet import WideResNet

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "LinearHead",
    "ProjectionHead",
    "WideResNet",
    "make_networks",
]
