"""Mean and standard deviation of the channels, by which images are normalised."""

import dataclasses

import numpy as np
from jaxtyping import Float64, UInt8

from prunejax.config import Data, UserError
from prunejax.data.dataset import Dataset


def with_statistics(config: Data, dataset: Dataset) -> Data:
    """`config` with the mean and standard deviation of the training images, where it has neither.

    Args:
        config: of the data; one that has a mean or a standard deviation is returned as it is.
        dataset: what `load` made of it, so that only the images of the subset count.

    Returns:
        The settings with one mean and one standard deviation a channel, of images in [0, 1],
        rounded to four decimals.

    Raises:
        UserError: if a channel is constant, which cannot be normalised.
    """
    if config.mean is not None or config.std is not None:
        return config
    mean, std = _statistics(dataset.train_images)
    constant = np.flatnonzero(std == 0)
    if len(constant):
        raise UserError(
            f"{dataset.name}: channel {constant[0]} of the training images is constant, and "
            "cannot be normalised; leave it out, or set data.mean and data.std"
        )
    return dataclasses.replace(config, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def _statistics(
    images: UInt8[np.ndarray, "examples height width channels"],
) -> tuple[Float64[np.ndarray, " channels"], Float64[np.ndarray, " channels"]]:
    """Mean and population standard deviation of each channel in [0, 1], to four decimals.

    They are computed from a histogram: the images as floats would need eight times the memory.
    """
    channels = images.shape[-1]
    histogram = np.zeros((channels, 256), np.int64)
    for image in images:
        for channel in range(channels):
            histogram[channel] += np.bincount(image[..., channel].ravel(), minlength=256)

    brightness = np.arange(256) / 255
    pixels = histogram[0].sum()
    mean = histogram @ brightness / pixels
    deviation = brightness[None, :] - mean[:, None]
    variance = (histogram * deviation**2).sum(1) / pixels
    return mean.round(4), np.sqrt(variance).round(4)
