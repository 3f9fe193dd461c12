"""Orbax checkpoints of a run: saved, checked, restored anywhere.

Steps count through all stages. A checkpoint at the border of two stages belongs to the earlier one;
the next stage's start follows from it by a pure function of the seed. Every process writes the
models that its devices have. Beside the arrays lies a note: the format, the configuration, and a
digest of each model, because a damaged file may well be restored with other numbers in it.
"""

import contextlib
import dataclasses
import errno
import itertools
import json
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from prunejax.config import Config, UserError, differences, from_json, load_config, to_json
from prunejax.config.files import MAY_DIFFER
from prunejax.data import digest
from prunejax.methods import stage_settings, stages_of
from prunejax.pruning import expected_sparsity, make_pruner
from prunejax.pruning.masks import sparsity
from prunejax.runs.directory import differing_data, is_remote, load_provenance, require_room
from prunejax.runs.restored import RestoredPopulation
from prunejax.training import hosts
from prunejax.training.devices import local_rows
from prunejax.training.members import Members, members_of
from prunejax.training.programs import state_shapes
from prunejax.training.state import TrainState
from prunejax.training.task import make_task
from prunejax.types import Path

KEPT = "the checkpoints before are whole: make room, and run it again to go on"
FORMAT = 4
"""To be raised when the arrays of older checkpoints would mean something else."""
READABLE = (3, 4)
"""Format 3 has other names in its configuration (`config.files`) and the same arrays."""


@contextlib.contextmanager
def open_manager(
    run_dir: Path,
    config: Config,
    resume_at: int | None = None,
    damaged: tuple[int, ...] = (),
) -> Iterator[ocp.CheckpointManager]:
    """The run's Orbax manager: asynchronous, keeping the newest; when it closes all is written.

    Args:
        run_dir: the run's directory.
        config: how many checkpoints are kept.
        resume_at: the step that training goes on from: what a killed process left half written is
            then removed. None: it only reads.
        damaged: checkpoints that are removed then too.

    Raises:
        UserError: if there are other checkpoints of later steps, or the disk refuses what is
            written in the block.
    """
    writes = resume_at is not None
    me = jax.process_index()
    involved: dict[str, Any] = {}
    if not writes:
        involved["primary_host"] = me
        involved["active_processes"] = {me}
        involved["barrier_sync_key_prefix"] = f"read{me}"
    options = ocp.CheckpointManagerOptions(
        max_to_keep=config.checkpoint.keep,
        create=False,
        read_only=not writes,
        cleanup_tmp_directories=writes,
        multiprocessing_options=ocp.options.MultiprocessingOptions(**involved),
    )
    handlers = {"state": ocp.StandardCheckpointHandler(), "note": ocp.JsonCheckpointHandler()}
    place = run_dir / "checkpoints"
    if not is_remote(run_dir):
        place = place.absolute()
    manager = ocp.CheckpointManager(place, options=options, item_handlers=handlers)
    try:
        with manager:
            later = max(set(manager.all_steps()) - set(damaged), default=0)
            if writes and later > resume_at:
                raise UserError(
                    f"{run_dir} was trained by another process in this moment; run it again"
                )
            for step in damaged:
                manager.delete(step)
            yield manager
    except (ValueError, OSError) as error:
        trouble = _disk_trouble(error)
        if trouble is None:
            raise
        raise UserError(f"{run_dir}: cannot write a checkpoint: {trouble}; {KEPT}") from None


def _disk_trouble(error: Exception) -> str | None:
    """What the system says is wrong with the disk; None if something is missing, or it is another
    kind of error."""
    found = re.search(r"os_error_code='(\d+)'", str(error))  # as tensorstore says it
    code = int(found[1]) if found else getattr(error, "errno", None)
    if code in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return None
    return os.strerror(code)


def save(manager: ocp.CheckpointManager, config: Config, step: int, state: TrainState) -> None:
    """Starts to write `state`, `[models, ...]` or `population.Progress.arrays`, in the background.

    Raises:
        UserError: if there is no room for it.
    """
    manager.wait_until_finished()
    hosts.on_all_processes(lambda: require_room(manager.directory, state, 1, KEPT))
    digests: dict[int, str] = {}
    for text in hosts.gather_texts(json.dumps(_digests(state))):
        for row, digest_of_row in json.loads(text).items():
            digests[int(row)] = digest_of_row
    members = members_of(config)
    note = {
        "format": FORMAT,
        "config": to_json(config),
        "rows": len(jax.tree.leaves(state)[0]),
        "digests": [digests[row] for row in range(len(members))],
    }
    arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), note=ocp.args.JsonSave(note))
    manager.save(step, args=arguments)


def _digests(state: TrainState) -> dict[int, str]:
    """One of each model that this process has, by its row."""
    leaves = [local_rows(leaf) for leaf in jax.tree.leaves(state)]
    digests = {}
    for start, block in leaves[0].items():
        for row in range(len(block)):
            model = [blocks[start][row : row + 1] for blocks in leaves]
            digests[start + row] = digest(*model)
    return digests


def stage_of(stage_steps: dict[str, int], step: int) -> str:
    """The stage that a checkpoint at `step` belongs to; at the border of two it is the earlier."""
    ends = itertools.accumulate(stage_steps.values())
    return next(name for name, end in zip(stage_steps, ends, strict=True) if step <= end)


