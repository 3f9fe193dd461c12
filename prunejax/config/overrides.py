"""`--set=FIELD=VALUE`: any field changed by what a user typed."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from prunejax.config.errors import UserError, explain
from prunejax.config.files import RENAMED
from prunejax.config.settings import Config, Stage


def override(config: Config, assignments: Iterable[str]) -> Config:
    """`config` with `path=value` assignments applied, for instance `optim.momentum=0.8`.

    Values are read as the field's type: a tuple is comma-separated, and so is a schedule that is
    None at first; None is `none` or `null`. Another `data.name` takes the old one's `data.mean`
    and `data.std` away, so that they are measured, unless these are assigned too.

    Raises:
        UserError: for a path that is no field or a value that the field does not take.
    """
    before = config.data.name
    assigned = set()
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(
                f"--set={assignment}: expected FIELD=VALUE, for instance --set=optim.momentum=0.8"
            )
        path = path.strip()
        for old, new in RENAMED.items():
            if path == old or path.startswith(f"{old}."):
                raise UserError(f"--set={assignment}: {old} is called {new} now")
        config = _assign(config, path.split("."), text.strip(), assignment)
        assigned.add(path)
    if config.data.name != before and not assigned & {"data.mean", "data.std"}:
        config = dataclasses.replace(
            config, data=dataclasses.replace(config.data, mean=None, std=None)
        )
    _refuse_late_milestones(config, assigned)
    return config


def _assign(node: Any, steps: list[str], text: str, assignment: str) -> Any:  # noqa: ANN401
    """`node`, a settings object, with the field that `steps` lead to replaced."""
    hints = typing.get_type_hints(type(node))
    name, *rest = steps
    if name not in hints:
        close = difflib.get_close_matches(name, hints, n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(
            f"--set={assignment}: no field {name!r}; {guess}There are: {', '.join(hints)}"
        )
    value = getattr(node, name)
    if rest and not dataclasses.is_dataclass(value):
        raise UserError(f"--set={assignment}: {name!r} is {value!r} and has no field {rest[0]!r}")
    try:
        if rest:
            value = _assign(value, rest, text, assignment)
        else:
            value = _read(hints[name], text, name)
        return dataclasses.replace(node, **{name: value})
    except ValidationError as error:
        path = "" if rest else ".".join(assignment.partition("=")[0].strip().split(".")[:-1])
        raise UserError(f"--set={assignment}: {explain(error, path)}") from None
    except ValueError as error:
        raise UserError(f"--set={assignment}: {error}") from None


def _read(hint: Any, text: str, name: str) -> Any:  # noqa: ANN401
    """What `text` says for a field of type `hint`; the text itself where it says nothing else.

    Whether the field takes it is for pydantic to say.
    """
    choices = [hint]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        choices = list(typing.get_args(hint))
    optional = types.NoneType in choices
    if optional and text.lower() in ("none", "null"):
        return None
    kind = choices[0]
    items = [item.strip() for item in text.strip("()[]").split(",") if item.strip()]
    if typing.get_origin(kind) is tuple:
        each = typing.get_args(kind)
        if each[-1] is not Ellipsis and len(items) != len(each):
            raise ValueError(f"{name!r} takes {len(each)} values, not {text!r}")
        return tuple(_read(each[0], item, name) for item in items)
    if dataclasses.is_dataclass(kind):
        if not optional:
            fields = ", ".join(typing.get_type_hints(kind))
            raise ValueError(f"{name!r} is a group of fields; set one of them: {fields}")
        return _read_fields(kind, items, name)
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    return text


def _read_fields(kind: Any, items: list[str], name: str) -> Any:  # noqa: ANN401
    """A settings object from the values of all its fields in order."""
    hints = typing.get_type_hints(kind)
    if len(hints) != len(items):
        raise ValueError(f"{name!r} takes all its fields at once: {', '.join(hints)}")
    values = {}
    for (field, hint), item in zip(hints.items(), items, strict=True):
        values[field] = _read(hint, item, field)
    try:
        return kind(**values)
    except ValidationError as error:
        raise ValueError(explain(error, name)) from None


def _refuse_late_milestones(config: Config, assigned: set[str]) -> None:
    """A milestone that was set and is never reached is a mistake.

    One that a preset has is not: shortening a stage for a trial must need no second flag.
    """
    for path in assigned:
        name, *rest = path.split(".")
        stage = getattr(config, name, None)
        if not isinstance(stage, Stage) or "milestone_epochs" not in rest:
            continue
        late = [epoch for epoch in stage.learning_rate.milestone_epochs if epoch >= stage.epochs]
        if late:
            raise UserError(
                f"{path}: epoch {late[0]} is never reached, {name!r} has {stage.epochs} epochs "
                "that count from 0"
            )
