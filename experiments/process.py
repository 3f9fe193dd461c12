"""A command's process: signals save, and a display that breaks does not end the work."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, TextIO

STOPPED = os.EX_TEMPFAIL
"""The exit code 75, which requests to be started again: the work is saved."""


def begin() -> None:
    """Prepares the standard streams and Ctrl-C; a second call does nothing more."""
    # A standard file that is closed would give its number to the next file that is opened.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = _lossy(sys.stdout, 1)
    sys.stderr = _lossy(sys.stderr, 2)
    # The system's action, like that of the other signals: Python's would wait for a compiler.
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


class _Lossy(io.FileIO):
    """A file that drops what cannot be written: its reader is gone, or its disk is full."""

    def write(self, data: Any) -> int:  # noqa: ANN401
        with contextlib.suppress(OSError):
            return super().write(data) or len(data)
        return len(data)


def _lossy(stream: TextIO | None, number: int) -> TextIO:
    """Returns the same stream, which drops what cannot be written and escapes characters."""
    if stream is not None:
        try:
            is_own = stream.fileno() == number
        except (OSError, ValueError):
            is_own = False
        if not is_own:
            return stream  # something else took its place, as in a test
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Lossy(number, "w", closefd=False)),
        encoding=getattr(stream, "encoding", "utf-8"),
        errors="backslashreplace",
        line_buffering=True,
    )


@contextlib.contextmanager
def stop_signals() -> Iterator[Any]:
    """Yields a function that returns whether SIGTERM, SIGINT or SIGHUP was received.

    A second one ends the process at once. Signals that the caller ignores, as `nohup` does, stay
    ignored.
    """
    received = []

    def note(number: int, _: object) -> None:
        received.append(number)
        for other in before:
            signal.signal(other, signal.SIG_DFL)

    before = {}
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, note)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
