"""A data set as uint8 arrays in memory: loaded by name, cut to a subset, its statistics."""

import dataclasses
import functools
import hashlib

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8

from prunejax.config import Data, UserError
from prunejax.data.entry import source_of
from prunejax.data.resize import averaged

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
"""The fields of a `Dataset` that hold arrays."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images `[examples, height, width, channels]` uint8 with labels `[examples]` int32."""

    name: str
    class_names: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels)."""
        return self.train_images.shape[1:]

    @property
    def num_classes(self) -> int:
        """The number of classes, whether or not each occurs."""
        return len(self.class_names)

    @property
    def shapes(self) -> tuple[tuple[int, ...], int]:
        """(image_shape, num_classes), what a network needs to know."""
        return self.image_shape, self.num_classes

    @functools.cached_property
    def checksum(self) -> str:
        """Tells two data sets apart: the digest of every array and of the class names."""
        arrays = [getattr(self, name) for name in ARRAYS]
        return digest(*arrays, np.array(self.class_names))


def load(config: Data, data_dir: str | None = None) -> Dataset:
    """The data set that `config` names, cut to its subset.

    Args:
        config: the name, of which the first source of `SOURCES` that handles it loads the set, or
            else TFDS; the subset; and the images' size.
        data_dir: where TFDS sets are prepared, and where one's own arrays are looked for if the
            name leads nowhere; None is TFDS' own default.

    Raises:
        UserError: if it is not there, not prepared, or no image classification.
    """
    source = source_of(config.name)
    if config.image_size is not None and source.load_averaged is not None:
        full = source.load_averaged(config.name, data_dir, config.image_size)
    else:
        full = source.load(config.name, data_dir)
    train_images, train_labels = _subset(
        full.train_images, full.train_labels, config, "train", config.train_examples
    )
    test_images, test_labels = _subset(
        full.test_images, full.test_labels, config, "test", config.test_examples
    )
    return dataclasses.replace(
        full,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )


def _subset(
    images: UInt8[np.ndarray, "examples height width channels"],
    labels: Int32[np.ndarray, " examples"],
    config: Data,
    split: str,
    count: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """`count` balanced examples of a split, or all of them, in the size that is wanted.

    Raises:
        UserError: if there are not so many, or they are smaller than that.
    """
    if count is not None and count > len(labels):
        raise UserError(
            f"data.{split}_examples is {count}, but {config.name} has {len(labels)} there"
        )
    if count is not None:
        chosen = balanced_subset(labels, count, config.subset_seed)
        images, labels = images[chosen], labels[chosen]
    size = config.image_size
    if size is not None and images.shape[1:3] != (size, size):
        images = np.stack([averaged(image, size) for image in images])
    return images, labels


def balanced_subset(
    labels: Int32[np.ndarray, " examples"], count: int, seed: int
) -> Int64[np.ndarray, " count"]:
    """A random subset whose class counts differ by at most one where the data allow it.

    Args:
        labels: of all examples.
        count: of examples in the subset.
        seed: of the subset; the same subset for the same labels, count and seed.

    Returns:
        Indices of the examples, ascending.
    """
    order = np.random.default_rng(seed).permutation(len(labels))

    # An example's rank within its class: all of rank 0 are taken before any of rank 1.
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))

    by_rank = np.lexsort((labels, rank))
    return np.sort(by_rank[:count])


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

    They are taken from a histogram: the images as floats would need eight times their memory.
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


def digest(*arrays: np.ndarray) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over the arrays' shapes, dtypes and bytes."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(repr((array.shape, array.dtype.str)).encode())
        sha.update(np.ascontiguousarray(array).view(np.uint8).data)
    return sha.hexdigest()[:16]
