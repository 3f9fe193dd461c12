"""One measure of one run, as it is in its file, and its checks."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError

from prunejax.config import MeasureSettings, UserError
from prunejax.config.errors import explain
from prunejax.measures.entry import ArraySpec, Column, Measure

FIRST_DIM = {"all": "models", "probed": "models", "first": "levels"}
"""The first dimension of a measure's arrays, by the models it measures."""
DTYPES = {"i": np.int32, "f": np.float32, "b": np.bool_}
BLANK = {"i": 0, "f": np.nan, "b": False}
"""What an array holds where nothing was measured."""


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """Which models were measured, and on which images."""

    seeds: np.ndarray
    """int32 `[models]`."""
    sparsities: np.ndarray
    """float32 `[models]`."""
    failed: np.ndarray
    """bool `[models]`: which diverged or collapsed in training."""
    labels: np.ndarray
    """int32 `[examples]`."""
    class_names: np.ndarray
    """str `[classes]`."""
    data_checksum: np.ndarray
    """str `[]`."""

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each dimension."""
        return {
            "models": len(self.seeds),
            "levels": len(np.unique(self.sparsities)),
            "examples": len(self.labels),
            "classes": len(self.class_names),
        }

    def is_of(self, seeds: np.ndarray, sparsities: np.ndarray, data_checksum: str) -> bool:
        """Whether these models were measured, on these data."""
        return (
            np.array_equal(self.seeds, seeds)
            and np.array_equal(self.sparsities, sparsities)
            and str(self.data_checksum) == data_checksum
        )


SUBJECT = {
    "seeds": ("i", ("models",)),
    "sparsities": ("f", ("models",)),
    "failed": ("b", ("models",)),
    "labels": ("i", ("examples",)),
    "class_names": ("U", ("classes",)),
    "data_checksum": ("U", ()),
}
"""The kind of each field's dtype, and its dimensions."""


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One measure of one run."""

    name: str
    version: int
    settings: Mapping[str, Any]
    """The fields of `config.MeasureSettings` that decided it."""
    specs: Mapping[str, ArraySpec]
    columns: tuple[Column, ...]
    subject: Subject
    arrays: Mapping[str, np.ndarray]
    measured: np.ndarray
    """bool, of the arrays' first dimension."""


RESERVED = (*SUBJECT, "measured", "version", "settings", "spec")
"""Names in a file, which no array of a measure may have."""


