"""Orbax checkpoints of a run: saved, checked, restored anywhere.

Steps count through all stages. A checkpoint at the border of two stages belongs to the earlier one; the next stage's
start follows from it by a pure function of the seed. Every process writes the models that its devices have. Beside the
arrays lies a note: the format, the configuration, and a digest of each model, because a damaged file may well be
restored with other numbers in it.
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
from jaxtyping import UInt8

from prunejax import hosts, population, prune, train
from prunejax.config import FREE, Config, UserError, differences, from_json, load_config, to_json
from prunejax.data import digest
from prunejax.devices import local_rows
from prunejax.population import Members
from prunejax.programs import state_shapes
from prunejax.rundir import differing_data, is_remote, load_provenance, require_room
from prunejax.types import Path, TrainState

KEPT = "the checkpoints before are whole: make room, and run it again to go on"
FORMAT = 3
"""To be raised when the arrays of older checkpoints would mean something else."""


@dataclasses.dataclass(frozen=True)
class Population:
    """A restored run: NumPy arrays with a leading `models` axis, whatever devices wrote them."""

    config: Config
    seeds: np.ndarray
    """Of each model, `[models]`."""
    sparsities: np.ndarray
    """Each model's target, `[models]`, 0 for dense ones."""
    state: TrainState
    step: int
    """Steps trained so far, through all stages."""
    total_steps: int
    class_names: tuple[str, ...]
    data_checksum: str
    damaged: tuple[int, ...] = ()
    """Steps of newer checkpoints, which cannot be read."""

    @property
    def frozen(self) -> np.ndarray:
        """Which models diverged or collapsed, and so were not trained to the end, bool `[models]`."""
        return np.asarray(self.state.frozen_at) >= 0

    def predict(self, images: UInt8[np.ndarray, "examples height width channels"]) -> np.ndarray:
        """The class each model predicts, int32 `[models, examples]`."""
        predictions = np.empty((len(self.seeds), len(images)), np.int32)
        if "head" not in self.state.params:
            raise UserError(
                f"{self.config.experiment.name} has no linear head at step {self.step}; train it to the end"
            )
        for models, examples, _, logits, _ in population.apply_in_batches(self.config, self.state, images):
            predictions[models, examples] = np.argmax(np.asarray(logits), axis=-1)
        return predictions

    def representations(self, images: UInt8[np.ndarray, "examples height width channels"]) -> np.ndarray:
        """The encoder's un-normalised output, float32 `[models, examples, dim]`."""
        dim = 64 * self.config.model.widen_factor
        representations = np.empty((len(self.seeds), len(images), dim), np.float32)
        for models, examples, batch, _, _ in population.apply_in_batches(self.config, self.state, images):
            representations[models, examples] = batch
        return representations


@contextlib.contextmanager
def open_manager(
    run_dir: Path, config: Config, resume_at: int | None = None, damaged: tuple[int, ...] = ()
) -> Iterator[ocp.CheckpointManager]:
    """The run's Orbax manager: asynchronous, keeping the newest `config.checkpoint.keep`; at the end all is written.

    It only reads, unless training is to `resume_at` a step: then what a killed process left half written goes, and
    the `damaged` checkpoints.

    Raises:
        UserError: if there are other checkpoints of later steps, or the disk refuses what is written in the block.
    """
    writes = resume_at is not None
    me = jax.process_index()
    involved = {} if writes else {"primary_host": me, "active_processes": {me}, "barrier_sync_key_prefix": f"read{me}"}
    options = ocp.CheckpointManagerOptions(
        max_to_keep=config.checkpoint.keep,
        create=False,
        read_only=not writes,
        cleanup_tmp_directories=writes,
        multiprocessing_options=ocp.options.MultiprocessingOptions(**involved),
    )
    handlers = {"state": ocp.StandardCheckpointHandler(), "note": ocp.JsonCheckpointHandler()}
    place = run_dir / "checkpoints" if is_remote(run_dir) else (run_dir / "checkpoints").absolute()
    manager = ocp.CheckpointManager(place, options=options, item_handlers=handlers)
    try:
        with manager:
            if writes and max((set(manager.all_steps()) - set(damaged)), default=0) > resume_at:
                raise UserError(f"{run_dir} was trained by another process in this moment; run it again")
            for step in damaged:
                manager.delete(step)
            yield manager
    except (ValueError, OSError) as error:
        if (trouble := _disk_trouble(error)) is None:
            raise
        raise UserError(f"{run_dir}: cannot write a checkpoint: {trouble}; {KEPT}") from None


