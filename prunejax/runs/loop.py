"""A run, from its first step to its last: trained, saved, resumed, frozen.

`run` is the whole of it. A command that shows the way calls its two halves: `begin` reads what is
there and changes nothing, `train` goes on from it.
"""

import dataclasses
import itertools
import os
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from etils import epath

from prunejax.config import Config
from prunejax.data import Dataset
from prunejax.methods import is_one_shot
from prunejax.runs import checkpoint
from prunejax.runs.directory import check_run, open_run
from prunejax.runs.forked import find_fork
from prunejax.runs.log import MetricsLog
from prunejax.runs.manager import open_manager, record_newest
from prunejax.runs.trial import try_out
from prunejax.training import hosts
from prunejax.training.forks import models_trained
from prunejax.training.members import Members, members_of
from prunejax.training.population import fit, stage_steps
from prunejax.training.programs import require_traceable, state_shapes
from prunejax.training.progress import Progress
from prunejax.training.state import TrainState, under_own_switches
from prunejax.training.task import Task, make_tasks, resolve
from prunejax.types import Path


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """Where a run begins, or goes on."""

    config: Config
    """With what follows from the data and the entries; see `task.resolve`."""
    dataset: Dataset
    run_dir: Path
    tasks: dict[str, Task]
    """Of each stage, in order."""
    members: Members
    done: int
    """Steps through all stages that are behind it."""
    state: TrainState | None
    """After them; at 0 the dense parents of a one-shot run or those that a gradually pruned one is
    forked from, else None."""
    damaged: tuple[int, ...]
    """Checkpoints of later steps, which are proved to be damaged."""
    stands_at: np.ndarray | None = None
    """The step that each member has come to, int `[models]`, where some are forked and wait for the
    others; None: all are at `done`. See `training.forks`."""
    resumed: bool = False
    """Whether it goes on from a checkpoint of its own."""

    @property
    def stage_steps(self) -> dict[str, int]:
        """Steps of each stage."""
        return stage_steps(self.tasks)

    @property
    def total_steps(self) -> int:
        """Steps of all stages."""
        return sum(self.stage_steps.values())

    def trained_models(self, stage: str) -> list[tuple[int, int, int]]:
        """How many models a stage trains, from its beginning: (from step, to step, models).

        Before the step that this starts at, as if none had been forked from another run.
        """
        task = self.tasks[stage]
        nothing = np.zeros(len(self.members), int)
        counts = models_trained(task, self.members, nothing)
        if stage == next(iter(self.tasks)) and self.stands_at is not None:
            counts = [
                *(count for count in counts if count[0] < self.done),
                *models_trained(task, self.members, self.stands_at),
            ]
        return [(first, last, models) for (first, models), (last, _) in itertools.pairwise(counts)]

    @property
    def frozen(self) -> np.ndarray:
        """Which members had been frozen before, bool `[models]`."""
        if self.state is None:
            return np.zeros(len(self.members), bool)
        return np.asarray(self.state.frozen_at) >= 0


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """How far a run has come."""

    step: int
    total_steps: int
    frozen: np.ndarray
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
        directory: the run's own, made if need be. A one-shot run finds its dense parent beside it.

    Returns:
        The outcome; `load_population(directory)` has the models.

    Raises:
        UserError: if the settings cannot be trained, or the directory holds another run, is being
            trained, or cannot be written. Nothing has then been changed on disk.
    """
    return train(begin(config, dataset, epath.Path(directory)))


@under_own_switches
def begin(config: Config, dataset: Dataset, run_dir: Path) -> Start:
    """Reads where a run stands, and refuses what cannot be trained; changes nothing.

    Raises:
        UserError: as `run`.
    """
    config = resolve(config, dataset)
    tasks, members = make_tasks(config, dataset), members_of(config)

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
        tasks=tasks,
        members=members,
        done=before.step if before else 0,
        state=before.state if before else None,
        damaged=before.damaged if before else (),
        stands_at=before.stands_at if before else None,
        resumed=before is not None,
    )
    if start.done == start.total_steps:
        return start
    require_traceable(config, dataset)
    if is_one_shot(config.experiment) and start.done == 0:
        parents = hosts.on_all_processes(
            lambda: checkpoint.load_parent(config, run_dir.parent, members, dataset.checksum)
        )
        start = dataclasses.replace(start, state=parents)
    if start.resumed:
        return start
    first = next(iter(tasks.values()))
    fork = hosts.on_all_processes(
        lambda: find_fork(config, first, members, run_dir.parent, dataset.checksum)
    )
    hosts.require_same("what the run is forked from", repr(fork and fork.stands_at.tolist()))
    if fork is not None:
        done = int(fork.stands_at.min())
        start = dataclasses.replace(start, state=fork.state, done=done, stands_at=fork.stands_at)
    return start


def _keep_at(config: Config, steps: tuple[int, ...]) -> Config:
    """The run with these steps kept besides its own."""
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
        should_stop: asked after every step; True saves and ends.

    Raises:
        UserError: if the directory cannot be written, or another process trains the run.
    """
    if start.done == start.total_steps:
        return Outcome(start.done, start.total_steps, start.frozen)
    config, run_dir = start.config, start.run_dir
    current = start.tasks[checkpoint.stage_of(start.stage_steps, start.done)]
    shapes = state_shapes(current, len(start.members))
    try_here = partial(try_out, run_dir)
    with (
        open_run(run_dir, config, start.dataset, start.stage_steps, shapes, try_here),
        open_manager(run_dir, config, start.done, start.damaged) as manager,
    ):
        log = hosts.on_all_processes(lambda: MetricsLog(run_dir, start.done))
        due, unrecorded = _Due(config, start.done), True

        def report_now() -> bool:
            # Several processes wait for the next report, at which they agree.
            return hosts.alone() and (should_stop() or due.is_late())

        step, frozen = start.done, start.frozen
        reports = fit(
            config=config,
            members=start.members,
            dataset=start.dataset,
            state=start.state,
            done=start.done,
            on_step=on_step,
            report_now=report_now,
            stands_at=start.stands_at,
        )
        for progress in reports:
            hosts.on_all_processes(partial(log.write, progress))
            on_report(progress)
            step, frozen = progress.step, progress.frozen
            asked = hosts.any_of(should_stop())
            late = hosts.any_of(due.is_late())
            stops = asked and step < start.total_steps
            wanted = progress.ends_stage or step in config.checkpoint.keep_at
            if wanted or stops or late or due.by_steps(step):
                hosts.on_all_processes(log.flush)
                checkpoint.save(manager, config, step, progress.arrays, progress.stands_at)
                due = _Due(config, step)
                unrecorded = True
            elif unrecorded and not manager.is_saving_in_progress():
                record_newest(manager)
                unrecorded = False
            if progress.ends_stage:
                checkpoint.verify(manager, config, step, progress.arrays)
            if stops:
                break
    return Outcome(step, start.total_steps, frozen)


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
