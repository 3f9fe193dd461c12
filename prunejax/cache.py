"""The cache directory: what is kept between runs to save time, never results.

Decoded data sets and compiled programs each have a part of it that is bounded: what was used least
recently is deleted first.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

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
