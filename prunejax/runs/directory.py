"""A run's directory: what it says about itself, and which process may write in it.

`<run_dir>/{config.json, provenance.json, metrics.jsonl, checkpoints/<step>/, measures/}`, on a disk
or in a bucket (`gs://`, `s3://`). A bucket has no locks, and its room is not checked.
"""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import PurePath
from typing import TextIO

import jax

from prunejax.config import Config, UserError, differences, load_config, to_json
from prunejax.data import Dataset
from prunejax.runs.provenance import load_provenance, this_session
from prunejax.training import hosts
from prunejax.types import Path, Tree


def check_run(run_dir: Path, config: Config, dataset: Dataset) -> bool:
    """Returns whether this run was started before. Changes nothing.

    Raises:
        UserError: if the directory holds a run of other result-defining settings, or of other
            data, or one that is being trained, or measures of models that are not there.
    """
    require_no_backslash(run_dir)
    if not (run_dir / "config.json").exists():
        if _has_checkpoints(run_dir):
            raise UserError(
                f"{run_dir} has checkpoints but no config.json; put that back, "
                "or use another --workdir"
            )
        return False
    different = differences(config, load_config(run_dir))
    different += differing_data(dataset.checksum, load_provenance(run_dir)["data_checksum"])
    if different:
        raise UserError(
            f"{run_dir} holds another run ({'; '.join(different)}); use another --workdir"
        )
    if (run_dir / ".lock").exists():
        with open(run_dir / ".lock") as file:
            _lock(file, fcntl.LOCK_SH)
    if not _has_checkpoints(run_dir) and _has_measures(run_dir):
        raise UserError(
            f"{run_dir} has measures but no checkpoints: it was joined, or they were removed; it "
            "can be reported, not trained; use another --workdir, or delete it to train it again"
        )
    return True


def _has_measures(run_dir: Path) -> bool:
    """Whether its models were measured, as only those of a finished run are."""
    directory = run_dir / "measures"
    return directory.exists() and any(path.suffix == ".npz" for path in directory.iterdir())


def _has_checkpoints(run_dir: Path) -> bool:
    """Whether there are any, complete or half written."""
    directory = run_dir / "checkpoints"
    if not directory.exists():
        return False
    # Not by a glob, which would take a bracket in the path for a pattern.
    return any(path.name.split(".")[0].isdigit() for path in directory.iterdir())


def require_no_backslash(run_dir: Path) -> None:
    """Refuses a path that TensorStore, which writes the arrays, takes for another.

    Raises:
        UserError: if there is a backslash in it.
    """
    path = run_dir if is_remote(run_dir) else run_dir.absolute()
    if "\\" in str(path):
        raise UserError(
            f"{path}: checkpoints cannot be kept where a path has a backslash; rename it"
        )


def differing_data(ours: str, theirs: str) -> list[str]:
    """As `config.differences`, of two data checksums."""
    if ours == theirs:
        return []
    return [f"data checksum: {ours}, not {theirs}"]


@contextlib.contextmanager
def open_run(
    run_dir: Path,
    config: Config,
    dataset: Dataset,
    stage_steps: dict[str, int],
    state: Tree,
) -> Iterator[None]:
    """Creates the run directory if needed, notes this session in it, and holds its lock.

    With several processes the first does; all go on when it is done.

    Args:
        run_dir: the directory.
        config: written into its `config.json`.
        dataset: that the run trains on.
        stage_steps: of each stage.
        state: the population's, or its shapes: room for checkpoints of it must be there.

    Raises:
        UserError: if it cannot be written, is being trained by another process, or has no room.
            What this call has created is then removed.
    """
    provenance = {
        "data_checksum": dataset.checksum,
        "class_names": dataset.class_names,
        "image_shape": dataset.image_shape,
        "stage_steps": stage_steps,
    }
    with contextlib.ExitStack() as held:
        with contextlib.ExitStack() as undo:

            def claim() -> None:
                if hosts.is_first():
                    copies = config.checkpoint.keep + len(config.checkpoint.keep_at) + 1
                    require_room(run_dir, state, copies, "make room, or use another --workdir")
                    _claim(run_dir, held, undo)

            def note() -> None:
                if hosts.is_first():
                    _note_session(run_dir, config, provenance, undo)

            hosts.on_all_processes(claim)
            hosts.on_all_processes(note)
            undo.pop_all()
        _require_shared(run_dir)
        yield


