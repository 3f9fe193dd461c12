"""The one exception that is meant for the user, and pydantic's errors in one line of it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """An error that the user can fix; the message is one line: what, where and what to do."""


def in_one_line(error: Exception) -> str:
    """What another library raised, with its type, cut to 200 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")[:200]


TAKES = {
    "int_type": "a whole number",
    "float_type": "a finite number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "values separated by commas",
    "dataclass_type": "all its fields at once",
}
"""What a field takes, by the type of pydantic's error."""
BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
"""The name of the bound in pydantic's error, and how it is said."""


def explain(error: "ValidationError", path: str = "") -> str:
    """The first complaint of pydantic, with the field's full name.

    Args:
        error: of a settings class.
        path: of the object that was built, for instance `sup.learning_rate`.
    """
    first = error.errors()[0]
    kind, value = first["type"], first["input"]
    steps = [str(step) for step in first["loc"]]
    field = ".".join(filter(None, [path, *steps])) or "the file"
    bounds: dict[str, Any] = first.get("ctx", {})
    if kind in BOUNDS:
        name, words = BOUNDS[kind]
        return f"{field} is {value}; it must be {words} {bounds[name]:g}"
    if kind in TAKES:
        return f"{field!r} takes {TAKES[kind]}, not {value!r}"
    if kind == "literal_error":
        choices = bounds["expected"].replace("'", "").replace(" or ", ", ")
        return f"{field!r} takes one of {choices}, not {value!r}"
    if kind == "unexpected_keyword_argument":
        return f"there is no field {field!r}"
    if kind in ("missing", "missing_argument"):
        return f"{field!r} is missing"
    return f"{field!r}: {first['msg']}, not {value!r}"
