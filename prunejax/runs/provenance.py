"""`provenance.json`: the data, the stages, and every session that trained the run."""

import datetime
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import PurePath
from typing import Any

import jax

from prunejax.config import UserError
from prunejax.nn import onednn
from prunejax.types import Path

PACKAGES = ("prunejax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
UNKNOWN = "unknown"


def load_provenance(run_dir: Path) -> dict[str, Any]:
    """What `directory.open_run` wrote.

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
            "commits": [str(session["commit"]) for session in provenance["sessions"]],
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: no readable provenance ({type(error).__name__}: {error})"
        ) from None


def this_session() -> dict[str, Any]:
    """When and by what this process was started, and what it runs with."""
    device = jax.devices()[0]
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit_of(PurePath(__file__)),
        "command": [PurePath(sys.argv[0]).name, *sys.argv[1:]],
        "versions": _versions(),
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
        },
        "processes": jax.process_count(),
        "convolutions": onednn.used(),
        "matmul_precision": getattr(jax.config, "jax_default_matmul_precision", None) or "default",
    }


def _versions() -> dict[str, str]:
    versions = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # a copy that was not installed
            versions[package] = UNKNOWN
    return versions


def commit_of(source: PurePath) -> str:
    """The commit of a source tree, with `-dirty` for local changes; else `unknown`.

    An installed package has none: a virtual environment may well lie inside a repository, of which
    it is no part.

    Args:
        source: a file of `<tree>/prunejax/runs/`.
    """
    tree = source.parents[2]
    try:
        top = _git(source, "rev-parse", "--show-toplevel")
        if not os.path.samefile(top, tree):
            return UNKNOWN
        _git(source, "ls-files", "--error-unmatch", source.name)
        return _git(source, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN


def _git(source: PurePath, *arguments: str) -> str:
    """What git prints of the repository that a file lies in; not of one that GIT_DIR names."""
    environment = {name: v for name, v in os.environ.items() if name not in ELSEWHERE}
    done = subprocess.run(
        ["git", *arguments],
        cwd=source.parent,
        env=environment,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=True,
    )
    return done.stdout.removesuffix("\n")


ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")
"""Variables that name a repository, as git sets them for its hooks."""
