"""What a command shows while it works: progress bars, frozen members, TensorBoard."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from prunejax.config import Config, UserError
from prunejax.config.counts import counted
from prunejax.config.levels import fraction

if TYPE_CHECKING:
    from tqdm import tqdm

    from prunejax.runs import Start
    from prunejax.training.progress import Progress


class _Lines:
    """A stand-in for a terminal: each state of a progress bar becomes a line of its own."""

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
    ends = np.cumsum([0, *steps.values()]).tolist()
    first_steps = dict(zip(steps, ends[:-1], strict=True))
    known_steps, known_images = _images_until(start)

    def images_after(step: float) -> int:
        return int(np.interp(step, known_steps, known_images))

    name = start.config.experiment.name
    # A run that turns out not to be writable is refused in one line, which stands alone: so
    # nothing is shown before the first step.
    done = images_after(start.done)
    with bar(name, int(known_images[-1]), done, at_first=False) as shown:
        told = False

        def on_step(stage: str, step: float) -> None:
            nonlocal told
            if not told:
                _tell_start(start)
                shown.unpause()  # what was compiled until now says nothing of the time left
                told = True
            shown.set_postfix_str(f"{stage} {int(step)}/{steps[stage]}", refresh=False)
            shown.update(images_after(first_steps[stage] + step) - shown.n)

        yield on_step


def _tell_start(start: "Start") -> None:
    """Prints where a run goes on from, unless that is its first step."""
    name = start.config.experiment.name
    if start.resumed:
        print(f"{name}: resuming at step {start.done} of {start.total_steps}")
    elif start.stands_at is not None:
        forked = start.stands_at[start.stands_at > 0]
        steps = ", ".join(str(step) for step in np.unique(forked))
        print(
            f"{name}: {len(forked)} of {counted(len(start.members), 'model')} start from "
            f"{start.config.experiment.dense}, after step {steps}"
        )


def _images_until(start: "Start") -> tuple[list[int], list[float]]:
    """Steps through all stages, and how many images the models have seen after each of them.

    Between two of these steps the number of models that are trained is the same.
    """
    known_steps, known_images = [0], [0.0]
    begin = 0
    for stage, task in start.tasks.items():
        each_step = len(start.dataset.train_labels) / task.epoch_steps
        for first, last, models in start.trained_models(stage):
            known_steps.append(begin + last)
            known_images.append(known_images[-1] + (last - first) * models * each_step)
        begin += task.steps
    return known_steps, known_images


def make_frozen_notice(start: "Start") -> Callable[["Progress"], None]:
    """Returns what prints members that a report shows to have been frozen since the one before."""
    from prunejax.training import hosts

    config, members = start.config, start.members
    known = start.frozen

    def notice(progress: "Progress") -> None:
        nonlocal known
        frozen = progress.frozen
        for row in np.flatnonzero(frozen & ~known):
            state = progress.state  # for which all processes must ask
            collapsed = state.plateau_steps[row] >= config.supcon.collapse_steps
            how = "collapsed" if collapsed else "diverged"
            if hosts.is_first():
                name = _curve_name(config, *members.cells[row]).replace("_", " ")
                print(
                    f"{config.experiment.name}: seed {members.seeds[row]} at {name} {how} "
                    f"at step {state.frozen_at[row]} of stage {progress.stage}; "
                    "it is frozen, and excluded from every result",
                    file=sys.stderr,
                )
        known = frozen

    return notice


def require_tensorboard() -> None:
    """Refuses --tensorboard where its package is missing, before anything is written."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise UserError("--tensorboard needs tensorboardX: pip install -e '.[tensorboard]'")


@contextlib.contextmanager
def tensorboard(start: "Start", wanted: bool) -> Iterator[Callable[["Progress"], None]]:
    """Gives what writes a report for TensorBoard, if that is wanted and this process writes."""
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
    names = np.array([_curve_name(start.config, *cell) for cell in start.members.cells])

    def write(progress: "Progress") -> None:
        nonlocal writer
        if writer is None:
            writer = make_writer()
        for metric, values in progress.metrics.items():
            for name in np.unique(names):
                chosen = values[(names == name) & np.isfinite(values)]
                if len(chosen):
                    tag = f"{progress.stage}/{metric}/{name}"
                    writer.add_scalar(tag, chosen.mean(), progress.step)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


def _curve_name(config: Config, begin: int, sparsity: float) -> str:
    """What the members of one sparsity and one begin of pruning are called."""
    name = f"sparsity_{fraction(sparsity)}"
    pruning = config.experiment.pruning
    return f"{name}_begin_{pruning.begins[begin]}" if pruning and pruning.begins else name
