"""The training curves: `metrics.jsonl`, one line a report, written and read here."""

import contextlib
import itertools
import json
import math
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prunejax.config import UserError
from prunejax.runs.directory import is_remote, write_whole
from prunejax.runs.manager import KEPT
from prunejax.training import hosts
from prunejax.training.progress import Progress
from prunejax.types import Path

ABOUT = ("stage", "step", "time")
"""The fields of a line that are no metrics."""
MOST_STEPS = 2**53
"""More than any run takes."""
SELDOM_S = 60
"""Seconds between two writes into a bucket, which takes files only whole."""


class MetricsLog:
    """Appends a line for each report: stage, step, Unix time, and each metric `[models]`.

    Of several processes only the first writes. In a bucket the lines are kept until `flush`, or
    until the last were written `SELDOM_S` ago.
    """

    def __init__(self, run_dir: Path, done: int) -> None:
        """Drops lines beyond `done`, of steps that a killed process did not save.

        Raises:
            UserError: if the file is damaged.
        """
        self.path = run_dir / "metrics.jsonl"
        if not hosts.is_first():
            return
        try:
            lines = []
            if self.path.exists():
                lines = self.path.read_text().splitlines(keepends=True)
            kept = [
                line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= done
            ]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise UserError(
                f"{self.path}: damaged ({error}); fix it, or move it away to go on without"
            ) from None
        write_whole(self.path, "".join(kept))
        self.lines = kept
        self.written = len(kept)
        self.time = time.monotonic()

    def write(self, progress: Progress) -> None:
        """Appends the line of one report; the metrics of failed members are null.

        Raises:
            UserError: if the disk refuses it.
        """
        if not hosts.is_first():
            return
        line: dict[str, Any] = {
            "stage": progress.stage,
            "step": progress.step,
            "time": round(time.time(), 1),
        }
        for name, values in progress.metrics.items():
            line[name] = [rounded(value) for value in values.tolist()]
        text = json.dumps(line) + "\n"
        if is_remote(self.path):
            self.lines.append(text)
            if time.monotonic() - self.time > SELDOM_S:
                self.flush()
            return
        with self._refused(), self.path.open("a") as file:
            file.write(text)

    def flush(self) -> None:
        """Writes the lines that are kept; call it before a checkpoint that covers them.

        Raises:
            UserError: if the bucket refuses it.
        """
        if not hosts.is_first() or self.written == len(self.lines):
            return
        with self._refused():
            self.path.write_text("".join(self.lines))
        self.written = len(self.lines)
        self.time = time.monotonic()

    @contextlib.contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror or error}; {KEPT}") from None


def rounded(value: float) -> float | None:
    """Six significant digits; JSON knows no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def load_curves(run_dir: Path, models: int) -> list[dict[str, Any]]:
    """Returns the lines of a run's `metrics.jsonl`, with metrics as arrays `[models]`.

    Each metric is the mean over the steps since the line before; NaN for models that have failed.

    Args:
        run_dir: the run's directory.
        models: how many there must be.

    Raises:
        UserError: if it is missing or damaged.
    """
    path = run_dir / "metrics.jsonl"
    try:
        lines = [_read(line, models) for line in path.read_text().splitlines()]
        for before, line in itertools.pairwise([{"step": 0, "stage": None}, *lines]):
            if not before["step"] < line["step"] < MOST_STEPS:
                raise ValueError(f"step {line['step']} after step {before['step']}")
            if line["stage"] == before["stage"] and line.keys() != before.keys():
                raise ValueError(f"step {line['step']} has other metrics than the one before")
        return lines
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise UserError(
            f"{path}: no readable training curve ({type(error).__name__}: {error})"
        ) from None


def _read(text: str, models: int) -> dict[str, Any]:
    line = json.loads(text)
    line["stage"] = str(line["stage"])
    line["step"] = int(line["step"])
    for name in {*line, "loss"} - {*ABOUT}:
        line[name] = np.array(line[name], float)  # a failed model's null is NaN
        if line[name].shape != (models,):
            raise ValueError(f"a {name} that is not of {models} models")
    return line


def spans_of(lines: Sequence[Mapping[str, Any]]) -> list[int]:
    """Returns the number of steps over which each line is the mean.

    Where a run starts is not noted: after a warm start its first line is assumed to cover as many
    steps as the longest one.
    """
    steps = np.array([line["step"] for line in lines], int)
    spans = np.diff(steps, prepend=0)
    if len(lines) > 1:
        spans[0] = min(spans[0], spans[1:].max())
    return spans.tolist()


def at_steps(lines: Sequence[Mapping[str, Any]], steps: Container[int]) -> list[dict[str, Any]]:
    """Returns the lines that a run would have, had it reported only at these of its steps.

    Args:
        lines: of `load_curves`.
        steps: of the lines that stay; the others become part of the next that does.
    """
    found, waiting, spans = [], [], []
    for line, span in zip(lines, spans_of(lines), strict=True):
        if waiting and waiting[-1]["stage"] != line["stage"]:
            waiting, spans = [], []  # the losses of two stages have no mean
        waiting.append(line)
        spans.append(span)
        if line["step"] in steps:
            found.append(_mean(waiting, spans))
            waiting, spans = [], []
    return found


def _mean(lines: Sequence[Mapping[str, Any]], spans: Sequence[int]) -> dict[str, Any]:
    """Several lines of a stage as one."""
    whole = dict(lines[-1])
    if len(lines) > 1:
        for name in whole.keys() - {*ABOUT}:
            whole[name] = np.average([line[name] for line in lines], axis=0, weights=spans)
    return whole
