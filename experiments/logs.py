"""What a run says while it trains: `metrics.jsonl`, TensorBoard, and the progress display."""

import contextlib
import importlib.util
import json
import math
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from etils import epath

from prunejax.config import Config, UserError


class MetricsLog:
    """Appends one line per report to `metrics.jsonl`: stage, step, Unix time, and each metric `[models]`.

    Lines beyond `done`, of steps that were lost with a killed process, are dropped first. Of several processes only
    the first writes.
    """

    def __init__(self, run_dir: epath.Path, done: int, sparsities: np.ndarray, tensorboard: bool) -> None:
        from prunejax import hosts
        from prunejax.rundir import write_whole

        self.path, self.sparsities, self.writer = run_dir / "metrics.jsonl", sparsities, None
        self.writes = hosts.is_first()
        if not self.writes:
            return
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        try:
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= done]
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f"{self.path}: damaged ({error}); mend it, or move it away to go on without") from None
        write_whole(self.path, "".join(kept))
        if tensorboard:
            from tensorboardX import SummaryWriter

            self.writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=done + 1)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer:
            self.writer.close()

    def write(self, now) -> None:  # noqa: ANN001
        """Notes a `population.Progress`; the metrics of frozen members are null."""
        from prunejax.checkpoint import KEPT
        from prunejax.rundir import is_remote

        if not self.writes:
            return
        line = {"stage": now.stage, "step": now.step, "time": round(time.time(), 1)}
        for name, values in now.metrics.items():
            line[name] = [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]
        text = json.dumps(line) + "\n"
        try:
            if is_remote(self.path):
                self.path.write_text(self.path.read_text() + text)
            else:
                with self.path.open("a") as file:
                    file.write(text)
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}; {KEPT}") from None
        if self.writer:
            for name, values in now.metrics.items():
                for sparsity in np.unique(self.sparsities):
                    chosen = values[(self.sparsities == sparsity) & np.isfinite(values)]
                    if len(chosen):
                        self.writer.add_scalar(f"{now.stage}/{name}/sparsity_{sparsity:g}", chosen.mean(), now.step)


def require_tensorboard() -> None:
    """Refuses --tensorboard where its package is missing, before anything is written."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise UserError("--tensorboard needs tensorboardX: pip install -e '.[tensorboard]'")


def tell_frozen(config: Config, who, now, known: np.ndarray) -> np.ndarray:  # noqa: ANN001
    """Says which members have been frozen since; returns which are."""
    from prunejax import hosts

    frozen = np.isnan(now.metrics["loss"])
    for row in np.flatnonzero(frozen & ~known):
        state = now.state  # for which all processes must ask
        how = "collapsed" if state.plateau_steps[row] >= config.supcon.collapse_steps else "diverged"
        if hosts.is_first():
            print(
                f"{config.experiment.name}: seed {who.seeds[row]} at sparsity {who.sparsities[row]:.3g} {how} at step "
                f"{state.frozen_at[row]} of stage {now.stage}; it is frozen, and excluded from every result",
                file=sys.stderr,
            )
    return frozen


class _Lines:
    """A stand-in for a terminal: each state of a progress bar becomes a line of its own."""

    def write(self, text: str) -> None:
        if text := text.strip("\r\n "):
            print(text, file=sys.stderr, flush=True)

    def flush(self) -> None:
        sys.stderr.flush()


def bar(title: str, total: int, done: int = 0, unit: str = "images"):  # noqa: ANN201
    """A tqdm bar of images (or another unit), their rate and the time left; off a terminal a line every 20 seconds.

    Of several processes the first shows it.
    """
    from tqdm import tqdm

    from prunejax import hosts

    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        disable=not hosts.is_first(),
        initial=done,
        desc=title,
        unit=f" {unit}",
        unit_scale=True,
        file=sys.stderr if terminal else _Lines(),  # pyright: ignore[reportArgumentType]
        mininterval=0.2 if terminal else 20,
        ncols=100,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {rate_fmt}, {remaining} left{postfix}",
    )


@contextlib.contextmanager
def progress(
    title: str, images: dict[str, int], steps: dict[str, int], done: int
) -> Iterator[Callable[[str, float], None]]:
    """Shows the way through all stages, whose `images` and `steps` are given, from `done` steps on.

    Gives `on_step(stage, steps of it that are done)`.
    """
    ends, seen = (np.cumsum([0, *counts.values()]) for counts in (steps, images))
    starts = dict(zip(steps, ends, strict=False))
    with bar(title, int(seen[-1]), int(np.interp(done, ends, seen))) as shown:

        def on_step(stage: str, step: float) -> None:
            shown.set_postfix_str(f"{stage} {int(step)}/{steps[stage]}", refresh=False)
            shown.update(int(np.interp(starts[stage] + step, ends, seen)) - shown.n)

        yield on_step
