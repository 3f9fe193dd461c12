"""The digits that come with scikit-learn: a real study in minutes, and nothing to download."""

from typing import Any

import numpy as np

from prunejax.data.dataset import Dataset
from prunejax.data.entry import SOURCES, Source

BRIGHTEST = 16
"""The value of a white pixel in scikit-learn's images."""
TEST_EXAMPLES = 389


def load_digits() -> Dataset:
    """The 1,797 8x8 digits: a fixed stratified split into 1,408 and 389."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    digits: Any = datasets.load_digits()
    images = np.rint(digits.images[..., None] * (255 / BRIGHTEST)).astype(np.uint8)
    labels = digits.target.astype(np.int32)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_EXAMPLES, stratify=labels, random_state=0
    )
    class_names = tuple("0123456789")
    return Dataset("digits", class_names, images[train], labels[train], images[test], labels[test])


def _handles(name: str) -> bool:
    return name == "digits"


def _load(name: str, data_dir: str | None) -> Dataset:
    return load_digits()


SOURCES.add(Source("digits", _handles, _load))
