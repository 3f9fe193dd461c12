"""The trial of a place: a small checkpoint, before anything is trained for a large one."""

import contextlib
import time
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh

from prunejax.config import UserError
from prunejax.runs.directory import TRIAL, is_remote
from prunejax.runs.manager import make_manager, read_arrays, read_note, what_failed, write
from prunejax.training import hosts
from prunejax.training.devices import PER_MODEL, place
from prunejax.types import Path


def try_out(run_dir: Path) -> None:
    """Writes a small checkpoint, reads it back and removes it, as the run's own will be.

    So a place that cannot keep them is found out before anything is trained.

    Raises:
        UserError: if it cannot be written, or reads back as something else.
    """
    if not hosts.alone() and not is_remote(run_dir):
        _require_shared(run_dir / "checkpoints")
    try:
        # It keeps all: the step is older than those of a run that is resumed.
        with make_manager(run_dir, keep=None, writes=True) as manager:
            for work in (_write_sample, _read_sample, _remove_sample):
                hosts.on_all_processes(partial(_or_refuse, work, run_dir, manager))
    except Exception as error:
        if hosts.is_first():
            _remove_leftovers(run_dir / "checkpoints")
        if isinstance(error, UserError):
            raise
        raise _refusal(run_dir, error) from error


def _or_refuse(
    work: Callable[[Path, ocp.CheckpointManager], None],
    run_dir: Path,
    manager: ocp.CheckpointManager,
) -> None:
    try:
        work(run_dir, manager)
    except Exception as error:
        raise _refusal(run_dir, error) from error


def _refusal(run_dir: Path, error: Exception) -> UserError:
    return UserError(
        f"{run_dir}: no checkpoint can be written and read back there ({what_failed(error)}); "
        "use another --workdir"
    )


def _sample() -> dict[str, jax.Array]:
    """A row for every device, so that every process writes."""
    devices = np.array(jax.devices())
    rows = np.arange(100 * len(devices), dtype=np.float32).reshape(len(devices), 100)
    return place({"sample": rows}, Mesh(devices, ("models",)), PER_MODEL)


SAMPLE_NOTE = {"sample": "äöü"}


def _write_sample(run_dir: Path, manager: ocp.CheckpointManager) -> None:
    if TRIAL in manager.all_steps():  # of a process that was killed here
        manager.delete(TRIAL)
    write(manager, TRIAL, _sample(), SAMPLE_NOTE)
    manager.wait_until_finished()


def _read_sample(run_dir: Path, manager: ocp.CheckpointManager) -> None:
    """Each process for itself, and all of it."""
    with make_manager(run_dir, keep=None, writes=False) as reader:
        note, arrays = read_note(reader, TRIAL), read_arrays(reader, TRIAL)
    rows = np.arange(100 * len(jax.devices()), dtype=np.float32)
    if note != SAMPLE_NOTE or not np.array_equal(arrays["sample"].ravel(), rows):
        raise ValueError("what is read is not what was written")


def _remove_sample(run_dir: Path, manager: ocp.CheckpointManager) -> None:
    manager.delete(TRIAL)


def _remove_leftovers(checkpoints: Path) -> None:
    """What a trial that failed has left."""
    with contextlib.suppress(OSError):
        for path in list(checkpoints.iterdir()):
            if path.name.split(".")[0] == str(TRIAL):
                epath.Path(path).rmtree()


def _require_shared(directory: Path) -> None:
    """Refuses a directory that is not the same for all processes, or that one cannot write in.

    Otherwise Orbax's processes would wait for one another.

    Raises:
        UserError: naming the process.
    """
    marks = [directory / f".process_{index}" for index in range(jax.process_count())]
    own = marks[jax.process_index()]
    try:
        hosts.on_all_processes(partial(_leave, own))
        hosts.on_all_processes(partial(_await, marks))
    finally:
        with contextlib.suppress(OSError):
            own.unlink()


def _leave(mark: Path) -> None:
    """Writes an empty file."""
    try:
        _await([mark.parent])
        mark.write_text("")
    except OSError as error:
        raise UserError(
            f"{mark.parent}: process {jax.process_index()} cannot write there ({error.strerror}); "
            f"{SHARE}"
        ) from None


def _await(paths: list[Path]) -> None:
    """Waits for what other processes have written: a shared disk may show it late."""
    deadline = time.monotonic() + hosts.SILENCE_S
    for path in paths:
        while not path.exists():
            if time.monotonic() > deadline:
                raise UserError(f"{path}: process {jax.process_index()} does not see it; {SHARE}")
            nearest = next(parent for parent in path.parents if parent.exists())
            list(nearest.iterdir())  # so that NFS looks again
            time.sleep(0.5)


SHARE = "all processes need the same --workdir, on a disk that they share"
