"""Public names of room `methods`: the training losses."""

from prunejax.methods.losses import collapsed_supcon, cross_entropy, supcon

__all__ = ["collapsed_supcon", "cross_entropy", "supcon"]