def _disk_trouble(error: Exception) -> str | None:
    """What the system says is wrong with the disk, if that is what the error tells; not that something is missing."""
    found = re.search(r"os_error_code='(\d+)'", str(error))  # as tensorstore says it
    code = int(found[1]) if found else getattr(error, "errno", None)
    return None if code in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR) else os.strerror(code)


def save(manager: ocp.CheckpointManager, config: Config, step: int, state: TrainState) -> None:
    """Starts to write `state`, `[models, ...]` or `population.Progress.arrays`, in the background.

    Raises:
        UserError: if there is no room for it.
    """
    manager.wait_until_finished()
    hosts.together(lambda: require_room(manager.directory, state, 1, KEPT))
    texts = hosts.gather_texts(json.dumps(_digests(state)))
    digests = {int(row): text for found in map(json.loads, texts) for row, text in found.items()}
    who, rows = population.members(config), len(jax.tree.leaves(state)[0])
    note = {"format": FORMAT, "config": to_json(config), "rows": rows}
    note["digests"] = [digests[row] for row in range(len(who))]
    manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), note=ocp.args.JsonSave(note)))


def _digests(state: TrainState) -> dict[int, str]:
    """One of each model that this process has, by its row."""
    leaves = [local_rows(leaf) for leaf in jax.tree.leaves(state)]
    return {
        start + row: digest(*(blocks[start][row : row + 1] for blocks in leaves))
        for start, block in leaves[0].items()
        for row in range(len(block))
    }


def stage_of(stage_steps: dict[str, int], step: int) -> str:
    """The stage that a checkpoint at `step` belongs to; at the border of two it is the earlier one."""
    ends = itertools.accumulate(stage_steps.values())
    return next(name for name, end in zip(stage_steps, ends, strict=True) if step <= end)


def load_population(run_dir: str | Path) -> Population:
    """Restores the newest checkpoint of a run to NumPy, on any machine; with a warning an older one if it is damaged.

    Raises:
        UserError: if the directory is no run, or has no checkpoint that can be read, or one that cannot be this run's.
    """
    restored = newest(epath.Path(run_dir))
    if restored is None:
        raise UserError(f"{run_dir}: no checkpoint yet; train it first")
    return restored


def newest(run_dir: Path) -> Population | None:
    """As `load_population`; None for a run that has no checkpoint yet."""
    config, provenance = load_config(run_dir), load_provenance(run_dir)
    damaged = {}
    with open_manager(run_dir, config) as manager:
        for step in sorted(manager.all_steps(), reverse=True):
            try:
                restored = _restore(manager, config, provenance, step)
            except UserError as error:
                raise UserError(f"{run_dir}: checkpoint {step} {error}") from None
            except (ValueError, OSError, KeyError, TypeError) as error:
                if trouble := _disk_trouble(error):
                    raise UserError(f"{run_dir}: checkpoint {step} cannot be read: {trouble}") from None
                damaged[step] = f"checkpoint {step} is damaged ({' '.join(str(error).split())[:120]})"
                continue
            if damaged:
                told = "; ".join(damaged.values())
                warnings.warn(f"{run_dir}: {told}; checkpoint {step} is taken instead", stacklevel=2)
            return dataclasses.replace(restored, damaged=tuple(damaged))
    if damaged:
        told = "; ".join(damaged.values())
        raise UserError(f"{run_dir}: {told}; none is left: move the directory away and train it again")
    return None


