"""Orbax's manager of a run's checkpoints: opened, written to, read from."""

import contextlib
import glob
import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from prunejax.config import Config, UserError
from prunejax.config.errors import in_one_line
from prunejax.pruning.masks import name_of
from prunejax.runs.directory import is_remote, require_no_backslash
from prunejax.types import Path, Tree

KEPT = "the checkpoints before it are complete: make room, and run it again to go on"


class _LiteralPath(type(epath.Path("/"))):
    """A path in which no character is a pattern.

    Orbax finds the parts that it merges by a glob, and etils' takes `lr[0.1]` for a pattern.
    """

    def glob(self, pattern: str) -> Iterator[epath.Path]:
        for name in glob.glob(pattern, root_dir=os.fspath(self)):
            yield self / name


@contextlib.contextmanager
def open_manager(
    run_dir: Path, config: Config, resume_at: int | None = None
) -> Iterator[ocp.CheckpointManager]:
    """Opens the run's Orbax manager, which saves in the background; at the end all is written.

    Args:
        run_dir: the run's directory.
        config: says which checkpoints are kept.
        resume_at: the step that training goes on from: what a killed process left half written is
            removed. None: it only reads, each process for itself.

    Raises:
        UserError: if there are checkpoints of later steps, or the last one cannot be written.
    """
    writes = resume_at is not None
    manager = _make_manager(run_dir, config, writes)
    try:
        if writes and max(manager.all_steps(), default=0) > resume_at:
            raise UserError(
                f"{run_dir} was trained by another process at the same time; run it again"
            )
        yield manager
    finally:
        with disk_errors(run_dir):
            manager.close()


def _make_manager(run_dir: Path, config: Config, writes: bool) -> ocp.CheckpointManager:
    require_no_backslash(run_dir)
    me = jax.process_index()
    involved: dict[str, Any] = {}
    if not writes:
        involved["primary_host"] = me
        involved["active_processes"] = {me}
        involved["barrier_sync_key_prefix"] = f"read{me}"
    kept = config.checkpoint
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(
            [policies.LatestN(kept.keep), policies.CustomSteps(kept.keep_at)]
        ),
        create=False,
        read_only=not writes,
        cleanup_tmp_directories=writes,
        multiprocessing_options=ocp.options.MultiprocessingOptions(**involved),
    )
    handlers = {"state": ocp.StandardCheckpointHandler(), "note": ocp.JsonCheckpointHandler()}
    directory = run_dir / "checkpoints"
    if not is_remote(run_dir):
        directory = _LiteralPath(directory.absolute())
    return ocp.CheckpointManager(directory, options=options, item_handlers=handlers)


@contextlib.contextmanager
def disk_errors(run_dir: Path) -> Iterator[None]:
    """Within the block a failed write is a UserError; Orbax raises that of a save at a later call.

    Raises:
        UserError: with the error of Orbax or TensorStore.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        raise UserError(
            f"{run_dir}: cannot write a checkpoint ({in_one_line(error)}); {KEPT}"
        ) from error


def steps_of(manager: ocp.CheckpointManager) -> list[int]:
    """The steps of the checkpoints, the newest first."""
    return sorted(manager.all_steps(), reverse=True)


def write(manager: ocp.CheckpointManager, step: int, state: Tree, note: dict[str, Any]) -> None:
    """Starts to write a checkpoint in the background.

    Args:
        manager: of the run.
        step: of the checkpoint.
        state: its arrays.
        note: next to them, see `note.make_note`.
    """
    arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), note=ocp.args.JsonSave(note))
    manager.save(step, args=arguments, force=True)


def read_note(manager: ocp.CheckpointManager, step: int) -> Any:  # noqa: ANN401
    """Returns the note of a checkpoint, unchecked."""
    only_note = ocp.args.Composite(note=ocp.args.JsonRestore())
    return manager.restore(step, args=only_note)["note"]


def read_arrays(manager: ocp.CheckpointManager, step: int) -> dict[str, np.ndarray]:
    """Returns every array of a checkpoint, as it was written, by the name of its leaf."""
    found = manager.item_metadata(step)["state"].tree
    template = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), found)
    only_state = ocp.args.Composite(state=ocp.args.StandardRestore(template))
    state = manager.restore(step, args=only_state)["state"]
    return {name_of(path): leaf for path, leaf in jax.tree.leaves_with_path(state)}
