"""The plug-in of this package: where data sets come from."""

from collections.abc import Callable
from typing import NamedTuple

from prunejax.data.dataset import Dataset
from prunejax.registry import Registry


class Source(NamedTuple):
    """Where data sets come from, and how they are loaded."""

    name: str
    """The name of the source; that of a single set has the name of the set."""
    handles: Callable[[str], bool]
    """Whether a value of `data.name` is one of its sets."""
    load: Callable[[str, str | None], Dataset]
    """Reads the set, whole, given `data.name` and the directory for data, or None. Raises UserError
    if it cannot."""
    load_averaged: Callable[[str, str | None, int], Dataset] | None = None
    """The same, given `data.image_size` too, where images are averaged as they are read, so that
    they may be of several sizes. None: those that `load` has read are."""


SOURCES: Registry[Source] = Registry("data source", "prunejax.data")
FALLBACK = "tfds"
"""The source of every set that no other source handles: what it can load, only it can say."""


def source_of(name: str) -> Source:
    """The source that loads the set `name`: the first that handles it, the fallback last."""
    for source in SOURCES.values():
        if source.name != FALLBACK and source.handles(name):
            return source
    return SOURCES[FALLBACK]


def set_names() -> list[str]:
    """The sets that sources are called after, for instance `digits`."""
    names = []
    for source in SOURCES.values():
        if source.name != FALLBACK and source.handles(source.name):
            names.append(source.name)
    return names
