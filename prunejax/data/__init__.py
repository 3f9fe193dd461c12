"""Package `data`: images and labels in memory, whatever they were read from.

It is open to sources (`Source`): a plug-in that knows which values of `data.name` are its sets, and
loads them as a `Dataset`. Built in are scikit-learn's digits, custom arrays (`*.npz`), and for
every other name TFDS. A source is one file that calls `SOURCES.add(Source(...))`.
"""

from prunejax.data.channels import with_statistics
from prunejax.data.dataset import Dataset, digest
from prunejax.data.entry import SOURCES, Source
from prunejax.data.loading import balanced_subset, load

__all__ = [
    "SOURCES",
    "Dataset",
    "Source",
    "balanced_subset",
    "digest",
    "load",
    "with_statistics",
]