def shape_of(spec: ArraySpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of an array where the dimensions have these sizes."""
    return tuple(dim if isinstance(dim, int) else sizes[dim] for dim in spec.dims)


def blank(spec: ArraySpec, sizes: Mapping[str, int]) -> np.ndarray:
    """An array where nothing was measured yet."""
    return np.full(shape_of(spec, sizes), BLANK[spec.kind], DTYPES[spec.kind])


def check_entry(measure: Measure) -> None:
    """Refuses a measure that cannot be kept in a file.

    Raises:
        UserError: with the fault of the entry.
    """
    if not re.fullmatch("[a-z0-9_]+", measure.name):
        raise UserError(f"its name is {measure.name!r}; use lower-case letters, digits and _")
    unknown = set(measure.settings) - {field.name for field in dataclasses.fields(MeasureSettings)}
    if unknown:
        raise UserError(f"its settings {sorted(unknown)} are no fields of measure")
    first = FIRST_DIM[measure.models]
    for name, spec in measure.arrays.items():
        if name in RESERVED:
            raise UserError(f"its array {name!r} has a name that every file uses; give it another")
        if spec.dims[:1] != (first,):
            raise UserError(f"the first dimension of its array {name!r} must be {first!r}")
        try:
            check_spec(spec)
        except ValueError as error:
            raise UserError(f"its array {name!r}: {error}") from None
    shown = {column.array for column in measure.columns}
    if not measure.arrays or not shown <= set(measure.arrays):
        raise UserError("it needs arrays, and its columns must be among them")


def check_spec(spec: ArraySpec) -> None:
    """Checks the dtype and dimensions of an array.

    Raises:
        ValueError: with the fault.
    """
    if spec.kind not in DTYPES:
        raise ValueError(f"kind {spec.kind!r} is none of {', '.join(DTYPES)}")
    if spec.dims[:1] not in (("models",), ("levels",)):
        raise ValueError(f"the first dimension of {spec.dims} is neither 'models' nor 'levels'")
    for dim in spec.dims[1:]:
        if dim not in ("examples", "classes") and (type(dim) is not int or dim < 1):
            raise ValueError(f"dimension {dim!r} is none of 'examples', 'classes' or a number")


def settings_from_json(text: str) -> dict[str, Any]:
    """Fields of `config.MeasureSettings` with their values.

    Raises:
        ValueError: if the text is something else.
    """
    try:
        fields = json.loads(text)
        MeasureSettings(**fields)
    except ValidationError as error:
        message = explain(error, "measure")
    except (ValueError, TypeError) as error:
        message = str(error)
    else:
        return fields
    raise ValueError(f"settings are not those of this version ({message})")


def check_subject(subject: Subject) -> None:
    """Checks that the arrays fit each other and have possible values.

    Raises:
        ValueError: with the fault.
    """
    for name, (kind, dims) in SUBJECT.items():
        array = getattr(subject, name)
        if array.dtype.kind != kind or array.ndim != len(dims):
            raise ValueError(_does_not_fit(name, array))
    sizes = subject.sizes
    for name, (_, dims) in SUBJECT.items():
        array = getattr(subject, name)
        if array.shape != tuple(sizes[dim] for dim in dims):
            raise ValueError(_does_not_fit(name, array))
    if not all(sizes.values()):
        raise ValueError(f"there are no {min(sizes, key=sizes.__getitem__)}")
    if not (np.all(subject.sparsities >= 0) and np.all(subject.sparsities < 1)):
        raise ValueError("sparsities holds values that cannot be")
    if subject.labels.min() < 0 or subject.labels.max() >= sizes["classes"]:
        raise ValueError("labels holds values that cannot be")


def check_values(
    name: str, array: np.ndarray, spec: ArraySpec, sizes: Mapping[str, int], measured: np.ndarray
) -> None:
    """Checks an array of a measure.

    Args:
        name: of the array.
        array: with its first dimension.
        spec: what it should look like.
        sizes: of the dimensions.
        measured: bool, of the first dimension; only these rows' values are checked.

    Raises:
        ValueError: if its kind, its shape or a value is wrong.
    """
    if array.dtype.kind != spec.kind or array.shape != shape_of(spec, sizes):
        raise ValueError(_does_not_fit(name, array))
    if measured.dtype.kind != "b" or measured.shape != array.shape[:1]:
        raise ValueError(_does_not_fit("measured", measured))
    high = sizes["classes"] - 1 if spec.high == "classes" else spec.high
    values = array[measured]
    # Written so that NaN, which compares with nothing, is beyond any bound.
    if spec.low is not None and not np.all(values >= spec.low):
        raise ValueError(f"{name} holds values that cannot be")
    if high is not None and not np.all(values <= high):
        raise ValueError(f"{name} holds values that cannot be")


def check_record(record: Record) -> None:
    """Checks that everything in a record fits together.

    Raises:
        ValueError: with the fault.
    """
    check_subject(record.subject)
    firsts = set()
    for name, spec in record.specs.items():
        check_spec(spec)
        firsts.add(spec.dims[0])
        check_values(name, record.arrays[name], spec, record.subject.sizes, record.measured)
    if len(firsts) != 1:
        raise ValueError("its arrays differ in their first dimension")


def _does_not_fit(name: str, array: np.ndarray) -> str:
    return f"{name} is {array.dtype} {list(array.shape)}, which does not fit the other arrays"
