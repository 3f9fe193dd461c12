"""Warm starts: a gradually pruned run starts from a checkpoint of its dense parent.

Until the first update of its masks a gradually pruned model is, bit for bit, the dense model of its
seed: those steps are trained once, by the dense run.
"""

from typing import NamedTuple

import jax
import numpy as np

from prunejax.config import Config, load_config
from prunejax.data import Dataset
from prunejax.methods import is_gradual, stages_of
from prunejax.runs.checkpoint import newest, refuse_other_parent
from prunejax.runs.provenance import load_provenance
from prunejax.training.members import Members
from prunejax.training.spec import StageSpec, make_specs
from prunejax.training.state import TrainState
from prunejax.types import Path


class WarmStart(NamedTuple):
    """Where a population starts instead of at step 0."""

    state: TrainState
    """NumPy `[models, ...]`."""
    step: int
    """Steps after which it is the state."""


def first_update(spec: StageSpec) -> int:
    """The step of the stage before which masks are first updated; negative if they never are."""
    return int(spec.pruner.updates(spec.schedule, 0.5).first)


def start_step(config: Config, dataset: Dataset) -> int:
    """The number of steps that a run has in common with its dense parent; 0 for none.

    Raises:
        UserError: as `make_specs`.
    """
    if not config.execution.warm_start or not is_gradual(config.experiment):
        return 0
    return max(first_update(make_specs(config, dataset)[stages_of(config)[0]]), 0)


def find_warm_start(
    config: Config, spec: StageSpec, members: Members, workdir: Path, data_checksum: str
) -> WarmStart | None:
    """Returns the members of a gradually pruned run as its dense parent's checkpoint has them.

    The newest checkpoint counts that is not beyond the first update of the masks. The dense run may
    still be training.

    Args:
        config: of the pruned run.
        spec: its first stage.
        members: its population.
        workdir: where the dense run's directory is.
        data_checksum: of the data that it trains on.

    Returns:
        None if the run starts at step 0: because there is no dense run or no such checkpoint, the
        dense run lacks a seed, or `execution.warm_start` is off.

    Raises:
        UserError: if the dense run has other settings or data, with or without a warm start; or if
            a checkpoint cannot be read.
    """
    experiment = config.experiment
    if not is_gradual(experiment) or experiment.dense_parent is None:
        return None
    run_dir = workdir / experiment.dense_parent
    if not (run_dir / "config.json").exists():
        return None
    checksum = load_provenance(run_dir)["data_checksum"]
    # Also without a warm start: runs that differ cannot be compared later.
    refuse_other_parent(config, load_config(run_dir), run_dir, data_checksum, checksum)
    if not config.execution.warm_start:
        return None

    dense = newest(run_dir, last=first_update(spec))
    if dense is None or dense.step == 0:
        return None
    rows = {int(seed): row for row, seed in enumerate(dense.seeds)}
    if not rows.keys() >= set(members.seeds.tolist()):
        return None
    index = np.array([rows[seed] for seed in members.seeds.tolist()])
    return WarmStart(jax.tree.map(lambda leaf: leaf[index], dense.state), dense.step)
