"""What proves that a checkpoint is damaged, so that it may be thrown away; nothing else does.

Once a checkpoint is whole, a record of its files is laid beside them: a file that is missing or
differs from it is proof. Where there is none (of format 3, or killed before it was written) only
what could not be so in a checkpoint that was written whole is.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from etils import epath

from prunejax.runs.directory import is_remote, write_whole
from prunejax.types import Path

RECORD = "files.json"
"""In the directory of a step: of each of its files the size and, on a disk, the SHA-256."""
CHUNK = 2**20
"""Bytes that are read at once."""


class Damaged(Exception):
    """Raised for what is proved to be damage; says what is not as it was written."""


# ------------------------------------------------------------------ digests of texts


def with_digest(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` and their own digest, by which a changed one is told."""
    return fields | {"digest": _digest(fields)}


def digest_holds(fields: Any) -> bool:  # noqa: ANN401
    """Whether the fields are those that `with_digest` was given; True of those without one."""
    if not isinstance(fields, dict):
        return False
    rest = {name: value for name, value in fields.items() if name != "digest"}
    return fields.get("digest", _digest(rest)) == _digest(rest)


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


# ------------------------------------------------------------------------ the record


def record(step_dir: Path) -> None:
    """Notes what the files of a whole checkpoint are, if that is not noted yet.

    On a disk that refuses it there is no record, and nothing else is lost.
    """
    path = step_dir / RECORD
    with contextlib.suppress(OSError):
        if path.exists():
            return
        files = {}
        for name, file in _files(step_dir):
            files[name] = _describe(file)
        write_whole(path, json.dumps(with_digest({"files": files}), indent=1) + "\n")


def _files(step_dir: Path) -> Iterator[tuple[str, Path]]:
    """Every file under a directory, but the record and hidden ones, by its name from there."""
    for path in sorted(step_dir.iterdir()):
        if path.is_dir():
            for name, file in _files(path):
                yield f"{path.name}/{name}", file
        elif path.name != RECORD and not path.name.startswith("."):
            yield path.name, path


def _describe(file: Path) -> dict[str, Any]:
    if is_remote(file):  # which checks the sums of what it holds by itself
        return {"size": epath.Path(file).stat().length}
    sha, size = hashlib.sha256(), 0
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            sha.update(chunk)
            size += len(chunk)
    return {"size": size, "sha256": sha.hexdigest()}


def _read_record(step_dir: Path) -> dict[str, Any] | None:
    """What was noted of each file; None if nothing was, or that is damaged itself."""
    try:
        fields = json.loads((step_dir / RECORD).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    if not digest_holds(fields) or "digest" not in fields:
        return None
    return fields["files"]


# ------------------------------------------------------------------------- the proof


def proof(step_dir: Path, error: Exception) -> str | None:
    """What shows that a checkpoint is damaged.

    Args:
        step_dir: of the checkpoint.
        error: with which its restoration has failed.

    Returns:
        One line; None if nothing shows it, and the error may have any other cause.
    """
    if isinstance(error, Damaged):
        return str(error)
    recorded = _read_record(step_dir)
    if recorded is None:
        return _nonsense(step_dir, error)
    for name, described in recorded.items():
        trouble = _difference(step_dir / name, described)
        if trouble:
            return f"{name} {trouble}"
    return None


def _difference(file: Path, described: dict[str, Any]) -> str | None:
    try:
        if _describe(file) == described:
            return None
        return "is not as it was written"
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError:  # such as a disk that refuses: the file may be whole
        return None


JSON = ("note/metadata", "state/_METADATA")
"""Files that every checkpoint has."""
NONSENSE = re.compile(
    "DATA_LOSS|OUT_OF_RANGE|Error decoding|Invalid JSON|Truncated Zstd|ZSTD_decompress"
)
"""What TensorStore says where a file's content is wrong, whoever reads it."""
NOT_THERE = re.compile(r"NOT_FOUND.*Byte range .* of local file \"[^\"]+/(state/[^\"]+)\"")
"""What it says of a file that another one names."""


def _nonsense(step_dir: Path, error: Exception) -> str | None:
    """A proof without a record."""
    for name in (*JSON, "state/_sharding"):
        try:
            json.loads((step_dir / name).read_text())
        except (FileNotFoundError, NotADirectoryError):
            if name in JSON:
                return f"{name} is missing"
        except (ValueError, RecursionError) as nonsense:
            return f"{name} is no JSON: {nonsense}"
        except OSError:
            continue
    state = step_dir / "state"
    # Without both, its parts were never brought together, and are all there.
    if (state / "d").exists() and not (state / "manifest.ocdbt").exists():
        return "state/manifest.ocdbt is missing"
    told = " ".join(str(error).split())
    if isinstance(error, ValueError) and NONSENSE.search(told):
        return told[:120]
    named = NOT_THERE.search(told)
    if named and not (step_dir / named[1]).exists():
        return f"{named[1]} is missing"
    return None
