"""`config.json`: written, read, also in the format before this one, and compared."""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath
from pydantic import TypeAdapter, ValidationError

from prunejax.config.errors import UserError, explain, in_one_line
from prunejax.config.settings import Config, Operation

_CONFIG = TypeAdapter(Config)


def to_json(config: Config) -> str:
    """Every field of `config`."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str, where: str) -> Config:
    """The inverse of `to_json`; fields that were added since have their defaults.

    Args:
        text: what a file holds, of this format or of format 3.
        where: the file, for errors.

    Raises:
        UserError: if it is no configuration.
    """
    try:
        fields = json.loads(text)
        if isinstance(fields, dict) and "population" in fields:
            text = json.dumps(_from_format_3(fields))
        return _CONFIG.validate_json(text)
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


MAY_DIFFER = ("experiment", "sparsities", "preset", "models", "seed", "finetune", "prune")
"""Fields of `Identity` in which the runs of one study may differ, so that they can be shown beside
each other and pruned ones start from dense ones."""
OPERATIONAL = tuple(field.name for field in dataclasses.fields(Operation))
DESCRIPTIVE = ("experiment.label", "experiment.against")
"""Fields of `Identity` that only say how a run is shown."""


def differences(ours: Config, theirs: Config, apart: Iterable[str] = ()) -> list[str]:
    """The fields that decide results in which two configurations differ.

    Args:
        ours: one.
        theirs: the other.
        apart: top-level fields that are not compared.

    Returns:
        `path: ours, not theirs` of each.
    """
    left_out = {*OPERATIONAL, *apart}
    first = dict(_walk(dataclasses.asdict(ours)))
    second = dict(_walk(dataclasses.asdict(theirs)))
    told = []
    for path in sorted(first.keys() | second.keys()):
        if path in DESCRIPTIVE or path.split(".")[0] in left_out:
            continue
        if first.get(path) != second.get(path):
            told.append(f"{path}: {first.get(path)}, not {second.get(path)}")
    return told


def _walk(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Each field's path and value."""
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _walk(value, f"{path}{name}.")
        else:
            yield path + name, value


# --------------------------------------------------------------- format 3
# It had no entries: an experiment was one of seven, known by its name, and a stage named its loss.

_SUP = {"label": "Sup", "colour": "#0072B2"}
_SCL = {"label": "SCL", "colour": "#D55E00"}
_LABELS = {"sup": "GMP", "scl": "GMP", "scl_delayed": "Δ GMP"}
"""Of gradual pruning, by the schedule."""
_AGAINST = {
    "scl_gmp": "sup_gmp",
    "scl_delayed_gmp": "sup_gmp",
    "scl_one_shot": "sup_one_shot",
}


def _from_format_3(fields: dict[str, Any]) -> dict[str, Any]:
    fields = dict(fields)
    old = fields["experiment"]
    contrastive = "scl" in (old["stages"][0], (old["parent"] or "")[:3])
    pruning = None
    if old["schedule"] is not None:
        pruning = {"schedule": old["schedule"]}
    if old["parent"] is not None:
        pruning = {"schedule": None, "select": "global"}
    dense = "scl_dense" if contrastive else "sup_dense"
    fields["experiment"] = {
        "name": old["name"],
        "method": "supcon" if contrastive else "cross_entropy",
        "pruning": pruning,
        "dense": dense if pruning else None,
        "label": _LABELS.get(old["schedule"], "One-Shot") if pruning else "dense",
        "against": _AGAINST.get(old["name"]),
        "prune_head": old["prune_head"],
    }
    for stage in ("sup", "scl", "head", "finetune"):
        fields[stage] = {name: v for name, v in fields[stage].items() if name != "loss"}
    fields["execution"] = fields.pop("population")
    model = fields["model"]
    architecture = f"WideResNet-{model['depth']}-{model['widen_factor']}"
    fields["appearance"] = (_SCL if contrastive else _SUP) | {"architecture": architecture}
    return fields
