"""Random image transformations, composed by `make_augment`; users vmap them over a batch.

Each is a pure function `(key, image) -> image`. The distributions are torchvision's, which the
authors used. Source of the contrastive pipeline: Chen et al. 2020, app. A.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, UInt8

from prunejax.config import Augment, Data
from prunejax.types import Array, Key

AnyImage = Float[Array, "height width channels"] | UInt8[Array, "height width channels"]
"""What only moves pixels leaves the dtype as it is."""
Image = Float[Array, "height width channels"]
RGB = Float[Array, "height width 3"]
"""With values in [0, 1]."""
Number = Float[Array, ""]
DRAWS = 10
"""How often torchvision draws a crop before it takes the largest one in the middle."""
HUE = 3
"""The number of the hue shift among the four changes of a jitter."""
LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue. Source: ITU-R BT.601."""


def make_augment(config: Augment) -> Callable[[Key, UInt8[Array, "h w c"]], Float[Array, "h w c"]]:
    """Returns `(key, uint8 image) -> image`, a random view with values in [0, 1]."""
    steps: list[Callable[[Key, Array], Array]] = []
    if config.crop_padding:
        steps.append(partial(pad_and_crop, padding=config.crop_padding))
    if config.horizontal_flip:
        steps.append(partial(flip, axis=1))
    if config.vertical_flip:
        steps.append(partial(flip, axis=0))
    steps.append(_to_unit_range)
    if config.resized_crop_scale:
        scale, ratio = config.resized_crop_scale, config.resized_crop_ratio
        steps.append(partial(resized_crop, scale=scale, ratio=ratio))
    if config.jitter:
        strengths, probability = config.jitter, config.jitter_probability
        steps.append(partial(colour_jitter, strengths=strengths, probability=probability))
    if config.grayscale_probability:
        steps.append(partial(random_grayscale, probability=config.grayscale_probability))

    def augment(key: Key, image: Array) -> Array:
        for index, step in enumerate(steps):
            image = step(jax.random.fold_in(key, index), image)
        return image

    return augment


def _to_unit_range(key: Key, image: UInt8[Array, "height width channels"]) -> Image:
    del key
    return image.astype(jnp.float32) / 255


def normalise(images: Float[Array, "*n h w c"], config: Data) -> Float[Array, "*n h w c"]:
    """Returns `images` less the channels' means, over the channels' standard deviations.

    Args:
        images: with values in [0, 1].
        config: with a `mean` and a `std`, see `data.with_statistics`.

    Raises:
        ValueError: if they are not.
    """
    if config.mean is None or config.std is None:
        raise ValueError("data.mean and data.std are None: fill them in by data.with_statistics")
    one_per_channel = (1,) * (images.ndim - 1) + (len(config.mean),)
    mean = jnp.array(config.mean).reshape(one_per_channel)
    std = jnp.array(config.std).reshape(one_per_channel)
    return (images - mean) / std


# ------------------------------------------------------- what moves pixels


def pad_and_crop(key: Key, image: AnyImage, *, padding: int) -> AnyImage:
    """Pads with black on all sides, then cuts a window of the old size at a random position.

    Args:
        key: of this draw.
        image: of any dtype.
        padding: pixels on each side.
    """
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def flip(key: Key, image: AnyImage, *, axis: int) -> AnyImage:
    """Reverses `axis` with probability one half."""
    return jnp.where(jax.random.bernoulli(key), jnp.flip(image, axis), image)


