"""The note beside the arrays of a checkpoint, and the arrays as far as they are those it notes.

It has the format, the configuration, and a digest of each model, because a damaged file may well be
restored with other numbers in it.
"""

import json
from typing import Any

import jax
import orbax.checkpoint as ocp

from prunejax.config import Config, to_json
from prunejax.data import digest
from prunejax.pruning.masks import name_of
from prunejax.runs.damage import Damaged, digest_holds, with_digest
from prunejax.runs.manager import read_arrays, read_note
from prunejax.training import hosts
from prunejax.training.devices import local_rows
from prunejax.training.members import members_of
from prunejax.training.state import TrainState
from prunejax.types import Tree

NOTED = ("format", "config", "rows", "digests")
"""What the note of every checkpoint has; since format 4 also its own digest."""


def make_note(
    version: int, config: Config, state: TrainState, stands_at: list[int] | None = None
) -> dict[str, Any]:
    """The note of a checkpoint of that format, with its own digest; called by all processes.

    `stands_at` is the step that each member has come to, where not all are at the checkpoint's.
    """
    digests: dict[int, str] = {}
    for text in hosts.gather_texts(json.dumps(_digests_of(state))):
        for row, digest_of_row in json.loads(text).items():
            digests[int(row)] = digest_of_row
    members = members_of(config)
    note = {
        "format": version,
        "config": to_json(config),
        "rows": len(jax.tree.leaves(state)[0]),
        "digests": [digests[row] for row in range(len(members))],
    }
    if stands_at is not None:
        note["stands_at"] = stands_at
    return with_digest(note)


def _digests_of(state: TrainState) -> dict[int, str]:
    """One of each model that this process has, by its row."""
    leaves = [local_rows(leaf) for leaf in jax.tree.leaves(state)]
    digests = {}
    for start, block in leaves[0].items():
        for row in range(len(block)):
            model = [blocks[start][row : row + 1] for blocks in leaves]
            digests[start + row] = digest(*model)
    return digests


def load_note(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """The note of a checkpoint.

    Raises:
        Damaged: if it is not the one that was written.
    """
    note = read_note(manager, step)
    if not digest_holds(note):
        raise Damaged("its note is not the one that was written")
    lacking = [name for name in NOTED if name not in note]
    if lacking and "digest" not in note:
        raise Damaged(f"its note lacks {', '.join(lacking)}")
    return note


def read_state(
    manager: ocp.CheckpointManager, step: int, note: dict[str, Any], like: Tree
) -> TrainState:
    """The arrays of a checkpoint, all rows, in the structure of `like`.

    Raises:
        Damaged: if they are not those that were written.
        ValueError: if they are of another structure.
    """
    arrays = read_arrays(manager, step)
    names = [name_of(path) for path, _ in jax.tree.leaves_with_path(like)]
    if set(names) != set(arrays):
        strange = sorted(set(names) ^ set(arrays))
        raise ValueError(f"its arrays are not those of these settings: {', '.join(strange)}")
    leaves = [arrays[name] for name in names]
    state = jax.tree.unflatten(jax.tree.structure(like), leaves)
    digests = list(_digests_of(state).values())
    if digests[: len(note["digests"])] != note["digests"]:
        raise Damaged("its arrays are not those that were written")
    return state
