"""Random image transformations, each pure `(key, image) -> image`, composed by `make_augment` and vmapped by users.

The distributions are torchvision's, which the authors used. Source of the contrastive pipeline: Chen et al. 2020,
app. A.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float, UInt8

from prunejax.config import Augment, Data
from prunejax.types import Array, Key

Image = Float[Array, "height width channels"]
RGB = Float[Array, "height width 3"]
Scalar = Float[Array, ""]


def make_augment(config: Augment) -> Callable[[Key, UInt8[Array, "h w c"]], Float[Array, "h w c"]]:
    """Returns `(key, uint8 image) -> image`, a random view with values in [0, 1]."""
    steps: list[Callable[[Key, Array], Array]] = []
    if config.crop_padding:
        steps.append(partial(pad_and_crop, padding=config.crop_padding))
    if config.horizontal_flip:
        steps.append(partial(flip, axis=1))
    if config.vertical_flip:
        steps.append(partial(flip, axis=0))
    steps.append(lambda key, image: image.astype(jnp.float32) / 255)
    if config.resized_crop_scale:
        steps.append(partial(resized_crop, scale=config.resized_crop_scale, ratio=config.resized_crop_ratio))
    if config.jitter:
        steps.append(partial(colour_jitter, strengths=config.jitter, probability=config.jitter_probability))
    if config.grayscale_probability:
        steps.append(partial(random_grayscale, probability=config.grayscale_probability))

    def augment(key: Key, image: Array) -> Array:
        for index, step in enumerate(steps):
            image = step(jax.random.fold_in(key, index), image)
        return image

    return augment


def normalise(images: Float[Array, "*n h w c"], config: Data) -> Float[Array, "*n h w c"]:
    """Images in [0, 1] less the channel means, over the channel standard deviations of `config`."""
    channels = [1] * (images.ndim - 1) + [len(config.mean)]
    return (images - jnp.array(config.mean).reshape(channels)) / jnp.array(config.std).reshape(channels)


def pad_and_crop(key: Key, image: Array, *, padding: int) -> Array:
    """Pads with black on all sides, then cuts a window of the original size at a uniformly random place."""
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def flip(key: Key, image: Array, *, axis: int) -> Array:
    """Reverses `axis` with probability one half."""
    return jnp.where(jax.random.bernoulli(key), jnp.flip(image, axis), image)


def resized_crop(key: Key, image: Image, *, scale: tuple[float, float], ratio: tuple[float, float]) -> Image:
    """Cuts a box of random area (a fraction in `scale`) and aspect `ratio`; resizes it bilinearly to the image's size.

    As in torchvision, the first of ten draws that fits is taken, and the whole image if none does.
    """
    height, width, _ = image.shape
    keys = jax.random.split(key, 4)
    area = height * width * jax.random.uniform(keys[0], (10,), minval=scale[0], maxval=scale[1])
    aspect = jnp.exp(jax.random.uniform(keys[1], (10,), minval=jnp.log(ratio[0]), maxval=jnp.log(ratio[1])))
    heights, widths = jnp.round(jnp.sqrt(area / aspect)), jnp.round(jnp.sqrt(area * aspect))
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    first = jnp.argmax(fits)
    box_height = jnp.where(fits.any(), heights[first], height)
    box_width = jnp.where(fits.any(), widths[first], width)
    top = jnp.floor(jax.random.uniform(keys[2]) * (height - box_height + 1))
    left = jnp.floor(jax.random.uniform(keys[3]) * (width - box_width + 1))
    rows, columns = _interpolation(top, box_height, height), _interpolation(left, box_width, width)
    return jnp.einsum("ih,hwc,jw->ijc", rows, image, columns)


def _interpolation(start: Scalar, length: Scalar, size: int) -> Float[Array, "size size"]:
    """The matrix that resamples `[start, start + length)` of `size` pixels linearly to `size` pixels."""
    centres = (jnp.arange(size) + 0.5) * length / size - 0.5
    centres = start + jnp.clip(centres, 0, length - 1)
    return jnp.maximum(0, 1 - jnp.abs(centres[:, None] - jnp.arange(size)[None, :]))


def colour_jitter(key: Key, image: RGB, *, strengths: tuple[float, float, float, float], probability: float) -> RGB:
    """With `probability`, changes brightness, contrast, saturation and hue by random amounts in a random order.

    The hue shift is computed once, between two rounds of the three cheap blends, instead of at each possible place.
    """
    keys = jax.random.split(key, 4)
    blends = jnp.array(strengths[:3])
    factors = jax.random.uniform(keys[0], (3,), minval=jnp.maximum(0, 1 - blends), maxval=1 + blends)
    hue = jax.random.uniform(keys[1], minval=-strengths[3], maxval=strengths[3])
    order = jax.random.permutation(keys[2], 4)  # kind at each place; 3 is hue
    before_hue = jnp.arange(4) < jnp.argmax(order == 3)
    jittered = _blend_in_turn(image, order, factors, before_hue)
    jittered = _blend_in_turn(_shift_hue(jittered, hue), order, factors, ~before_hue)
    return jnp.where(jax.random.bernoulli(keys[3], probability), jittered, image)


def _blend_in_turn(image: RGB, order: Array, factors: Float[Array, "3"], active: Array) -> RGB:
    for place in range(4):
        kind = order[place]
        gray = _gray(image)
        base = jnp.where(kind == 0, 0.0, jnp.where(kind == 1, gray.mean(), gray))  # black, mean gray, gray
        factor = jnp.where(active[place] & (kind < 3), factors[jnp.minimum(kind, 2)], 1.0)
        image = jnp.clip(factor * image + (1 - factor) * base, 0, 1)
    return image


def _shift_hue(image: RGB, shift: Scalar) -> RGB:
    """Turns the hue by `shift` of a full turn, keeping HSV saturation and value."""
    largest, smallest = image.max(-1), image.min(-1)
    chroma = largest - smallest
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    safe = jnp.where(chroma > 0, chroma, 1.0)
    sextant = jnp.where(
        largest == red,
        (green - blue) / safe,
        jnp.where(largest == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    # HSV to RGB in one formula: channel = value - chroma * clip(min(k, 4 - k), 0, 1), k = (offset + hue) mod 6.
    k = jnp.mod(sextant[..., None] + 6 * shift + jnp.array([[[5.0, 3.0, 1.0]]]), 6)
    return largest[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)


def random_grayscale(key: Key, image: RGB, *, probability: float) -> RGB:
    """Replaces the colours by their luma with `probability`."""
    return jnp.where(jax.random.bernoulli(key, probability), _gray(image), image)


def _gray(image: RGB) -> Float[Array, "height width 1"]:
    """ITU-R 601 luma."""
    return jnp.sum(image * jnp.array([[[0.299, 0.587, 0.114]]]), axis=-1, keepdims=True)