def resized_crop(
    key: Key,
    image: Image,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Image:
    """Cuts a random box and resizes it bilinearly to the image's size.

    As in torchvision, the box is the first of ten draws that fits. If none does, it is the largest
    box of the requested ratios in the middle: the whole image, unless that is more elongated.

    Args:
        key: of this draw.
        image: of any number of channels.
        scale: the least and the largest area of the box, as fractions of the image's.
        ratio: the least and the largest width over height, of which the logarithm is uniform.
    """
    height, width, _ = image.shape
    area_key, ratio_key, top_key, left_key = jax.random.split(key, 4)

    # The sizes of all ten draws, of which the first that fits is the box.
    fraction = jax.random.uniform(area_key, (DRAWS,), minval=scale[0], maxval=scale[1])
    area = height * width * fraction
    low, high = jnp.log(ratio[0]), jnp.log(ratio[1])
    aspect = jnp.exp(jax.random.uniform(ratio_key, (DRAWS,), minval=low, maxval=high))
    heights = jnp.round(jnp.sqrt(area / aspect))
    widths = jnp.round(jnp.sqrt(area * aspect))
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    first = jnp.argmax(fits)
    largest_height, largest_width = _largest_box(height, width, ratio)
    box_height = jnp.where(fits.any(), heights[first], largest_height)
    box_width = jnp.where(fits.any(), widths[first], largest_width)

    # Its position, and the resampling, which is linear along each axis.
    top = jnp.floor(jax.random.uniform(top_key) * (height - box_height + 1))
    left = jnp.floor(jax.random.uniform(left_key) * (width - box_width + 1))
    top = jnp.where(fits.any(), top, (height - largest_height) // 2)
    left = jnp.where(fits.any(), left, (width - largest_width) // 2)
    rows = _interpolation(top, box_height, height)
    columns = _interpolation(left, box_width, width)
    return jnp.einsum("ih,hwc,jw->ijc", rows, image, columns, precision=jax.lax.Precision.HIGHEST)


def _largest_box(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the largest box in an image whose width over height is in `ratio`."""
    if width < height * ratio[0]:
        return round(width / ratio[0]), width
    if width > height * ratio[1]:
        return height, round(height * ratio[1])
    return height, width


def _interpolation(start: Number, length: Number, size: int) -> Float[Array, "size size"]:
    """The matrix that resamples `[start, start + length)` of `size` pixels linearly to `size`."""
    centres = (jnp.arange(size) + 0.5) * length / size - 0.5
    centres = start + jnp.clip(centres, 0, length - 1)
    distances = jnp.abs(centres[:, None] - jnp.arange(size)[None, :])
    return jnp.maximum(0, 1 - distances)


# ------------------------------------------------------ what changes colours


def colour_jitter(
    key: Key,
    image: RGB,
    *,
    strengths: tuple[float, float, float, float],
    probability: float,
) -> RGB:
    """With `probability`, changes brightness, contrast, saturation and hue in a random order.

    Args:
        key: of this draw.
        image: with values in [0, 1].
        strengths: of the four changes. The factor of one of the first three is uniform within 1 +-
            its strength, and not negative; the hue is shifted by up to its strength of a full turn.
        probability: of changing anything.
    """
    factor_key, hue_key, order_key, choice_key = jax.random.split(key, 4)
    blends = jnp.array(strengths[:3])
    least = jnp.maximum(0, 1 - blends)
    factors = jax.random.uniform(factor_key, (3,), minval=least, maxval=1 + blends)
    hue = jax.random.uniform(hue_key, minval=-strengths[HUE], maxval=strengths[HUE])
    order = jax.random.permutation(order_key, 4)  # the number of the change at each position

    # The hue shift is computed once, between two rounds of the three cheap blends, instead of at
    # each of its possible positions.
    hue_position, positions = jnp.argmax(order == HUE), jnp.arange(3)
    before_hue = positions < hue_position
    blends = order[jnp.where(before_hue, positions, positions + 1)]
    jittered = _blend_in_turn(image, blends, factors, before_hue)
    jittered = _blend_in_turn(_shift_hue(jittered, hue), blends, factors, ~before_hue)
    return jnp.where(jax.random.bernoulli(choice_key, probability), jittered, image)


def _blend_in_turn(
    image: RGB,
    order: Int[Array, "3"],
    factors: Float[Array, "3"],
    active: Bool[Array, "3"],
) -> RGB:
    """Makes the first three changes in this order, those of them that are `active`."""
    for position in range(3):
        kind = order[position]
        gray = _gray(image)
        # Brightness blends with black, contrast with the mean gray, saturation with the gray image.
        base = jnp.where(kind == 0, 0.0, jnp.where(kind == 1, gray.mean(), gray))
        factor = jnp.where(active[position], factors[kind], 1.0)
        image = jnp.clip(factor * image + (1 - factor) * base, 0, 1)
    return image


def _shift_hue(image: RGB, shift: Number) -> RGB:
    """Turns the hue by `shift` of a full turn, keeping HSV saturation and value."""
    largest, smallest = image.max(-1), image.min(-1)
    chroma = largest - smallest
    safe = jnp.where(chroma > 0, chroma, 1.0)  # a gray pixel has no hue, and keeps its colour

    # The hue in sixths of a turn.
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    if_red = (green - blue) / safe
    if_green = 2 + (blue - red) / safe
    if_blue = 4 + (red - green) / safe
    green_or_blue = jnp.where(largest == green, if_green, if_blue)
    sextant = jnp.where(largest == red, if_red, green_or_blue)

    # HSV to RGB in one formula:
    # channel = value - chroma * clip(min(k, 4 - k), 0, 1), k = (offset + hue) mod 6.
    offsets = jnp.array([[[5.0, 3.0, 1.0]]])
    k = sextant[..., None] + 6 * jax.lax.rem(shift, 1.0) + offsets
    # It is from -6 to below 18: cheaper than a remainder of every pixel, and as exact.
    k = jnp.where(k < 0, k + 6, jnp.where(k >= 12, k - 12, jnp.where(k >= 6, k - 6, k)))
    return largest[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)


def random_grayscale(key: Key, image: RGB, *, probability: float) -> RGB:
    """Replaces the colours by their luma with `probability`."""
    return jnp.where(jax.random.bernoulli(key, probability), _gray(image), image)


def _gray(image: RGB) -> Float[Array, "height width 1"]:
    """The luma of each pixel."""
    return jnp.sum(image * jnp.array([[LUMA]]), axis=-1, keepdims=True)
