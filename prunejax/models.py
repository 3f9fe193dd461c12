"""Public names of room `nn`: the paper's networks."""

from prunejax.nn.heads import LinearHead, ProjectionHead
from prunejax.nn.wideresnet import WideResNet

__all__ = ["LinearHead", "ProjectionHead", "WideResNet"]
