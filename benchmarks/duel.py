"""Contestants in separate processes, which run rounds in turns.

So a slow minute of a shared machine hits all of them equally.
"""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import IO

from benchmarks.spec import Spec

NOT_INHERITED = "GLIBC_TUNABLES"
"""What ./launch.sh sets in this process, and a contestant must ask for."""
LONGEST_MESSAGE = 120


@dataclass
class Contestant:
    """One or more processes that share a round's work."""

    name: str
    specs: list[Spec]
    """One for each process."""
    env: dict[str, str] = field(default_factory=dict)
    """Added to this process's environment."""
    seconds: list[float] = field(default_factory=list)
    """The duration of each round that counts."""
    peak_bytes: int = 0
    """The peak memory of all processes together."""
    trouble: str = ""
    """In one line why it is out, or empty."""
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    errors: IO[str] | None = None
    """Where the processes write their stderr, once they are started."""

    def start(self) -> None:
        """Starts the processes and their setup."""
        env = {name: value for name, value in os.environ.items() if name != NOT_INHERITED}
        env.update(self.env)
        self.errors = tempfile.TemporaryFile("w+")
        for spec in self.specs:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.contestants", spec.to_json()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                text=True,
                env=env,
            )
            self.processes.append(process)

    def do_round(self, limit: float) -> float | None:
        """Has all processes do a round.

        Args:
            limit: in seconds.

        Returns:
            The seconds it took; None, with `trouble` set and the processes ended, if it failed or
            took longer than `limit`.
        """
        begin = time.perf_counter()
        for process in self.processes:
            assert process.stdin
            # One that has died is found out below.
            with contextlib.suppress(BrokenPipeError):
                print("go", file=process.stdin, flush=True)
        peak_bytes = 0
        for process in self.processes:
            line = self._read_line(process, begin + limit)
            if not line:
                self.trouble = self._last_error() if line == "" else f"not done in {limit:.0f} s"
                self.stop()
                return None
            peak_bytes += json.loads(line)["peak_bytes"]
        self.peak_bytes = peak_bytes
        return time.perf_counter() - begin

    @staticmethod
    def _read_line(process: subprocess.Popen[str], deadline: float) -> str | None:
        """The next line that a process prints; empty if it has died, None after the deadline."""
        assert process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            left = max(0.0, deadline - time.perf_counter())
            if not selector.select(left):
                return None
        return process.stdout.readline()

    def _last_error(self) -> str:
        """The last line on stderr, shortened."""
        assert self.errors
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        last = lines[-1] if lines else "died"
        return " ".join(last.split())[:LONGEST_MESSAGE]

    def stop(self) -> None:
        """Ends the processes; may be called again."""
        for process in self.processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe
                # A pipe may hold requests that the process has not read.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        if self.errors:
            self.errors.close()


def duel(contestants: list[Contestant], repeats: int, limit: float) -> None:
    """Fills in every contestant's `seconds` and `peak_bytes`, in turns.

    They set themselves up one after another; that and the first round may take three times the
    `limit`. One that fails is out, as is one that has `trouble` already.

    Args:
        contestants: not started yet.
        repeats: rounds that count.
        limit: of one round, in seconds.
    """
    running = []
    try:
        for contestant in contestants:
            if contestant.trouble:
                continue
            contestant.start()
            running.append(contestant)
            contestant.do_round(3 * limit)
        for _ in range(repeats):
            for contestant in contestants:
                if not contestant.trouble:
                    _take_turn(contestant, limit)
    finally:
        for contestant in running:
            contestant.stop()


def _take_turn(contestant: Contestant, limit: float) -> None:
    """Does a round that counts, after one that does not.

    A process that was idle for a second may pay for it in the kernel, with a third of a second.
    """
    if contestant.do_round(limit) is None:
        return
    seconds = contestant.do_round(limit)
    if seconds is not None:
        contestant.seconds.append(seconds)
