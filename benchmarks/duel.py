"""Contestants in processes of their own, asked for rounds in turns, so that a slow minute hits all of them alike."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Contestant:
    """One or more processes that share a round's work; `env` is added to this process's."""

    name: str
    specs: list[dict[str, Any]]
    env: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    trouble: str = ""

    def start(self) -> None:
        """Starts the processes, which begin to set themselves up."""
        command = [sys.executable, "-m", "benchmarks.contestants"]
        env = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"} | self.env
        self.errors = tempfile.TemporaryFile("w+")
        self.processes = [
            subprocess.Popen([*command, json.dumps(spec)], stdin=-1, stdout=-1, stderr=self.errors, text=True, env=env)
            for spec in self.specs
        ]

    def round(self, limit: float) -> float | None:
        """The seconds of one round, or None, with `trouble` set, when it fails or takes longer than `limit`."""
        begin = time.perf_counter()
        with contextlib.suppress(BrokenPipeError):
            for process in self.processes:
                print("go", file=process.stdin, flush=True)
        answers = []
        for process in self.processes:
            assert process.stdout
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                if not selector.select(max(0.0, begin + limit - time.perf_counter())):
                    self.trouble = f"not done in {limit:.0f} s"
                    self.stop()
                    return None
            if not (line := process.stdout.readline()):
                self.errors.seek(0)
                last = (self.errors.read().strip().splitlines() or ["died"])[-1]
                self.trouble = " ".join(last.split())[:120]
                self.stop()
                return None
            answers.append(json.loads(line)["peak_bytes"])
        self.peak_bytes = sum(answers)
        return time.perf_counter() - begin

    def stop(self) -> None:
        """Ends the processes."""
        for process in self.processes:
            process.kill()
            process.wait()
            for pipe in filter(None, (process.stdin, process.stdout)):
                with contextlib.suppress(BrokenPipeError):  # what it was still to be told
                    pipe.close()
        self.errors.close()


def duel(contestants: list[Contestant], repeats: int, limit: float) -> None:
    """Fills in every contestant's `seconds`: `repeats` rounds each, in turns, each after one that is not counted.

    They set themselves up one after another; that and the first round may take three times the `limit`. One that
    fails is out.
    """
    running = []
    try:
        for contestant in contestants:
            if not contestant.trouble:
                contestant.start()
                running.append(contestant)
                contestant.round(3 * limit)
        for _ in range(repeats):
            for contestant in contestants:
                # A process that was idle for a second may pay for it in the kernel, with a third of a second.
                if contestant.trouble or contestant.round(limit) is None:
                    continue
                if (seconds := contestant.round(limit)) is not None:
                    contestant.seconds.append(seconds)
    finally:
        for contestant in running:
            contestant.stop()
