"""Convolutions of many models that were measured to be slower; importing this adds them."""

from jax import lax

from prunejax.nn.conv import STRATEGIES, im2col

STRATEGIES["grouped"] = lax.conv_general_dilated
STRATEGIES["im2col"] = im2col
