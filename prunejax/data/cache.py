"""What is kept between runs to save time, never results: decoded data sets, compiled programs.

Both lie in the user's cache directory, each in a part of its own that is bounded: what was used
least recently goes first.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import tokenize
from collections.abc import Callable
from pathlib import Path

import numpy as np

from prunejax.data.dataset import ARRAYS, digest

MOST_BYTES = {"datasets": 8 * 2**30, "xla": 2**30}
"""What each part may grow to. CIFAR-10 takes 180 MB, and a compiled program up to 1 MB."""
DIGEST = "sha256"
"""The file of a data set that is written last, and touched when the arrays are used."""


def cache_dir() -> Path:
    """Where decoded data sets and compiled programs are kept between runs, never results.

    `$XDG_CACHE_HOME/prunejax`, or `~/.cache/prunejax`.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # By the XDG specification a relative path does not count.
    if named.is_absolute():
        return named / "prunejax"
    try:
        return Path.home() / ".cache" / "prunejax"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / f"prunejax-{os.getuid()}"


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


def trim(part: str) -> None:
    """Deletes what was used least recently, until a part of the cache is within `MOST_BYTES`.

    The newest entry stays, however large. What cannot be deleted stays, without a word.
    """
    entries = []
    for path in _entries(part):
        # Another process may delete it at the same time.
        with contextlib.suppress(OSError):
            entries.append((_last_used(path), path, _size(path)))
    entries.sort(reverse=True)
    total = 0
    for index, (_, path, size) in enumerate(entries):
        total += size
        if index > 0 and total > MOST_BYTES[part]:
            _delete(path)


def clean() -> int:
    """Empties the cache; returns how many bytes that made free.

    Programs that run meanwhile go on, and only have to decode or compile again.
    """
    freed = 0
    for part in MOST_BYTES:
        for path in _entries(part):
            with contextlib.suppress(OSError):
                size = _size(path)
                _delete(path)
                freed += 0 if path.exists() else size
    return freed


def _entries(part: str) -> list[Path]:
    """What a part holds: a directory a data set, or a file a program."""
    try:
        return sorted((cache_dir() / part).iterdir())
    except OSError:  # there is none yet
        return []


def _last_used(path: Path) -> float:
    """Seconds since 1970."""
    if path.is_dir():
        marked = path / DIGEST
        return (marked if marked.exists() else path).stat().st_mtime
    stat = path.stat()  # JAX does not mark what it reads, but most file systems do
    return max(stat.st_atime, stat.st_mtime)


def _size(path: Path) -> int:
    """Bytes of a file, or of the files in a directory."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir())
    return path.stat().st_size


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


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
