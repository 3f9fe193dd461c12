"""A command's process: its display, which decides about nothing, its signals and its exit codes.

Only the standard library is imported, so that all of it holds from the first moment.
"""

import contextlib
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TextIO

STOPPED = os.EX_TEMPFAIL
"""The exit code 75, which asks to be started again: what was done is saved."""
INTERRUPTED = 128 + signal.SIGINT
GRACE_S = 3
"""Seconds after a signal that the way out may take, which some libraries close altogether."""
PATIENCE_S = 1
"""Seconds that a display may be busy before what it is shown is dropped."""


class Interrupted(KeyboardInterrupt):
    """A signal that came where there was nothing to save."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def begin() -> None:
    """Prepares the standard streams and the signals; a second call does nothing."""
    if _state.mode is not None:
        return
    _state.mode = AT_ONCE
    _open_standard_files()
    sys.stdout = _undemanding(sys.stdout, 1)
    sys.stderr = _undemanding(sys.stderr, 2)
    sys.unraisablehook = _unraisable
    # A handler waits until the main thread comes back to Python, which a pipe does not.
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(receiving,), daemon=True).start()
    for number in _numbers():
        signal.signal(number, _on_signal)


# ------------------------------------------------------------------------- the display


def _open_standard_files() -> None:
    """Gives a purpose to those that were closed, before a checkpoint gets their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(null, True)


class _Undemanding(io.FileIO):
    """A file that takes whatever is written to it, if only to drop it.

    The reader of a pipe may go away, a disk be full, a terminal hang up.
    """

    def write(self, data: Any) -> int:  # noqa: ANN401
        while True:
            try:
                written = super().write(data)
            except OSError:
                return len(data)
            if written is not None:
                return written
            # It does not block, and is busy.
            if not select.select([], [self], [], PATIENCE_S)[1]:
                return len(data)


def _undemanding(stream: TextIO | None, number: int) -> TextIO:
    """The same stream, but what cannot be shown is dropped, and characters are replaced."""
    try:
        if stream is not None and stream.fileno() != number:
            return stream
    except (OSError, ValueError, AttributeError):  # something else took its place
        return stream  # pyright: ignore[reportReturnType]
    if stream is not None:
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Undemanding(number, "w", closefd=False)),
        encoding=getattr(stream, "encoding", "utf-8"),
        errors="backslashreplace",
        line_buffering=True,  # of what is printed nothing waits for the end
        write_through=getattr(stream, "write_through", False),
    )


def _unraisable(what: Any) -> None:  # noqa: ANN401
    """Shows what was raised where nothing can catch it, but for what is of no concern."""
    # Orbax's, when reads are cancelled after one has failed; and a signal within a callback.
    closed = str(what.exc_value) == "Event loop is closed"
    if not closed and not isinstance(what.exc_value, Interrupted):
        sys.__unraisablehook__(what)


# ------------------------------------------------------------------------- the signals

AT_ONCE, RAISES, SAVES = "at once", "raises", "saves"
"""What a signal does: it ends the process, raises `Interrupted`, or is left to `stop_signals`."""


class _State:
    mode: str | None = None
    received: int | None = None
    leaving = threading.Lock()
    """Held by the thread that ends the process."""


_state = _State()


def _numbers() -> list[int]:
    """The signals that ask to stop, but for what the caller wants to be ignored.

    `nohup` does so with SIGHUP, and a script with the SIGINT of what it starts in the background.
    """
    asking = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    return [number for number in asking if signal.getsignal(number) != signal.SIG_IGN]


def _on_signal(number: int, _: object) -> None:
    """What a signal does in the main thread; see `_watch` for the rest."""
    if _state.mode == RAISES and _state.received is None:
        _state.received = number
        raise Interrupted(number)


def _watch(pipe: int) -> None:
    """Ends the process after a signal, if need be while the main thread computes or waits."""
    asking = _numbers()
    while True:
        for number in os.read(pipe, 1):
            if number in asking and _state.mode != SAVES:
                # A second signal does not wait.
                if _state.mode == RAISES:
                    select.select([pipe], [], [], GRACE_S)
                leave(number)


def leave(number: int) -> NoReturn:
    """Ends the process, as a signal asked to, with a line and the exit code of that signal.

    That is 130 for SIGINT, and 75 for those that a batch system sends. Python's own way out would
    wait for threads, and stumbles over modules that are half imported.
    """
    with _state.leaving:
        what = "interrupted" if number == signal.SIGINT else "stopped"
        with contextlib.suppress(OSError):
            os.write(2, f"{what}; run it again to go on\n".encode())
        os._exit(INTERRUPTED if number == signal.SIGINT else STOPPED)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within the block a signal raises `Interrupted`; outside it ends the process at once.

    A library may swallow the exception, or make another of it: it is raised again at the end of
    the block, which comes within `GRACE_S` or not at all.

    Raises:
        Interrupted: if a signal has come.
    """
    _state.mode = RAISES
    try:
        yield
    except Exception:
        if _state.received is None:
            raise
    finally:
        _state.mode = AT_ONCE
    if _state.received is not None:
        raise Interrupted(_state.received)


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Gives a function that returns whether SIGTERM, SIGINT or SIGHUP has come.

    A second one ends the process at once.
    """
    received = []

    def note(number: int, _: object) -> None:
        received.append(number)
        for other in handlers:
            signal.signal(other, signal.SIG_DFL)

    before, _state.mode = _state.mode, SAVES
    handlers = {number: signal.signal(number, note) for number in _numbers()}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _state.mode = before
