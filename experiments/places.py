"""Paths of the command line: what they mean, and whether something can be written there."""

import contextlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prunejax.config import UserError

if TYPE_CHECKING:
    from prunejax.types import Path


def expanded(what: str, path: str | None) -> str | None:
    """A path as a shell reads it: `~` and `~somebody` are home directories.

    The shell itself leaves them alone in `--workdir=~/runs`.

    Args:
        what: whose value it is, for the error.
        path: None and no path at all are left as they are.

    Raises:
        UserError: if there is no such home.
    """
    if not path or not path.startswith("~"):
        return path
    found = os.path.expanduser(path)
    if found == path:
        home = path.split("/")[0]
        raise UserError(f"{what}={path}: there is no home directory {home!r}; write ./{path}")
    return found


def require_writable(directories: Iterable["Path"]) -> None:
    """Writes and removes an empty file where each of the directories is, or would be made.

    Permissions alone do not tell: of a read-only file system, or of a server that knows better.

    Raises:
        UserError: of the first that refuses it.
    """
    for directory in directories:
        place = _existing(directory)
        probe = place / f".writable-{os.getpid()}"
        try:
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            with contextlib.suppress(OSError):
                probe.unlink()
            reason = error.strerror or error
            raise UserError(f"{directory}: cannot write there: {reason}") from None


def _existing(directory: "Path") -> "Path":
    """The directory, or the nearest one above it that is there."""
    if "://" in str(directory):  # a bucket, which needs no directories
        return directory
    place = directory.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place
