"""A run, from its first step to its last: trained, saved, resumed.

`run` does all of it. A command that shows progress calls its two halves: `begin` reads what is
there and changes nothing, `train` goes on from there.
"""

import dataclasses
import os
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from prunejax.config import Config
from prunejax.data import Dataset
from prunejax.methods import is_one_shot
from prunejax.runs import checkpoint
from prunejax.runs.directory import check_run, open_run
from prunejax.runs.log import MetricsLog
from prunejax.runs.manager import open_manager
from prunejax.runs.warm_start import find_warm_start
from prunejax.training import hosts
from prunejax.training.members import Members, members_of
from prunejax.training.population import fit, initial_state, stage_steps
from prunejax.training.programs import require_traceable, state_shapes
from prunejax.training.progress import Progress
from prunejax.training.spec import StageSpec, make_specs, resolve
from prunejax.training.state import TrainState, under_own_switches
from prunejax.types import Path


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """The state from which a run starts or goes on."""

    config: Config
    """With what follows from the data and the plug-ins; see `spec.resolve`."""
    dataset: Dataset
    run_dir: Path
    specs: dict[str, StageSpec]
    """The spec of each stage, in order."""
    members: Members
    done: int
    """Steps through all stages that were taken before."""
    state: TrainState | None
    """The state after them, NumPy `[models, ...]`. At 0, unless it is resumed, the dense parents of
    a one-shot run, or None."""
    damaged: tuple[int, ...]
    """Checkpoints of later steps that could not be restored."""
    resumed: bool = False
    """Whether it goes on from one of its own checkpoints."""

    @property
    def stage_steps(self) -> dict[str, int]:
        """Steps of each stage."""
        return stage_steps(self.specs)

    @property
    def total_steps(self) -> int:
        """Steps of all stages."""
        return sum(self.stage_steps.values())

    @property
    def failed(self) -> np.ndarray:
        """Which members had failed before, bool `[models]`."""
        if self.state is None:
            return np.zeros(len(self.members), bool)
        return np.asarray(self.state.failed_at) >= 0


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """How far a run was trained."""

    step: int
    total_steps: int
    failed: np.ndarray
    """Members that diverged or collapsed, bool `[models]`; see `step.make_step`."""

    @property
    def finished(self) -> bool:
        """Whether it is trained to its end."""
        return self.step == self.total_steps


def run(config: Config, dataset: Dataset, directory: str | os.PathLike[str]) -> Outcome:
    """Trains a population to its end; run again, it resumes, or does nothing if it is finished.

    Args:
        config: the run.
        dataset: on which to train.
        directory: of the run, made if needed. A pruned run finds its dense parent next to it.

    Returns:
        The outcome; `load_population(directory)` has the models.

    Raises:
        UserError: if the settings cannot be trained, or the directory holds another run, is being
            trained, or cannot be written. Nothing has then been changed on disk.
    """
    return train(begin(config, dataset, epath.Path(directory)))


@under_own_switches
def begin(config: Config, dataset: Dataset, run_dir: Path) -> Start:
    """Reads how far a run is, and refuses what cannot be trained; changes nothing.

    Raises:
        UserError: as `run`.
    """
    config = resolve(config, dataset)
    specs, members = make_specs(config, dataset), members_of(config)

    def find() -> checkpoint.RestoredPopulation | None:
        if not check_run(run_dir, config, dataset):
            return None
        return checkpoint.newest(run_dir)

    before = hosts.on_all_processes(find)
    if before is not None:
        # What an earlier session kept is kept on.
        config = _keep_at(config, before.config.checkpoint.keep_at)
    found = repr(before and (before.step, before.damaged))
    hosts.require_same("the newest checkpoint", found)
    start = Start(
        config=config,
        dataset=dataset,
        run_dir=run_dir,
        specs=specs,
        members=members,
        done=before.step if before else 0,
        state=before.state if before else None,
        damaged=before.damaged if before else (),
        resumed=before is not None,
    )
    if start.done == start.total_steps:
        return start
    require_traceable(config, dataset)
    if start.resumed:
        return start
    if is_one_shot(config.experiment):
        parents = hosts.on_all_processes(
            lambda: checkpoint.load_parent(config, run_dir.parent, members, dataset.checksum)
        )
        return dataclasses.replace(start, state=parents)
    first = next(iter(specs.values()))
    warm = hosts.on_all_processes(
        lambda: find_warm_start(config, first, members, run_dir.parent, dataset.checksum)
    )
    hosts.require_same("the checkpoint of the warm start", repr(warm and warm.step))
    if warm is not None:
        start = dataclasses.replace(start, state=warm.state, done=warm.step)
    return start


