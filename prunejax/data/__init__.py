"""Room `data`: images and labels in memory, whatever they were read from.

It is open to sources (`Source`): an entry that knows which values of `data.name` are its sets, and
loads them as a `Dataset`. Built in are scikit-learn's digits, one's own arrays (`*.npz`), and for
every other name TFDS. A source is one file that calls `SOURCES.add(Source(...))`.
"""

from prunejax.data.cache import cache_dir
from prunejax.data.dataset import Dataset, balanced_subset, digest, load, with_statistics
from prunejax.data.entry import SOURCES, Source

__all__ = [
    "SOURCES",
    "Dataset",
    "Source",
    "balanced_subset",
    "cache_dir",
    "digest",
    "load",
    "with_statistics",
]
