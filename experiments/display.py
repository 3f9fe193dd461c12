"""What a command shows while it works: progress bars, failed members, TensorBoard."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from prunejax.config import UserError
from prunejax.config.counts import counted
from prunejax.config.levels import fraction

if TYPE_CHECKING:
    from tqdm import tqdm

    from prunejax.runs import Start
    from prunejax.training.progress import Progress
    from prunejax.training.spec import StageSpec


class _Lines:
    """A stand-in for a terminal: each state of a progress bar becomes a line."""

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line:
            print(line, file=sys.stderr, flush=True)

    def flush(self) -> None:
        sys.stderr.flush()


def bar(
    title: str, total: int, done: int = 0, unit: str = "images", at_first: bool = True
) -> "tqdm":
    """A bar with rate and time left; off a terminal a line every 20 seconds.

    Of several processes the first shows it.

    Args:
        title: what it is of.
        total: of which it shows a part.
        done: of it from the start.
        unit: what is counted.
        at_first: whether it is shown before there is progress.
    """
    from tqdm import tqdm

    from prunejax.training import hosts

    terminal = sys.stderr.isatty()
    ours = {
        "mininterval": 0.2 if terminal else 20,
        # Otherwise tqdm's own thread prints the line before once more, with its old rate.
        "miniters": 1,
        "ncols": 100,
        "bar_format": "{desc}: {percentage:3.0f}%|{bar}| {rate_fmt}, {remaining} left{postfix}",
    }
    if not hosts.is_first():
        ours["disable"] = True
    # What the user sets in the environment, as TQDM_DISABLE=1, comes before a default.
    for name in ("mininterval", "miniters", "ncols", "bar_format"):
        if f"TQDM_{name.upper()}" in os.environ:
            del ours[name]
    return tqdm(
        total=total,
        initial=done,
        desc=title,
        unit=f" {unit}",
        unit_scale=True,
        delay=0 if at_first else 1e-3,
        file=sys.stderr if terminal else _Lines(),  # pyright: ignore[reportArgumentType]
        **ours,
    )


@contextlib.contextmanager
def training_bar(start: "Start") -> Iterator[Callable[[str, float], None]]:
    """A bar of images through all stages of a run, from where it starts.

    Gives `on_step(stage, steps of it that are done)`, as `runs.train` calls it.
    """
    steps = start.stage_steps
    ends = np.cumsum([0, *steps.values()])
    first_steps = dict(zip(steps, ends[:-1].tolist(), strict=True))
    images = np.cumsum(
        [0, *(spec.steps * _images_a_step(start, spec) for spec in start.specs.values())]
    )

    def images_after(step: float) -> int:
        return int(np.interp(step, ends, images))

    name = start.config.experiment.name
    # A run that turns out not to be writable is refused in one line, which stands alone: so
    # nothing is shown before the first step.
    done = images_after(start.done)
    with bar(name, int(images[-1]), done, at_first=False) as shown:
        is_first = True

        def on_step(stage: str, step: float) -> None:
            nonlocal is_first
            if is_first:
                _print_start(start)
                shown.unpause()  # what was compiled until now says nothing of the time left
                is_first = False
            shown.set_postfix_str(f"{stage} {int(step)}/{steps[stage]}", refresh=False)
            shown.update(images_after(first_steps[stage] + step) - shown.n)

        yield on_step


def _images_a_step(start: "Start", spec: "StageSpec") -> float:
    """Images that all models see in a step, the mean over an epoch."""
    return len(start.members) * len(start.dataset.train_labels) / spec.epoch_steps


def _print_start(start: "Start") -> None:
    """Prints where a run goes on from, unless that is its first step."""
    name = start.config.experiment.name
    if start.resumed:
        print(f"{name}: resuming at step {start.done} of {start.total_steps}")
    elif start.done:
        dense = start.config.experiment.dense_parent
        models = counted(len(start.members), "model")
        print(f"{name}: warm start of {models} from {dense} at step {start.done}")


def make_failure_notice(start: "Start") -> Callable[["Progress"], None]:
    """Returns what prints the members that have failed since the report before."""
    from prunejax.training import hosts

    config, members = start.config, start.members
    known = start.failed

    def notice(progress: "Progress") -> None:
        nonlocal known
        for row in np.flatnonzero(progress.failed & ~known):
            state = progress.state  # for which all processes must ask
            collapsed = state.plateau_steps[row] >= config.supcon.collapse_steps
            how = "collapsed" if collapsed else "diverged"
            if hosts.is_first():
                level = fraction(members.sparsities[row])
                print(
                    f"{config.experiment.name}: seed {members.seeds[row]} at sparsity {level} "
                    f"{how} at step {state.failed_at[row]} of stage {progress.stage}; "
                    "it is trained no further, and left out of every result",
                    file=sys.stderr,
                )
        known = progress.failed

    return notice


def require_tensorboard() -> None:
    """Refuses --tensorboard where its package is missing, before anything is written.

    Raises:
        UserError: with the command that installs it.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise UserError("--tensorboard needs tensorboardX: pip install -e '.[tensorboard]'")


@contextlib.contextmanager
def tensorboard(start: "Start", wanted: bool) -> Iterator[Callable[["Progress"], None]]:
    """Yields a function that writes a report for TensorBoard, if requested and in one process."""
    from prunejax.training import hosts

    if not wanted or not hosts.is_first():
        yield lambda progress: None
        return
    from tensorboardX import SummaryWriter

    # Steps that were lost with a killed process are dropped.
    directory = str(start.run_dir / "tensorboard")
    # Made at the first report: a run that is refused before it leaves nothing.
    make_writer: Any = partial(SummaryWriter, directory, purge_step=start.done + 1)
    writer: Any = None
    levels = start.members.sparsities

    def write(progress: "Progress") -> None:
        nonlocal writer
        if writer is None:
            writer = make_writer()
        for metric, values in progress.metrics.items():
            for level in np.unique(levels):
                chosen = values[(levels == level) & np.isfinite(values)]
                if len(chosen):
                    tag = f"{progress.stage}/{metric}/sparsity_{fraction(level)}"
                    writer.add_scalar(tag, chosen.mean(), progress.step)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
