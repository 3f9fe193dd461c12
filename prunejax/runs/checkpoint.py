"""Checkpoints of a run: saved, checked, restored anywhere.

Steps count through all stages. A checkpoint at the border of two stages belongs to the earlier one;
the next stage's start follows from it by a pure function of the seed. Every process writes the
models that its devices have.
"""

import dataclasses
import itertools
import warnings
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from prunejax.config import Config, UserError, differences, from_json, load_config
from prunejax.config.errors import in_one_line
from prunejax.config.files import MAY_DIFFER
from prunejax.methods import stage_settings, stages_of
from prunejax.pruning import expected_sparsity, make_pruner
from prunejax.pruning.masks import name_of, sparsity
from prunejax.runs.directory import differing_data, require_room
from prunejax.runs.manager import KEPT, disk_errors, open_manager, steps_of, write
from prunejax.runs.note import load_note, make_note, read_state
from prunejax.runs.provenance import load_provenance
from prunejax.runs.restored import RestoredPopulation
from prunejax.training import hosts
from prunejax.training.members import Members, members_of
from prunejax.training.programs import state_shapes
from prunejax.training.spec import make_spec
from prunejax.training.state import TrainState, under_own_switches
from prunejax.types import Path

FORMAT = 4
"""To be raised when the arrays of older checkpoints would mean something else."""


def save(manager: ocp.CheckpointManager, config: Config, step: int, state: TrainState) -> None:
    """Starts to write `state`, `[models, ...]` or `progress.Progress.arrays`, in the background.

    Args:
        manager: the run's.
        config: of the run.
        step: through all stages.
        state: after it.

    Raises:
        UserError: if the disk has no room for it, or the save before it has failed.
    """
    run_dir = manager.directory.parent
    with disk_errors(run_dir):
        manager.wait_until_finished()
    hosts.on_all_processes(lambda: require_room(manager.directory, state, 1, KEPT))
    note = make_note(FORMAT, config, state)
    with disk_errors(run_dir):
        write(manager, step, state, note)


def verify(manager: ocp.CheckpointManager, config: Config, step: int, like: TrainState) -> None:
    """Waits until a checkpoint is written; the first process reads it back.

    Args:
        manager: with which it was saved.
        config: of the run.
        step: of the checkpoint.
        like: a state of the same structure.

    Raises:
        UserError: if it cannot be read, or is not what was saved.
    """
    run_dir = manager.directory.parent
    with disk_errors(run_dir):
        manager.wait_until_finished()

    def read() -> None:
        if not hosts.is_first():
            return
        try:
            with open_manager(run_dir, config) as reader:
                read_state(reader, step, load_note(reader, step), like)
        except Exception as error:
            raise UserError(
                f"{run_dir}: checkpoint {step} was written and cannot be read back "
                f"({in_one_line(error)}); repair the disk or use another --workdir, and run it "
                "again"
            ) from error

    hosts.on_all_processes(read)


def stage_of(stage_steps: dict[str, int], step: int) -> str:
    """Returns the stage of a checkpoint at `step`; at the border of two it is the earlier one."""
    ends = itertools.accumulate(stage_steps.values())
    return next(name for name, end in zip(stage_steps, ends, strict=True) if step <= end)


@under_own_switches
def load_population(run_dir: str | Path) -> RestoredPopulation:
    """Restores the newest checkpoint of a run to NumPy, on any machine.

    If it is damaged it restores the one before, with a warning.

    Raises:
        UserError: if the directory is not a run, or has no checkpoint that can be restored, or one
            that cannot be this run's.
    """
    restored = newest(epath.Path(run_dir))
    if restored is None:
        raise UserError(f"{run_dir}: no checkpoint yet; train it first")
    return restored


@under_own_switches
def newest(run_dir: Path, last: int | None = None) -> RestoredPopulation | None:
    """As `load_population`; None for a run that has no checkpoint yet.

    Args:
        run_dir: the run's directory.
        last: the newest step that counts; None: all count.
    """
    config, provenance = load_config(run_dir), load_provenance(run_dir)
    stages_of(config)  # an unknown method is no fault of a checkpoint
    with open_manager(run_dir, config) as manager:
        while True:
            steps = steps_of(manager)
            wanted = [step for step in steps if last is None or step <= last]
            try:
                return _first_restorable(run_dir, config, provenance, manager, wanted)
            except UserError:
                # Training may have gone on meanwhile, and removed what was being read.
                manager.reload()
                if steps_of(manager) == steps:
                    raise


