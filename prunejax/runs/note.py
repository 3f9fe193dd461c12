"""The note with the arrays of a checkpoint: its format, its settings, and a digest of each model.

A damaged file may well be restored with other numbers in it: only the digests show that.
"""

import hashlib
import json
from typing import Any

import jax
import orbax.checkpoint as ocp

from prunejax.config import Config, UserError, to_json
from prunejax.data import digest
from prunejax.pruning.masks import name_of
from prunejax.runs.manager import read_arrays, read_note
from prunejax.training import hosts
from prunejax.training.devices import local_rows
from prunejax.training.members import members_of
from prunejax.training.state import TrainState
from prunejax.types import Tree

RENAMED = {"frozen_at": "failed_at"}
"""Arrays of version 0.2.0, and what they are called now."""


class Damaged(Exception):
    """A checkpoint is not the one that was written; the message says what differs."""


def make_note(version: int, config: Config, state: TrainState) -> dict[str, Any]:
    """Returns the note of a checkpoint, with its own digest; all processes call it.

    Args:
        version: the format of the checkpoint.
        config: of the run.
        state: what is saved, `[models, ...]`.
    """
    digests: dict[int, str] = {}
    for text in hosts.gather_texts(json.dumps(_digests_of(state))):
        for row, digest_of_row in json.loads(text).items():
            digests[int(row)] = digest_of_row
    note = {
        "format": version,
        "config": to_json(config),
        "rows": len(jax.tree.leaves(state)[0]),
        "digests": [digests[row] for row in range(len(members_of(config)))],
    }
    return note | {"digest": _digest_of(note)}


def load_note(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """Returns the note of a checkpoint.

    Raises:
        Damaged: if it is not the one that was written.
        Exception: whatever Orbax raises for a file that it cannot read.
    """
    note = read_note(manager, step)
    if not isinstance(note, dict) or note.pop("digest", None) != _digest_of(note):
        raise Damaged("its note is not the one that was written")
    return note


def read_state(
    manager: ocp.CheckpointManager, step: int, note: dict[str, Any], like: Tree
) -> TrainState:
    """Returns the arrays of a checkpoint, all rows, in the structure of `like`.

    Args:
        manager: of the run.
        step: of the checkpoint.
        note: of the checkpoint.
        like: a state of these settings, or its shapes.

    Raises:
        Damaged: if they are not those that were written.
        UserError: if they are of another structure.
        Exception: whatever Orbax raises for a file that it cannot read.
    """
    arrays = read_arrays(manager, step)
    arrays = {RENAMED.get(name, name): array for name, array in arrays.items()}
    names = [name_of(path) for path, _ in jax.tree.leaves_with_path(like)]
    if set(names) != set(arrays):
        different = sorted(set(names) ^ set(arrays))
        raise UserError(
            f"has other arrays than these settings make ({', '.join(different)}); use the "
            "versions in provenance.json"
        )
    leaves = [arrays[name] for name in names]
    state = jax.tree.unflatten(jax.tree.structure(like), leaves)
    digests = list(_digests_of(state).values())
    if digests[: len(note["digests"])] != note["digests"]:
        raise Damaged("its arrays are not those that were written")
    return state


def _digest_of(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _digests_of(state: TrainState) -> dict[int, str]:
    """One digest for each model that this process has, by its row."""
    leaves = [local_rows(leaf) for leaf in jax.tree.leaves(state)]
    digests = {}
    for start, block in leaves[0].items():
        for row in range(len(block)):
            model = [blocks[start][row : row + 1] for blocks in leaves]
            digests[start + row] = digest(*model)
    return digests
