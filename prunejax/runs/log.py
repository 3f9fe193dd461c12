"""The training curves: `metrics.jsonl`, one line a report, written and read here."""

import contextlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from prunejax.config import UserError
from prunejax.runs.directory import is_remote, write_whole
from prunejax.runs.manager import KEPT
from prunejax.training import hosts
from prunejax.training.progress import Progress
from prunejax.types import Path

SELDOM_S = 60
"""Seconds between two writes into a bucket, which takes files only whole."""


class MetricsLog:
    """Appends a line for each report: stage, step, Unix time, and each metric `[models]`.

    Of several processes only the first writes. In a bucket the lines are kept until `flush`, or
    until the last were written `SELDOM_S` ago.
    """

    def __init__(self, run_dir: Path, done: int) -> None:
        """Drops lines beyond `done`, of steps that were lost with a killed process.

        Raises:
            UserError: if the file is damaged.
        """
        self.path = run_dir / "metrics.jsonl"
        if not hosts.is_first():
            return
        lines = []
        if self.path.exists():
            lines = self.path.read_text().splitlines(keepends=True)
        try:
            kept = [
                line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= done
            ]
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"{self.path}: damaged ({error}); mend it, or move it away to go on without"
            ) from None
        write_whole(self.path, "".join(kept))
        self.lines = kept
        self.written = len(kept)
        self.time = time.monotonic()

    def write(self, progress: Progress) -> None:
        """Appends the line of one report; the metrics of frozen members are null.

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
            line[name] = [_rounded(value) for value in values.tolist()]
        text = json.dumps(line) + "\n"
        if is_remote(self.path):
            self.lines.append(text)
            if time.monotonic() - self.time > SELDOM_S:
                self.flush()
            return
        with self._refused(), self.path.open("a") as file:
            file.write(text)

    def flush(self) -> None:
        """Writes what is kept; to be called before a checkpoint that covers it.

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


def _rounded(value: float) -> float | None:
    """Six significant digits; JSON knows no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def load_curves(run_dir: Path, models: int) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, whose `loss` is an array `[models]`.

    Args:
        run_dir: the run's directory.
        models: how many there must be.

    Raises:
        UserError: if it is missing or damaged.
    """
    path = run_dir / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            line["stage"] = str(line["stage"])
            line["step"] = int(line["step"])
            line["loss"] = np.array(line["loss"], float)  # a frozen model's null is NaN
            if line["loss"].shape != (models,):
                raise ValueError(f"a line that is not of {models} models")
        return lines
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: no readable training curve ({type(error).__name__}: {error})"
        ) from None


def join_curves(
    run_dirs: Sequence[Path], rows: Sequence[np.ndarray], models: int
) -> list[dict[str, Any]]:
    """The lines that a run of all seeds would have, of the steps that all of its parts report.

    Times are those of the first part.

    Args:
        run_dirs: of the parts.
        rows: of each part, where its models stand among all.
        models: how many there are in all.

    Raises:
        UserError: if one is missing or damaged.
    """
    of_parts = []
    for run_dir, places in zip(run_dirs, rows, strict=True):
        lines = load_curves(run_dir, len(places))
        of_parts.append({(line["stage"], line["step"]): line for line in lines})
    joined = []
    for key, first in of_parts[0].items():
        if not all(key in lines for lines in of_parts):
            continue
        alike = [lines[key] for lines in of_parts]
        line = {name: first[name] for name in ("stage", "step", "time") if name in first}
        metrics = [name for name in first if name not in line]
        for name in metrics:
            whole = np.full(models, np.nan)  # as a frozen model's null is read
            for part, places in zip(alike, rows, strict=True):
                whole[places] = np.array(part[name], float)
            line[name] = [_rounded(value) for value in whole.tolist()]
        joined.append(line)
    return joined
