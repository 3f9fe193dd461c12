"""`config.json`: written, read, and compared."""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath
from pydantic import TypeAdapter, ValidationError

from prunejax.config.errors import UserError, explain, in_one_line
from prunejax.config.settings import Config, RuntimeSettings

_CONFIG = TypeAdapter(Config)


def to_json(config: Config) -> str:
    """Every field of `config`."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str, where: str) -> Config:
    """The inverse of `to_json`; fields that were added since have their defaults.

    Args:
        text: the content of a file.
        where: the file, for errors.

    Raises:
        UserError: if it is not a configuration, or one of a version that is no longer read.
    """
    try:
        fields = json.loads(text)
        if isinstance(fields, dict):
            _update_names(fields, where)
        return _CONFIG.validate_json(json.dumps(fields))
    except ValidationError as error:
        raise UserError(f"{where}: not a configuration ({explain(error)})") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{where}: not a configuration ({in_one_line(error)})") from None


def load_config(run_dir: str | os.PathLike[str]) -> Config:
    """The configuration a run directory was made with.

    Raises:
        UserError: if the directory holds none, or one that cannot be read.
    """
    path = epath.Path(run_dir) / "config.json"
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: no readable configuration ({type(error).__name__}); is this a run directory?"
        ) from None
    return from_json(text, str(path))


RENAMED = {
    "appearance": "display",
    "execution.fork": "execution.warm_start",
    "experiment.against": "experiment.baseline",
    "experiment.dense": "experiment.dense_parent",
    "experiment.pruning.select": "experiment.pruning.allocation",
    "experiment.pruning.spare": "experiment.pruning.exclude",
}
"""Fields of version 0.2.0, by their path, and what they are called now."""


def _update_names(fields: dict[str, Any], where: str) -> None:
    """Gives fields that version 0.2.0 wrote their present names.

    Raises:
        UserError: if the fields mean what this version does not train.
    """
    if "population" in fields:
        raise UserError(f"{where}: a run of version 0.1.0 (format 3); prunejax 0.2.0 reads it")
    for old, new in RENAMED.items():
        *groups, name = old.split(".")
        group: Any = fields
        for step in groups:
            group = group.get(step) if isinstance(group, dict) else None
        if isinstance(group, dict) and name in group:
            group[new.split(".")[-1]] = group.pop(name)
    pruning = (fields.get("experiment") or {}).get("pruning") or {}
    if pruning.pop("begins", None):
        raise UserError(
            f"{where}: a population of several start steps (pruning.begins), which prunejax 0.2.0 "
            "reads; now each start step is a separate experiment"
        )


MAY_DIFFER = ("experiment", "sparsities", "preset", "models", "seed", "finetune", "prune")
"""Result-defining settings in which the runs of one study may differ: they are shown together, and
pruned ones start from dense ones."""
RUNTIME = tuple(field.name for field in dataclasses.fields(RuntimeSettings))
DESCRIPTIVE = ("experiment.label", "experiment.baseline")
"""Fields of `ResultSettings` that only say how a run is shown."""


def differences(ours: Config, theirs: Config, ignore: Iterable[str] = ()) -> list[str]:
    """The fields that decide results in which two configurations differ.

    Args:
        ours: one.
        theirs: the other.
        ignore: top-level fields that are not compared.

    Returns:
        `path: ours, not theirs` of each.
    """
    ignored = {*RUNTIME, *ignore}
    first = dict(_walk(dataclasses.asdict(ours)))
    second = dict(_walk(dataclasses.asdict(theirs)))
    found = []
    for path in sorted(first.keys() | second.keys()):
        if path in DESCRIPTIVE or path.split(".")[0] in ignored:
            continue
        if first.get(path) != second.get(path):
            found.append(f"{path}: {first.get(path)}, not {second.get(path)}")
    return found


def _walk(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Each field's path and value."""
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _walk(value, f"{path}{name}.")
        else:
            yield path + name, value