def _first_restorable(
    run_dir: Path,
    config: Config,
    provenance: dict[str, Any],
    manager: ocp.CheckpointManager,
    steps: list[int],
) -> RestoredPopulation | None:
    """The first of these checkpoints that is as it was written; None if there are none.

    Raises:
        UserError: if none is, the disk refuses to read one, or one cannot be this run's.
    """
    damaged = {}
    for step in steps:
        try:
            restored = restore(manager, config, provenance, step)
        except UserError as error:
            raise UserError(f"{run_dir}: checkpoint {step} {error}") from None
        except Exception as error:
            _refuse_unreadable(run_dir, manager.directory / str(step), error)
            damaged[step] = in_one_line(error)
            continue
        if damaged:
            reasons = [f"checkpoint {step} is damaged ({why})" for step, why in damaged.items()]
            warnings.warn(
                f"{run_dir}: {'; '.join(reasons)}; checkpoint {restored.step} is taken instead; "
                "when training goes on the other is renamed <step>.damaged",
                stacklevel=6,
            )
        return dataclasses.replace(restored, damaged=tuple(damaged))
    if damaged:
        reasons = [f"checkpoint {step} ({why})" for step, why in damaged.items()]
        raise UserError(
            f"{run_dir}: no checkpoint can be restored: {'; '.join(reasons)}; use the versions in "
            "provenance.json, or move the directory away and train it again"
        )
    return None


def _refuse_unreadable(run_dir: Path, step_dir: Path, error: Exception) -> None:
    """Refuses a checkpoint that could not be restored for another reason than its files' content.

    Raises:
        UserError: if memory has run out, or the disk refuses one of the files.
    """
    reason = None
    if isinstance(error, MemoryError):
        reason = "out of memory"
    else:
        try:
            for path in step_dir.rglob("*"):
                if path.is_file():
                    path.read_bytes()
        except OSError as refused:
            reason = refused.strerror or str(refused)
    if reason is not None:
        raise UserError(
            f"{run_dir}: checkpoint {step_dir.name} cannot be read: {reason}"
        ) from error


def set_aside(run_dir: Path, damaged: tuple[int, ...]) -> None:
    """Renames damaged checkpoints to `<step>.damaged`, so that their steps are trained again.

    Raises:
        OSError: if the disk refuses it.
    """
    for step in damaged:
        step_dir = run_dir / "checkpoints" / str(step)
        target = step_dir.with_name(f"{step}.damaged")
        while target.exists():
            target = target.with_name(f"{target.name}.again")
        step_dir.rename(target)


def restore(
    manager: ocp.CheckpointManager, config: Config, provenance: dict[str, Any], step: int
) -> RestoredPopulation:
    """Restores one checkpoint.

    Args:
        manager: of the run.
        config: of the run.
        provenance: of the run, see `load_provenance`.
        step: of the checkpoint.

    Raises:
        UserError: if it is as it was written, and cannot be this run's.
        Exception: if it cannot be read.
    """
    members = members_of(config)
    stage_steps, classes = provenance["stage_steps"], provenance["class_names"]
    note = load_note(manager, step)
    _check_note(note, config, stage_steps, step)

    # As many rows as were written: those beyond the members are padding of the devices it was
    # trained on.
    stage = stage_of(stage_steps, step)
    epoch_steps = stage_steps[stage] // stage_settings(config, stage).epochs
    spec = make_spec(config, stage, provenance["image_shape"], len(classes), epoch_steps)
    shapes = state_shapes(spec, note["rows"])
    state = read_state(manager, step, note, shapes)
    _check_shapes(shapes, state)
    state = jax.tree.map(lambda leaf: leaf[: len(members)], state)
    _check_finite(members, state)
    _check_masks(config, stage_steps, step, members, state)
    return RestoredPopulation(
        config=config,
        seeds=members.seeds,
        sparsities=members.sparsities,
        state=state,
        step=step,
        total_steps=sum(stage_steps.values()),
        class_names=classes,
        data_checksum=provenance["data_checksum"],
    )


def _check_note(
    note: dict[str, Any], config: Config, stage_steps: dict[str, int], step: int
) -> None:
    """Refuses a checkpoint of another format or of other settings than the directory's."""
    if note["format"] != FORMAT:
        raise UserError(
            f"is of format {note['format']}, and this version of prunejax reads {FORMAT}; use the "
            "version in provenance.json"
        )
    different = differences(config, from_json(note["config"], "has a note that is"))
    if different:
        raise UserError(
            f"is of other settings than config.json ({'; '.join(different)}); was that edited? "
            "undo it"
        )
    if tuple(stage_steps) != stages_of(config) or step > sum(stage_steps.values()):
        raise UserError(
            f"does not fit the stages in provenance.json ({stage_steps}); was that edited? undo it"
        )


