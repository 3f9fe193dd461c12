"""A data set as uint8 arrays in memory."""

import dataclasses
import functools
import hashlib

import numpy as np

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
        """The digest of every array and of the class names, different for different data sets."""
        arrays = [getattr(self, name) for name in ARRAYS]
        return digest(*arrays, np.array(self.class_names))


def digest(*arrays: np.ndarray) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over the arrays' shapes, dtypes and bytes."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(repr((array.shape, array.dtype.str)).encode())
        sha.update(np.ascontiguousarray(array).view(np.uint8).data)
    return sha.hexdigest()[:16]
