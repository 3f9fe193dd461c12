"""A run's directory: what it says of itself, and who may write in it.

`<run_dir>/{config.json, provenance.json, metrics.jsonl, checkpoints/<step>/, measures/}`, on a disk
or in a bucket (`gs://`, `s3://`). A bucket has no locks, and room without end.
"""

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, TextIO

import jax

from prunejax.config import Config, UserError, differences, load_config, to_json
from prunejax.data import Dataset
from prunejax.training import hosts
from prunejax.types import Path, Tree


def check_run(run_dir: Path, config: Config, dataset: Dataset) -> bool:
    """Whether this run was begun before. Changes nothing.

    Raises:
        UserError: if the directory holds a run of other settings that decide results, or of other
            data, or one that is being trained.
    """
    if not (run_dir / "config.json").exists():
        if any((run_dir / "checkpoints").glob("[0-9]*")):
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
    return True


def differing_data(ours: str, theirs: str) -> list[str]:
    """As `config.differences`, of two data checksums."""
    if ours == theirs:
        return []
    return [f"data checksum: {ours}, not {theirs}"]


@contextlib.contextmanager
def open_run(
    run_dir: Path, config: Config, dataset: Dataset, stage_steps: dict[str, int], state: Tree
) -> Iterator[None]:
    """Creates the run directory if need be, notes this session in it, and holds its lock.

    Of several processes the first does; all go on when it is done.

    Args:
        run_dir: the directory.
        config: written into its `config.json`.
        dataset: that the run trains on.
        stage_steps: of each stage.
        state: the population's, or its shapes: room for checkpoints of it must be there.

    Raises:
        UserError: if it cannot be written, is being trained by another process, or has no room.
    """
    with contextlib.ExitStack() as stack:

        def begin() -> None:
            if hosts.is_first():
                _begin(stack, run_dir, config, dataset, stage_steps, state)

        hosts.on_all_processes(begin)
        yield


def _begin(
    stack: contextlib.ExitStack,
    run_dir: Path,
    config: Config,
    dataset: Dataset,
    stage_steps: dict[str, int],
    state: Tree,
) -> None:
    copies = config.checkpoint.keep + 1
    require_room(run_dir, state, copies, "make room, or use another --workdir")
    before = []
    if (run_dir / "config.json").exists():
        before = load_provenance(run_dir)["sessions"]
    provenance = {
        "data_checksum": dataset.checksum,
        "class_names": dataset.class_names,
        "image_shape": dataset.image_shape,
        "stage_steps": stage_steps,
        "sessions": [*before, _session()],
    }
    try:
        (run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
        if not is_remote(run_dir):
            file = stack.enter_context(open(run_dir / ".lock", "a+"))
            _lock(file)
            file.truncate(0)
            owner = f"process {os.getpid()} on {socket.gethostname()}"
            print(owner, file=file, end="", flush=True)
        write_whole(run_dir / "provenance.json", json.dumps(provenance, indent=2) + "\n")
        write_whole(run_dir / "config.json", to_json(config))
    except OSError as error:
        raise UserError(f"{run_dir}: cannot write there: {error.strerror}") from None


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

    The system lets go of it when the process ends, however it does.
    """
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read() or "another process"
        raise UserError(
            f"{PurePath(file.name).parent}: {owner} trains this run; wait for it, or stop it"
        ) from None


def load_provenance(run_dir: Path) -> dict[str, Any]:
    """What `open_run` wrote.

    Raises:
        UserError: if it is missing, cannot be read or lacks something.
    """
    path = run_dir / "provenance.json"
    try:
        provenance = json.loads(path.read_text())
        if not all(isinstance(name, str) for name in provenance["class_names"]):
            raise ValueError("class_names are not all text")
        height, width, channels = provenance["image_shape"]
        stage_steps = {}
        for stage, steps in provenance["stage_steps"].items():
            stage_steps[str(stage)] = int(steps)
        return {
            "data_checksum": str(provenance["data_checksum"]),
            "class_names": tuple(provenance["class_names"]),
            "image_shape": (int(height), int(width), int(channels)),
            "stage_steps": stage_steps,
            "sessions": list(provenance["sessions"]),
            "commit": str(provenance["sessions"][-1]["commit"]),
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: no readable provenance ({type(error).__name__}: {error})"
        ) from None


def write_whole(path: Path, text: str) -> None:
    """Writes a file that appears whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives where to write what is to be at `path`; it is there once the block has ended well."""
    if is_remote(path):
        yield path
        return
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


PACKAGES = ("prunejax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def _session() -> dict[str, Any]:
    versions = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        versions[package] = importlib.metadata.version(package)
    device = jax.devices()[0]
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "command": [PurePath(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions,
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
        },
        "processes": jax.process_count(),
    }


def _commit() -> str:
    """The commit of this source tree, with `-dirty` for local changes; `unknown` if installed."""
    command = "git describe --always --dirty --abbrev=40 --exclude=*"
    here = PurePath(__file__).parent
    try:
        described = subprocess.run(
            command.split(), cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
