"""The dense run beside a gradually pruned one, from whose checkpoints its members are forked."""

import warnings
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from prunejax.config import Config, UserError, load_config
from prunejax.data import Dataset
from prunejax.methods import is_gradual, stages_of
from prunejax.runs import damage
from prunejax.runs.checkpoint import refuse_other_parent, restore, unexplained
from prunejax.runs.manager import open_manager, steps_of
from prunejax.runs.provenance import load_provenance
from prunejax.runs.restored import RestoredPopulation
from prunejax.training import population
from prunejax.training.forks import first_updates
from prunejax.training.members import Members
from prunejax.training.state import TrainState
from prunejax.training.task import Task, make_tasks
from prunejax.types import Path


class Fork(NamedTuple):
    """Where each member of a population starts."""

    state: TrainState
    """NumPy `[models, ...]`."""
    stands_at: np.ndarray
    """The step after which each has it, int `[models]`; 0 for those that start anew."""


def find_fork(
    config: Config, task: Task, members: Members, workdir: Path, data_checksum: str
) -> Fork | None:
    """The members of a gradually pruned run, as far on as its dense run has them.

    Each starts from the dense model of its seed, at the newest checkpoint that is not beyond the
    first update of its masks. One that the dense run lacks, or has no such checkpoint of, starts
    anew. The dense run may still be training.

    Args:
        config: of the pruned run.
        task: its first stage.
        members: its population.
        workdir: where the dense run's directory is.
        data_checksum: of the data that it trains on.

    Returns:
        None if all start anew: because the dense run is not there or has nothing to fork from, or
        by `execution.fork`.

    Raises:
        UserError: if the dense run is of other settings or data, whether anything is forked or not;
            or if a checkpoint cannot be read for another reason than damage.
    """
    experiment = config.experiment
    if not is_gradual(experiment) or experiment.dense is None:
        return None
    run_dir = workdir / experiment.dense
    if not (run_dir / "config.json").exists():
        return None
    dense_config, provenance = load_config(run_dir), load_provenance(run_dir)
    # Whether anything is forked or not: what differs cannot be compared later.
    refuse_other_parent(config, dense_config, run_dir, data_checksum, provenance["data_checksum"])
    if not config.execution.fork:
        return None

    firsts = np.array(first_updates(task))[members.begins]
    found: dict[int, RestoredPopulation] = {}
    with open_manager(run_dir, dense_config) as manager:
        for first in np.unique(firsts).tolist():
            trunk = _newest_until(manager, run_dir, first, found)
            if trunk is not None:
                found[first] = trunk
    return _start_from(found, firsts, task, members)


def fork_steps(config: Config, dataset: Dataset) -> tuple[int, ...]:
    """The steps after which members of a run leave its dense one, ascending, without the start.

    Raises:
        UserError: as `make_tasks`.
    """
    if not config.execution.fork or not is_gradual(config.experiment):
        return ()
    task = make_tasks(config, dataset)[stages_of(config)[0]]
    return tuple(sorted(step for step in set(first_updates(task)) if step > 0))


def _newest_until(
    manager: ocp.CheckpointManager, run_dir: Path, last: int, known: dict[int, RestoredPopulation]
) -> RestoredPopulation | None:
    """The dense models after at most `last` steps, from the newest checkpoint that is whole."""
    config, provenance = load_config(run_dir), load_provenance(run_dir)
    for step in steps_of(manager):
        if step > last:
            continue
        for trunk in known.values():
            if trunk.step == step:
                return trunk
        try:
            return restore(manager, config, provenance, step)
        except UserError as error:
            raise UserError(f"{run_dir}: checkpoint {step} {error}") from None
        except Exception as error:
            manager.reload()
            if step not in steps_of(manager):
                continue  # training goes on meanwhile, and has removed it
            proof = damage.proof(manager.directory / str(step), error)
            if proof is None:
                raise unexplained(run_dir, step, error) from error
            warnings.warn(
                f"{run_dir}: checkpoint {step} is damaged ({proof}); what begins there is "
                "trained from the one before",
                stacklevel=2,
            )
    return None


def _start_from(
    trunks: dict[int, RestoredPopulation], firsts: np.ndarray, task: Task, members: Members
) -> Fork | None:
    """Each member's state from the trunk of its begin, which may lack its seed."""
    stands_at = np.zeros(len(members), int)
    sources: list[tuple[TrainState, int]] = []
    anew = []
    for row, (seed, first) in enumerate(zip(members.seeds, firsts.tolist(), strict=True)):
        trunk = trunks.get(first)
        if trunk is None or seed not in trunk.seeds:
            anew.append(row)
            continue
        stands_at[row] = trunk.step
        sources.append((trunk.state, int(np.flatnonzero(trunk.seeds == seed)[0])))
    if not sources:
        return None

    like = sources[0][0]
    state = jax.tree.map(lambda leaf: np.empty((len(members), *leaf.shape[1:]), leaf.dtype), like)
    forked = np.flatnonzero(stands_at > 0)
    for row, (trunk_state, place) in zip(forked, sources, strict=True):
        _copy_row(state, int(row), trunk_state, place)
    if anew:
        fresh = population.init(task, members.chosen(np.array(anew)))
        for place, row in enumerate(anew):
            _copy_row(state, row, fresh, place)
    return Fork(state, stands_at)


def _copy_row(state: TrainState, row: int, other: TrainState, place: int) -> None:
    def copy(leaf: np.ndarray, source: np.ndarray) -> None:
        leaf[row] = source[place]

    jax.tree.map(copy, state, other)