def _claim(run_dir: Path, held: contextlib.ExitStack, undo: contextlib.ExitStack) -> None:
    """Creates the directory and takes its lock."""
    checkpoints = run_dir / "checkpoints"
    try:
        if is_remote(run_dir):
            checkpoints.mkdir(parents=True, exist_ok=True)
            return
        lacking = [path for path in (checkpoints, *checkpoints.parents) if not path.exists()]
        for path in reversed(lacking):
            path.mkdir(exist_ok=True)
            undo.callback(_remove_empty, path)
        path = run_dir / ".lock"
        is_new = not path.exists()
        file = held.enter_context(open(path, "a+"))
        _lock(file)
        if is_new:
            undo.callback(path.unlink, missing_ok=True)
        file.truncate(0)
        owner = f"process {os.getpid()} on {socket.gethostname()}"
        print(owner, file=file, end="", flush=True)
    except OSError as error:
        raise _cannot_write(run_dir, error) from None


def _note_session(
    run_dir: Path, config: Config, provenance: dict[str, object], undo: contextlib.ExitStack
) -> None:
    """Writes `provenance.json` and `config.json`."""
    sessions = []
    if (run_dir / "config.json").exists():
        sessions = load_provenance(run_dir)["sessions"]
    else:
        undo.callback((run_dir / "config.json").unlink, missing_ok=True)
        undo.callback((run_dir / "provenance.json").unlink, missing_ok=True)
    provenance = provenance | {"sessions": [*sessions, this_session()]}
    try:
        write_whole(run_dir / "provenance.json", json.dumps(provenance, indent=2) + "\n")
        write_whole(run_dir / "config.json", to_json(config))
    except OSError as error:
        raise _cannot_write(run_dir, error) from None


def _require_shared(run_dir: Path) -> None:
    """Refuses a directory in which a process does not see what the first one has written.

    Otherwise the processes would wait for one another when they save.

    Raises:
        UserError: in all processes.
    """
    path = run_dir / "provenance.json"
    written = hosts.gather_texts(path.read_text() if hosts.is_first() else "")[0]

    def see() -> None:
        deadline = time.monotonic() + hosts.SILENCE_S
        while not path.exists() or path.read_text() != written:
            if time.monotonic() > deadline:
                raise UserError(
                    f"{run_dir}: process {jax.process_index()} does not see what process 0 writes; "
                    "all processes need the same --workdir, on a disk that they share"
                )
            time.sleep(0.5)  # a shared disk may show it late

    hosts.on_all_processes(see)


def rewrite_config(run_dir: Path, config: Config) -> None:
    """Writes `config.json` anew, for settings that may change once a run is trained.

    Raises:
        UserError: if it cannot be written.
    """
    try:
        write_whole(run_dir / "config.json", to_json(config))
    except OSError as error:
        raise _cannot_write(run_dir, error) from None


def _cannot_write(run_dir: Path, error: OSError) -> UserError:
    return UserError(f"{run_dir}: cannot write there: {error.strerror or error}")


def _remove_empty(directory: Path) -> None:
    """Removes a directory, unless another process has put something into it."""
    with contextlib.suppress(OSError):
        os.rmdir(directory)


def require_room(directory: Path, state: Tree, copies: int, otherwise: str) -> None:
    """Refuses a disk without room for checkpoints.

    Args:
        directory: where they will be.
        state: the arrays, or their shapes.
        copies: how many checkpoints.
        otherwise: what to do without the room, for the error.

    Raises:
        UserError: with both sizes.
    """
    if is_remote(directory):
        return
    parents = (directory, *directory.absolute().parents)
    existing = next(path for path in parents if path.exists())
    needed = copies * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"{existing}: {copies} checkpoints need {needed / 2**20:.1f} MiB and "
            f"{free / 2**20:.1f} MiB are free; {otherwise}"
        )


def is_remote(path: Path) -> bool:
    """Whether a path is in a bucket, where files are written whole, and not appended to."""
    return "://" in str(path)


def _lock(file: TextIO, kind: int = fcntl.LOCK_EX) -> None:
    """Takes the lock for as long as `file` is open.

    The system releases it when the process ends, however it ends.
    """
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read() or "another process"
        raise UserError(
            f"{PurePath(file.name).parent}: {owner} trains this run; wait for it, or stop it"
        ) from None


def write_whole(path: Path, text: str) -> None:
    """Writes a file that appears complete or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path, which is renamed `path` if the block ends without an error."""
    if is_remote(path):
        yield path
        return
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
