"""Decoded data sets, kept in the cache directory."""

import contextlib
import hashlib
import json
import os
import tokenize
from collections.abc import Callable
from pathlib import Path

import numpy as np

from prunejax.cache import DIGEST, cache_dir, trim
from prunejax.data.dataset import ARRAYS, digest


def cached(
    name: str, source: Path, decode: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays of a data set, from the user's cache if they are there unharmed.

    Args:
        name: of the data set.
        source: the directory it is decoded from; if a file in it changes, it is decoded again.
        decode: reads the arrays, by the names of `Dataset`'s fields, which takes seconds.
    """
    path = cache_dir() / "datasets" / f"{name}-{_key(source)}"
    arrays = _read(path)
    if arrays is None:
        arrays = decode()
        # A full or read-only home costs time at the next start, nothing else.
        with contextlib.suppress(OSError):
            _write(path, arrays)
        trim("datasets")
    return arrays


def _key(source: Path) -> str:
    """A digest of the directory's path and of its files' names, sizes and times."""
    files = []
    for path in source.iterdir():
        stat = path.stat()
        files.append((path.name, stat.st_size, stat.st_mtime_ns))
    text = json.dumps([str(source), sorted(files)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays that `_write` wrote, or None if they are absent or damaged."""
    damage = (OSError, ValueError, EOFError, MemoryError, tokenize.TokenError)
    with contextlib.suppress(*damage):
        arrays = {}
        for name in ARRAYS:
            arrays[name] = np.load(path / f"{name}.npy", allow_pickle=False)
        if (path / DIGEST).read_text() != digest(*arrays.values()):
            return None
        with contextlib.suppress(OSError):  # of a cache that may only be read
            os.utime(path / DIGEST)
        return arrays
    return None


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name in ARRAYS:
        np.save(path / f"{name}.npy", arrays[name])
    # Last, so that arrays half written have no digest that matches.
    (path / DIGEST).write_text(digest(*[arrays[name] for name in ARRAYS]))
