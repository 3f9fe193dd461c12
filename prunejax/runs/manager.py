"""Orbax's manager of a run's checkpoints: opened, written to, read from."""

import contextlib
import errno
import glob
import os
import re
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
from prunejax.runs import damage
from prunejax.runs.directory import TRIAL, is_remote, require_keepable
from prunejax.training import hosts
from prunejax.types import Path, Tree

KEPT = "the checkpoints before are whole: make room, and run it again to go on"


class _LiteralPath(type(epath.Path("/"))):
    """A path none of whose own characters is a pattern.

    Orbax finds the parts that it brings together by a glob, and etils' takes `lr[0.1]` for one.
    """

    def glob(self, pattern: str) -> Iterator[epath.Path]:
        for name in glob.glob(pattern, root_dir=os.fspath(self)):
            yield self / name


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
    kept = config.checkpoint
    manager = make_manager(run_dir, kept.keep, writes, kept.keep_at)
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
            if writes:
                manager.wait_until_finished()
                hosts.on_all_processes(lambda: record_newest(manager))
    except (ValueError, OSError) as error:
        trouble = disk_trouble(error)
        if trouble is None:
            raise
        raise UserError(f"{run_dir}: cannot write a checkpoint: {trouble}; {KEPT}") from None


def make_manager(
    run_dir: Path, keep: int | None, writes: bool, keep_at: tuple[int, ...] = ()
) -> ocp.CheckpointManager:
    """As `open_manager`, which is what to use for a run's own checkpoints.

    Args:
        run_dir: the run's directory.
        keep: how many checkpoints are kept; None keeps all.
        writes: whether it may write; if not, each process reads for itself.
        keep_at: steps whose checkpoints are kept besides.
    """
    require_keepable(run_dir)
    me = jax.process_index()
    involved: dict[str, Any] = {}
    if not writes:
        involved["primary_host"] = me
        involved["active_processes"] = {me}
        involved["barrier_sync_key_prefix"] = f"read{me}"
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(
            [policies.LatestN(keep), policies.CustomSteps(keep_at)]
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


def disk_trouble(error: Exception) -> str | None:
    """What the system says is wrong with the disk; None if something is missing, or it is else."""
    found = re.search(r"os_error_code='(\d+)'", str(error))  # as tensorstore says it
    code = int(found[1]) if found else getattr(error, "errno", None)
    if code in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return None
    return os.strerror(code)


def what_failed(error: Exception) -> str:
    """In one line, by the system's word if it is the disk."""
    return disk_trouble(error) or in_one_line(error)


def steps_of(manager: ocp.CheckpointManager) -> list[int]:
    """The steps of the checkpoints, the newest first."""
    return sorted(set(manager.all_steps()) - {TRIAL}, reverse=True)


def write(manager: ocp.CheckpointManager, step: int, state: Tree, note: dict[str, Any]) -> None:
    """Starts to write a checkpoint, in the background, also one older than those there are."""
    arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), note=ocp.args.JsonSave(note))
    manager.save(step, args=arguments, force=True)


def read_note(manager: ocp.CheckpointManager, step: int) -> Any:  # noqa: ANN401
    """What lies beside the arrays of a checkpoint."""
    only_note = ocp.args.Composite(note=ocp.args.JsonRestore())
    return manager.restore(step, args=only_note)["note"]


def read_arrays(manager: ocp.CheckpointManager, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, as it says itself that they are, by the name of its leaf."""
    found = manager.item_metadata(step)["state"].tree
    template = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), found)
    only_state = ocp.args.Composite(state=ocp.args.StandardRestore(template))
    state = manager.restore(step, args=only_state)["state"]
    return {name_of(path): leaf for path, leaf in jax.tree.leaves_with_path(state)}


def record_newest(manager: ocp.CheckpointManager) -> None:
    """Notes what the files of the newest checkpoint are, which is whole; the first process does."""
    steps = steps_of(manager)
    if hosts.is_first() and steps:
        damage.record(manager.directory / str(steps[0]))