def _restore(manager: ocp.CheckpointManager, config: Config, provenance: dict[str, Any], step: int) -> Population:
    """One checkpoint. A UserError if it cannot be this run's; others if it is damaged."""
    who, stage_steps, classes = population.members(config), provenance["stage_steps"], provenance["class_names"]
    note = manager.restore(step, args=ocp.args.Composite(note=ocp.args.JsonRestore()))["note"]
    if note["format"] != FORMAT:
        raise UserError(f"is of format {note['format']}, this version of prunejax reads {FORMAT}; use the one it is of")
    if different := differences(config, from_json(note["config"], "has a note that is"), ("measure",)):
        raise UserError(f"is of other settings than config.json ({'; '.join(different)}); was that edited? undo it")
    if tuple(stage_steps) != config.experiment.stages or step > sum(stage_steps.values()):
        raise UserError(f"does not fit the stages in provenance.json ({stage_steps}); was that edited? undo it")
    stage = stage_of(stage_steps, step)
    # As many rows as were written: those beyond the members are padding of the devices it was trained on.
    shapes = state_shapes(config, stage, note["rows"], provenance["image_shape"], len(classes))
    template = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(template)))["state"]
    state = jax.tree.map(lambda leaf: leaf[: len(who)], state)
    if list(_digests(state).values()) != note["digests"]:
        raise ValueError("its arrays are not those that were written")
    leaves = jax.tree.leaves((state.params, state.batch_stats))
    finite = np.all([np.isfinite(leaf).reshape(len(who), -1).all(1) for leaf in leaves], axis=0)
    if not finite.all():
        raise UserError(f"holds weights that are not finite, of seeds {who.seeds[~finite].tolist()}")
    _check_masks(config, stage_steps, step, who, state)
    total, checksum = sum(stage_steps.values()), provenance["data_checksum"]
    return Population(config, who.seeds, who.sparsities, state, step, total, classes, checksum)


def _check_masks(config: Config, stage_steps: dict[str, int], step: int, who: Members, state: TrainState) -> None:
    """Refuses masks that are not of the sparsity that the schedule asks for."""
    first, *_ = stage_steps
    prunable = train.prunable_leaves(config, first)
    for row in np.flatnonzero(state.frozen_at < 0):
        masks = jax.tree.map(lambda leaf, r=row: leaf[r], state.masks)
        expected = train.sparsity_after(config, min(step, stage_steps[first]), float(who.sparsities[row]))
        found = float(prune.sparsity(masks, prunable))
        if abs(found - expected) > 1e-3:
            raise UserError(
                f"has masks of sparsity {found:.4f} for seed {who.seeds[row]} where the schedule has {expected:.4f}"
            )


def load_parent(config: Config, workdir: Path, who: Members, data_checksum: str) -> TrainState:
    """The dense parent's final state for each member of `who`, by seed.

    Raises:
        UserError: if the parent is missing, unfinished, made with other settings or data, or lacks a seed.
    """
    parent = config.experiment.parent
    run_dir = workdir / str(parent)
    command = f"train it first: --experiment={parent}"
    if not (run_dir / "config.json").exists():
        raise UserError(f"{config.experiment.name} prunes the dense run {run_dir}, which is missing; {command}")
    dense = load_population(run_dir)
    if dense.step < dense.total_steps:
        raise UserError(f"{run_dir} stands at step {dense.step} of {dense.total_steps}; {command}")
    different = differences(config, dense.config, (*FREE, "preset", "models", "seed", "finetune", "prune"))
    if different := different + differing_data(data_checksum, dense.data_checksum):
        raise UserError(f"{run_dir} was made with other settings ({'; '.join(different)}); use another --workdir")
    rows = {int(seed): row for row, seed in enumerate(dense.seeds)}
    missing = sorted(set(who.seeds.tolist()) - rows.keys())
    if missing:
        raise UserError(f"{run_dir} has no models of the seeds {missing}; lower --models or train more dense ones")
    index = np.array([rows[seed] for seed in who.seeds.tolist()])
    return jax.tree.map(lambda leaf: leaf[index], dense.state)
