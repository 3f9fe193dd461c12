"""A second process that measures runs while this one trains, or measures others.

Much of a measure (UMAP, k-NN's sorting, what is written in Python) keeps one core busy, and so does
compiling. The second process measures whole runs, one after the other, exactly as this one would.
It is started by `Beside`, and ends with the process that started it.
"""

import collections
import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from absl import flags
from etils import epath

from experiments import flags as cli

if TYPE_CHECKING:
    from prunejax.types import Path

FLAGS = flags.FLAGS
NICENESS = 10
"""Of the second process: training comes first."""


class Beside:
    """The runs that are to be measured, of which both processes take one after the other."""

    def __init__(self) -> None:
        """Starts nothing yet."""
        self._waiting: collections.deque[Path] = collections.deque()
        self._added: set[Path] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._feeder: threading.Thread | None = None
        self._process: subprocess.Popen[str] | None = None

    def add(self, run_dir: "Path") -> None:
        """Has a finished run measured, unless that was asked for before."""
        with self._changed:
            if run_dir in self._added:
                return
            self._added.add(run_dir)
            self._waiting.append(run_dir)
            self._changed.notify()
        if self._feeder is None and _serves():
            self._feeder = threading.Thread(target=self._feed, daemon=True)
            self._feeder.start()

    def has(self, run_dir: "Path") -> bool:
        """Whether a run was added."""
        return run_dir in self._added

    def take(self) -> "Path | None":
        """A run that the second process has not begun, to be measured here; None if none waits."""
        with self._changed:
            return self._waiting.popleft() if self._waiting else None

    def wait(self) -> None:
        """Returns when the second process has done what it had begun."""
        self._close()
        if self._feeder is not None:
            self._feeder.join()

    def _close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def stop(self) -> None:
        """Ends the second process, whatever it is about."""
        with self._changed:
            self._waiting.clear()
        self._close()
        if self._process is not None:
            self._process.kill()
        if self._feeder is not None:
            self._feeder.join()

    def _feed(self) -> None:
        """Gives the second process the next run whenever it has measured one."""
        with tempfile.TemporaryFile("w+") as errors:
            while (run_dir := self._next()) is not None:
                if self._process is None:
                    self._process = _start(errors)
                if not _measured(self._process, run_dir):
                    break
            if self._process is None:
                return
            # Closes the pipes, and waits.
            with contextlib.suppress(BrokenPipeError), self._process:
                pass
            code = self._process.returncode
            if code != 0 and not self._closed:
                errors.seek(0)
                told = (errors.read().strip().splitlines() or ["without a word"])[-1]
                print(
                    f"the process that measured beside this one ended with exit code {code} "
                    f"({told}); what it leaves is measured after training",
                    file=sys.stderr,
                )

    def _next(self) -> "Path | None":
        """The next run, awaited; None when no more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return self._waiting.popleft() if self._waiting else None


@contextlib.contextmanager
def beside() -> Iterator[Beside]:
    """A `Beside` that is stopped when the block ends."""
    measuring = Beside()
    try:
        yield measuring
    finally:
        measuring.stop()


def _serves() -> bool:
    """Whether a second process gains something: not on a GPU, which one process has to itself."""
    import jax

    from prunejax.training import hosts, machine

    return hosts.alone() and jax.default_backend() == "cpu" and machine.cores() > 1


def _start(errors: IO[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "experiments.beside", *cli.given("data_dir", "study")]
    command += [f"--set={assignment}" for assignment in FLAGS.set]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
    )


def _measured(process: subprocess.Popen[str], run_dir: "Path") -> bool:
    """Has the process measure a run; whether it still lives when that is done."""
    assert process.stdin
    assert process.stdout
    with contextlib.suppress(BrokenPipeError):
        print(run_dir, file=process.stdin, flush=True)
    return any(line == f"{run_dir}\n" for line in process.stdout)


# ----------------------------------------------------------- the second process


def main() -> None:
    """Measures the runs whose directories are read, and prints each when it is done."""
    from experiments.evaluate import measure_quietly

    os.nice(NICENESS)
    cli.study()  # whose module may add entries
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    while True:
        run_dir = requests.get()
        measure_quietly(epath.Path(run_dir))
        print(run_dir, flush=True)


def _read_requests(requests: "queue.Queue[str]") -> None:
    """Ends the process when the other one has closed the pipe, or has ended."""
    for line in sys.stdin:
        requests.put(line.rstrip("\n"))
    os._exit(0)


if __name__ == "__main__":
    EXAMPLE = "echo runs/digits/sup_dense | python -m experiments.beside"
    cli.run(main, __doc__, EXAMPLE, ("workdir", "data_dir", "study", "set", *cli.HOSTS))