def _check_shapes(shapes: TrainState, state: TrainState) -> None:
    """Refuses arrays of other shapes or dtypes than the settings make."""
    wanted = jax.tree.leaves_with_path(shapes)
    for (path, expected), leaf in zip(wanted, jax.tree.leaves(state), strict=True):
        if (leaf.shape, leaf.dtype) != (expected.shape, expected.dtype):
            raise UserError(
                f"has {name_of(path)} of {leaf.dtype} {list(leaf.shape)} where these settings make "
                f"{expected.dtype} {list(expected.shape)}; use the versions in provenance.json"
            )


def _check_finite(members: Members, state: TrainState) -> None:
    finite = np.ones(len(members), bool)
    for leaf in jax.tree.leaves((state.params, state.batch_stats)):
        finite &= np.isfinite(leaf).reshape(len(members), -1).all(1)
    if not finite.all():
        seeds = members.seeds[~finite].tolist()
        raise UserError(f"holds weights that are not finite, of seeds {seeds}")


def _check_masks(
    config: Config, stage_steps: dict[str, int], step: int, members: Members, state: TrainState
) -> None:
    """Refuses masks of another sparsity than the schedule's."""
    first = next(iter(stage_steps))
    prunable = make_pruner(config, first).prunable
    for row in np.flatnonzero(state.failed_at < 0):
        masks = jax.tree.map(lambda leaf, member=row: leaf[member], state.masks)
        final, taken = float(members.sparsities[row]), min(step, stage_steps[first])
        expected = expected_sparsity(config, first, stage_steps[first], taken, final)
        found = float(sparsity(masks, prunable))
        if abs(found - expected) > 1e-3:
            raise UserError(
                f"has masks of sparsity {found:.4f} for seed {members.seeds[row]} "
                f"where the schedule has {expected:.4f}"
            )


def load_parent(config: Config, workdir: Path, members: Members, data_checksum: str) -> TrainState:
    """Returns the dense parent's final state for each member, by seed.

    Args:
        config: of the one-shot run.
        workdir: where the dense run's directory is.
        members: of the one-shot run.
        data_checksum: of its data.

    Raises:
        UserError: if the parent is missing, unfinished, made with other settings or data, or lacks
            a seed.
    """
    parent = config.experiment.dense_parent
    run_dir = workdir / str(parent)
    command = f"train it first: --experiment={parent}"
    if not (run_dir / "config.json").exists():
        raise UserError(
            f"{config.experiment.name} prunes the dense run {run_dir}, which is missing; {command}"
        )
    dense = load_population(run_dir)
    if dense.step < dense.total_steps:
        raise UserError(f"{run_dir} is at step {dense.step} of {dense.total_steps}; {command}")
    refuse_other_parent(config, dense.config, run_dir, data_checksum, dense.data_checksum)
    rows = {int(seed): row for row, seed in enumerate(dense.seeds)}
    missing = sorted(set(members.seeds.tolist()) - rows.keys())
    if missing:
        raise UserError(
            f"{run_dir} has no models of the seeds {missing}; "
            "lower --models or train more dense ones"
        )
    index = np.array([rows[seed] for seed in members.seeds.tolist()])
    return jax.tree.map(lambda leaf: leaf[index], dense.state)


def refuse_other_parent(
    config: Config, dense: Config, run_dir: Path, data_checksum: str, dense_checksum: str
) -> None:
    """Refuses a dense run that is not what a pruned one of these settings would start from.

    Args:
        config: of the pruned run.
        dense: of the dense one.
        run_dir: the dense run's directory.
        data_checksum: of the data of the pruned one.
        dense_checksum: and of the dense one.

    Raises:
        UserError: naming the fields in which they differ.
    """
    different = differences(config, dense, MAY_DIFFER)
    different += differing_data(data_checksum, dense_checksum)
    ours, theirs = config.experiment.method, dense.experiment.method
    if ours != theirs:
        different.append(f"experiment.method: {ours}, not {theirs}")
    if different:
        raise UserError(
            f"{run_dir} was made with other settings ({'; '.join(different)}); "
            "use another --workdir"
        )