def _keep_at(config: Config, steps: tuple[int, ...]) -> Config:
    """The run with these steps kept in addition to its own."""
    kept = tuple(sorted({*config.checkpoint.keep_at, *steps}))
    return dataclasses.replace(
        config, checkpoint=dataclasses.replace(config.checkpoint, keep_at=kept)
    )


@under_own_switches
def train(
    start: Start,
    on_step: Callable[[str, float], None] = lambda stage, step: None,
    on_report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Trains from `start` to the end, saving as `config.checkpoint` says.

    Args:
        start: what `begin` returned.
        on_step: called after every program; see `population.fit`.
        on_report: called in every process with each progress, when its line is in `metrics.jsonl`
            (in a bucket it is there with the next checkpoint, or a minute later).
        should_stop: called after every step; True saves and ends.

    Raises:
        UserError: if the directory cannot be written, or another process trains the run.
    """
    if start.done == start.total_steps:
        return Outcome(start.done, start.total_steps, start.failed)
    config, run_dir = start.config, start.run_dir
    current = start.specs[checkpoint.stage_of(start.stage_steps, start.done)]
    shapes = state_shapes(current, len(start.members))
    with open_run(run_dir, config, start.dataset, start.stage_steps, shapes):
        damaged = start.damaged if hosts.is_first() else ()
        hosts.on_all_processes(lambda: checkpoint.set_aside(run_dir, damaged))
        with open_manager(run_dir, config, start.done) as manager:
            return _train(start, manager, on_step, on_report, should_stop)


def _train(
    start: Start,
    manager: ocp.CheckpointManager,
    on_step: Callable[[str, float], None],
    on_report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Outcome:
    """As `train`, with the directory and its manager open."""
    config = start.config
    log = hosts.on_all_processes(lambda: MetricsLog(start.run_dir, start.done))
    state = start.state
    if not start.resumed and start.done == 0:
        state = initial_state(config, start.members, start.dataset, start.state)
    assert state is not None  # a resumed run or a warm start has one
    if not start.resumed:
        # Written and read back now: a directory that cannot keep checkpoints costs no training.
        checkpoint.save(manager, config, start.done, state)
        checkpoint.verify(manager, config, start.done, state)
    due = _Due(config, start.done)

    def report_now() -> bool:
        # Several processes wait for the next report, at which they agree.
        return hosts.alone() and (should_stop() or due.is_late())

    step, failed = start.done, start.failed
    reports = fit(
        config=config,
        members=start.members,
        dataset=start.dataset,
        state=state,
        done=start.done,
        on_step=on_step,
        report_now=report_now,
    )
    for progress in reports:
        hosts.on_all_processes(partial(log.write, progress))
        on_report(progress)
        step, failed = progress.step, progress.failed
        requested = hosts.any_of(should_stop())
        late = hosts.any_of(due.is_late())
        stops = requested and step < start.total_steps
        wanted = progress.ends_stage or step in config.checkpoint.keep_at
        if wanted or stops or late or due.by_steps(step):
            hosts.on_all_processes(log.flush)
            checkpoint.save(manager, config, step, progress.arrays)
            due = _Due(config, step)
        if progress.ends_stage:
            checkpoint.verify(manager, config, step, progress.arrays)
        if stops:
            break
    return Outcome(step, start.total_steps, failed)


class _Due:
    """When the next checkpoint is due, counted from the one before."""

    def __init__(self, config: Config, step: int) -> None:
        self.settings = config.checkpoint
        self.step = step
        self.time = time.monotonic()

    def is_late(self) -> bool:
        return time.monotonic() - self.time > 60 * self.settings.every_minutes

    def by_steps(self, step: int) -> bool:
        return step - self.step >= self.settings.every_steps