def load_population(run_dir: str | Path) -> RestoredPopulation:
    """Restores the newest checkpoint of a run to NumPy, on any machine.

    If it is damaged the one before is taken, with a warning.

    Raises:
        UserError: if the directory is no run, or has no checkpoint that can be read, or one that
            cannot be this run's.
    """
    restored = newest(epath.Path(run_dir))
    if restored is None:
        raise UserError(f"{run_dir}: no checkpoint yet; train it first")
    return restored


def newest(run_dir: Path) -> RestoredPopulation | None:
    """As `load_population`; None for a run that has no checkpoint yet."""
    config, provenance = load_config(run_dir), load_provenance(run_dir)
    stages_of(config)  # an unknown method is no fault of a checkpoint
    damaged = {}
    with open_manager(run_dir, config) as manager:
        for step in sorted(manager.all_steps(), reverse=True):
            try:
                restored = _restore(manager, config, provenance, step)
            except UserError as error:
                raise UserError(f"{run_dir}: checkpoint {step} {error}") from None
            except (ValueError, OSError, KeyError, TypeError) as error:
                trouble = _disk_trouble(error)
                if trouble:
                    raise UserError(
                        f"{run_dir}: checkpoint {step} cannot be read: {trouble}"
                    ) from None
                told = " ".join(str(error).split())[:120]
                damaged[step] = f"checkpoint {step} is damaged ({told})"
                continue
            if damaged:
                told = "; ".join(damaged.values())
                warnings.warn(
                    f"{run_dir}: {told}; checkpoint {step} is taken instead", stacklevel=2
                )
            return dataclasses.replace(restored, damaged=tuple(damaged))
    if damaged:
        told = "; ".join(damaged.values())
        raise UserError(
            f"{run_dir}: {told}; none is left: move the directory away and train it again"
        )
    return None


def _restore(
    manager: ocp.CheckpointManager, config: Config, provenance: dict[str, Any], step: int
) -> RestoredPopulation:
    """One checkpoint.

    Raises:
        UserError: if it cannot be this run's.
        ValueError, OSError, KeyError, TypeError: if it is damaged.
    """
    members = members_of(config)
    stage_steps, classes = provenance["stage_steps"], provenance["class_names"]
    only_note = ocp.args.Composite(note=ocp.args.JsonRestore())
    note = manager.restore(step, args=only_note)["note"]
    _check_note(note, config, stage_steps, step)

    # As many rows as were written: those beyond the members are padding of the devices it was
    # trained on.
    stage = stage_of(stage_steps, step)
    epoch_steps = stage_steps[stage] // stage_settings(config, stage).epochs
    task = make_task(config, stage, provenance["image_shape"], len(classes), epoch_steps)
    shapes = state_shapes(task, note["rows"])
    template = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    only_state = ocp.args.Composite(state=ocp.args.StandardRestore(template))
    state = manager.restore(step, args=only_state)["state"]
    state = jax.tree.map(lambda leaf: leaf[: len(members)], state)
    if list(_digests(state).values()) != note["digests"]:
        raise ValueError("its arrays are not those that were written")

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
    if note["format"] not in READABLE:
        raise UserError(
            f"is of format {note['format']}, this version of prunejax reads "
            f"{' and '.join(map(str, READABLE))}; use the one it is of"
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
    """Refuses masks that are not of the sparsity that the schedule asks for."""
    first = next(iter(stage_steps))
    prunable = make_pruner(config, first).prunable
    for row in np.flatnonzero(state.frozen_at < 0):
        masks = jax.tree.map(lambda leaf, member=row: leaf[member], state.masks)
        final, steps = float(members.sparsities[row]), min(step, stage_steps[first])
        expected = expected_sparsity(config, first, steps, final)
        found = float(sparsity(masks, prunable))
        if abs(found - expected) > 1e-3:
            raise UserError(
                f"has masks of sparsity {found:.4f} for seed {members.seeds[row]} "
                f"where the schedule has {expected:.4f}"
            )


def load_parent(config: Config, workdir: Path, members: Members, data_checksum: str) -> TrainState:
    """The dense parent's final state for each of `members`, by seed.

    Raises:
        UserError: if the parent is missing, unfinished, made with other settings or data, or lacks
            a seed.
    """
    parent = config.experiment.dense
    run_dir = workdir / str(parent)
    command = f"train it first: --experiment={parent}"
    if not (run_dir / "config.json").exists():
        raise UserError(
            f"{config.experiment.name} prunes the dense run {run_dir}, which is missing; {command}"
        )
    dense = load_population(run_dir)
    if dense.step < dense.total_steps:
        raise UserError(f"{run_dir} stands at step {dense.step} of {dense.total_steps}; {command}")
    apart = (*MAY_DIFFER, "preset", "models", "seed", "finetune", "prune")
    different = differences(config, dense.config, apart)
    different += differing_data(data_checksum, dense.data_checksum)
    if dense.config.experiment.method != config.experiment.method:
        different.append(
            f"experiment.method: {config.experiment.method}, not {dense.config.experiment.method}"
        )
    if different:
        raise UserError(
            f"{run_dir} was made with other settings ({'; '.join(different)}); "
            "use another --workdir"
        )
    rows = {int(seed): row for row, seed in enumerate(dense.seeds)}
    missing = sorted(set(members.seeds.tolist()) - rows.keys())
    if missing:
        raise UserError(
            f"{run_dir} has no models of the seeds {missing}; "
            "lower --models or train more dense ones"
        )
    index = np.array([rows[seed] for seed in members.seeds.tolist()])
    return jax.tree.map(lambda leaf: leaf[index], dense.state)
