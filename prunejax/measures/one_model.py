"""One measure of one model: computed and checked."""

import inspect
import pathlib
import traceback
from collections.abc import Mapping

import numpy as np

from prunejax.config import UserError
from prunejax.measures.entry import ArraySpec, Context, Measure, ModelOutputs
from prunejax.measures.record import DTYPES, check_values, shape_of

Values = dict[str, np.ndarray]
"""A measure's arrays of one model, without their first dimension."""


def measure_model(
    measure: Measure, outputs: ModelOutputs, context: Context, sizes: Mapping[str, int]
) -> Values:
    """Computes a measure of one model, in the dtypes of its file.

    Args:
        measure: the entry.
        outputs: of the model.
        context: what else it may need.
        sizes: of the dimensions its arrays can have.

    Raises:
        UserError: if it returns something else than its entry says.
        Exception: of the measure's own.
    """
    returned = measure.function(outputs, context)
    if not isinstance(returned, Mapping):
        raise UserError(f"returns {type(returned).__name__}, not a dict of arrays")
    if set(returned) != set(measure.arrays):
        raise UserError(f"returns {sorted(returned)}, not {sorted(measure.arrays)}")
    values = {}
    for name, spec in measure.arrays.items():
        values[name] = _checked(name, np.asarray(returned[name]), spec, sizes)
    return values


def _checked(name: str, array: np.ndarray, spec: ArraySpec, sizes: Mapping[str, int]) -> np.ndarray:
    expected = shape_of(spec, sizes)[1:]
    kind = "i" if array.dtype.kind == "u" else array.dtype.kind
    if kind != spec.kind or array.shape != expected:
        raise UserError(
            f"returns {name} of {array.dtype} {list(array.shape)}, "
            f"not {np.dtype(DTYPES[spec.kind])} {list(expected)}"
        )
    with np.errstate(over="ignore"):
        stored = array.astype(DTYPES[spec.kind])
    if kind == "i" and not np.array_equal(stored, array):
        raise UserError(f"returns {name} beyond the range of int32")
    try:
        alone = {**sizes, str(spec.dims[0]): 1}
        check_values(name, stored[None], spec, alone, np.ones(1, bool))
    except ValueError as error:
        raise UserError(f"returns what cannot be: {error}") from None
    return stored


def why_it_failed(error: Exception, measure: Measure) -> str:
    """What went wrong with a measure, and where in its file."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, UserError):
        return text
    code = getattr(inspect.unwrap(measure.function), "__code__", None)
    where = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if code is not None and frame.filename == code.co_filename:
            where = f" ({pathlib.PurePath(frame.filename).name}, line {frame.lineno})"
    return f"{type(error).__name__}: {text}{where}"
