"""A data set loaded by its name, cut to a subset, in the size that is requested."""

import dataclasses

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from prunejax.config import Data, UserError
from prunejax.data.dataset import Dataset
from prunejax.data.entry import source_of
from prunejax.data.resize import averaged


def load(config: Data, data_dir: str | None = None) -> Dataset:
    """The data set that `config` names, cut to its subset.

    Args:
        config: the name, of which the first source of `SOURCES` that handles it loads the set, or
            else TFDS; the subset; and the images' size.
        data_dir: where TFDS sets are prepared, and where custom arrays are looked for if the
            name is no path; None is TFDS' own default.

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
    """`count` balanced examples of a split, or all of them, in the requested size.

    Raises:
        UserError: if there are fewer, or they are smaller than the requested size.
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

    # An example's rank within its class: all of rank 0 come before any of rank 1.
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))

    by_rank = np.lexsort((labels, rank))
    return np.sort(by_rank[:count])
