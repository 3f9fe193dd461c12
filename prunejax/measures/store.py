"""The files of a run's measures, `<run_dir>/measures/<name>.npz`: written, read and checked."""

import dataclasses
import json
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from etils import epath

from prunejax.config import Config, MeasureSettings, UserError, load_config
from prunejax.measures.entry import MEASURES, ArraySpec, Column, decisive_settings
from prunejax.measures.record import (
    SUBJECT,
    Record,
    Subject,
    check_record,
    settings_from_json,
)
from prunejax.measures.results import RunMeasures
from prunejax.types import Path

FAILED = "failed.json"
"""The file next to the measures' that says why others failed."""
REQUIRED = "predictions"
"""The measure without which there are none of a run."""
AGAIN = "run experiments.evaluate again"
UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
)
"""What NumPy raises for a file that is damaged, according to where."""


def load_measures(run_dir: str | Path) -> RunMeasures:
    """What was measured of a run; a measure that is missing or damaged is named in `failures`.

    Raises:
        UserError: if the directory is no run, or its predictions are missing or cannot be read.
    """
    run_dir = epath.Path(run_dir)
    config = load_config(run_dir)
    records, failures = read_all(run_dir)
    noted = noted_failures(run_dir)
    for name in [*MEASURES, *noted]:
        if name not in records and name not in failures:
            missing = f"{file_of(run_dir, name)} is missing; run experiments.evaluate first"
            failures[name] = noted.get(name, missing)
    return assemble(config, records, failures)


def file_of(run_dir: Path, name: str) -> Path:
    """Where the measure of that name is kept."""
    return run_dir / "measures" / f"{name}.npz"


def write(record: Record, run_dir: Path) -> Path:
    """Writes a measure's file, whole or not at all.

    Raises:
        UserError: if it cannot be written there.
    """
    # Here, because it comes with all that trains and saves, which a report need not wait for.
    from prunejax.runs.directory import whole_file

    path = file_of(run_dir, record.name)
    content = {name: _narrow(array) for name, array in record.arrays.items()}
    content["measured"] = record.measured
    for field in SUBJECT:
        content[field] = _narrow(getattr(record.subject, field))
    content["version"] = np.array(record.version)
    content["settings"] = np.array(json.dumps(dict(record.settings)))
    content["spec"] = np.array(_spec_to_json(record))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **content)  # pyright: ignore[reportArgumentType]
    except OSError as error:
        raise UserError(f"{path}: cannot write there: {error.strerror or error}") from None
    return path


def _narrow(array: np.ndarray) -> np.ndarray:
    """The same integers in the smallest dtype that holds them, which halves their file.

    An array of another kind is returned as it is.
    """
    if array.dtype.kind != "i" or not array.size:
        return array
    for dtype in (np.int8, np.int16):
        limits = np.iinfo(dtype)
        if limits.min <= array.min() and array.max() <= limits.max:
            return array.astype(dtype)
    return array


def _widened(array: np.ndarray) -> np.ndarray:
    """The array that `_narrow` was given, if it was int32 or of another kind."""
    narrow = array.dtype.kind == "i" and array.dtype.itemsize < 4
    return array.astype(np.int32) if narrow else array


def note_failures(run_dir: Path, tried: Iterable[str], failures: Mapping[str, str]) -> None:
    """Notes why measures have no file, which a report shows instead of them.

    Args:
        run_dir: the run's directory.
        tried: the measures that were computed; what was noted of these before is forgotten.
        failures: of those among them that failed, why.

    Raises:
        UserError: if it cannot be written there.
    """
    from prunejax.runs.directory import write_whole

    tried = list(tried)
    before = noted_failures(run_dir)
    noted = {name: why for name, why in before.items() if name not in tried}
    noted |= {name: failures[name] for name in tried if name in failures}
    if noted == before:
        return
    path = run_dir / "measures" / FAILED
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(noted, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot write there: {error.strerror or error}") from None


def noted_failures(run_dir: Path) -> dict[str, str]:
    """By the name of a measure that failed when it was last computed, why."""
    try:
        noted = json.loads((run_dir / "measures" / FAILED).read_text())
    except (OSError, ValueError):  # a note that is missing or damaged is no loss
        return {}
    if not isinstance(noted, dict):
        return {}
    return {str(name): str(why) for name, why in noted.items()}


def read(path: Path) -> Record:
    """Reads a measure's file; nothing is unpickled.

    Raises:
        UserError: if it is missing, damaged, of wrong shapes or of values that cannot be.
    """
    content = _read_arrays(path)
    try:
        record = _from_arrays(path.stem, content)
        check_record(record)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        message = " ".join(str(error).split())[:200]
        if isinstance(error, KeyError):
            message = f"it lacks {message}"
        raise UserError(f"{path}: {message}; {AGAIN}") from None
    return record


def _is_measure(path: Path) -> bool:
    """Whether a file of the directory of measures is one, and not a half-written one."""
    return path.suffix == ".npz" and not path.name.startswith(".")


def read_all(run_dir: Path) -> tuple[dict[str, Record], dict[str, str]]:
    """Every measure of a run that can be read.

    Returns:
        the measures by name, those of the registry first; and of each that cannot be used, why.
    """
    records = {}
    failures = {}
    directory = run_dir / "measures"
    paths = sorted(filter(_is_measure, directory.iterdir())) if directory.is_dir() else []
    for path in paths:
        try:
            records[path.stem] = _as_registered(read(path), path)
        except UserError as error:
            failures[path.stem] = str(error)

    known = [name for name in MEASURES if name in records]
    others = [name for name in records if name not in known]
    return {name: records[name] for name in known + others}, failures


def assemble(config: Config, records: dict[str, Record], failures: dict[str, str]) -> RunMeasures:
    """All measures of a run as one.

    Args:
        config: of the run.
        records: of measures by name, the predictions among them; one that contradicts those before
            it, or the predictions, is left out.
        failures: of measures that are missing, why.

    Raises:
        UserError: if there are no predictions.
    """
    if REQUIRED not in records:
        raise UserError(failures.get(REQUIRED, f"{config.experiment.name} has no predictions"))
    subject = records[REQUIRED].subject
    settings = dataclasses.asdict(config.measure)
    decided = {}
    arrays = {}
    dims = {}
    measured = {}
    columns = []
    failures = dict(failures)
    for name, record in records.items():
        contradiction = _contradiction(record, subject, decided, arrays)
        if contradiction:
            failures[name] = f"measures/{name}.npz {contradiction}; {AGAIN}"
            continue
        decided |= record.settings
        columns += record.columns
        for array, spec in record.specs.items():
            arrays[array] = record.arrays[array]
            dims[array] = tuple(spec.dims)
            measured[array] = record.measured
    measure = MeasureSettings(**(settings | decided))
    return RunMeasures(
        config=dataclasses.replace(config, measure=measure),
        seeds=subject.seeds,
        sparsities=subject.sparsities,
        failed=subject.failed,
        labels=subject.labels,
        class_names=tuple(subject.class_names.tolist()),
        data_checksum=str(subject.data_checksum),
        arrays=arrays,
        dims=dims,
        measured=measured,
        columns=tuple(columns),
        decided_by=frozenset(decided),
        failures=failures,
    )


def _contradiction(
    record: Record, subject: Subject, decided: dict[str, Any], arrays: dict[str, np.ndarray]
) -> str:
    """What keeps a record from going with the predictions and the others; empty if nothing does."""
    of_same = record.subject.is_of(subject.seeds, subject.sparsities, str(subject.data_checksum))
    if not of_same or record.subject.sizes != subject.sizes:
        return "is of other models or other data than the predictions"
    for field, value in record.settings.items():
        if decided.get(field, value) != value:
            return f"was made with measure.{field}={value}, other measures with {decided[field]}"
    twice = [array for array in record.arrays if array in arrays]
    if twice:
        return f"has an array {twice[0]!r} that another measure has"
    return ""


def _as_registered(record: Record, path: Path) -> Record:
    """A record with the columns of its measure's entry, if that is registered, and all settings.

    A setting on which the measure depends since a later version has its default, which means as
    before: such a file is not outdated.

    Raises:
        UserError: if it was measured by another version.
    """
    if record.name not in MEASURES:
        return record
    measure = MEASURES[record.name]
    if record.version != measure.version:
        raise UserError(
            f"{path}: {record.name} is of version {record.version}, not {measure.version}; {AGAIN}"
        )
    if _layout(record.specs) != _layout(measure.arrays):
        raise UserError(f"{path}: {record.name} has not the arrays of this version; {AGAIN}")
    settings = decisive_settings(measure, MeasureSettings()) | dict(record.settings)
    return dataclasses.replace(record, columns=measure.columns, settings=settings)


def _layout(specs: Mapping[str, ArraySpec]) -> dict[str, tuple]:
    """What must not differ without another version."""
    return {name: (spec.kind, tuple(spec.dims)) for name, spec in specs.items()}


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run experiments.evaluate first") from None
    except UNREADABLE as error:
        message = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read ({message}); {AGAIN}") from None


def _from_arrays(name: str, content: dict[str, np.ndarray]) -> Record:
    """What a file holds; raises whatever its nonsense leads to."""
    spec = json.loads(str(content["spec"]))
    specs = {}
    for array, fields in spec["arrays"].items():
        fields["dims"] = tuple(fields["dims"])
        specs[array] = ArraySpec(**fields)
    columns = tuple(Column(**fields) for fields in spec["columns"])
    subject = Subject(**{field: _widened(content[field]) for field in SUBJECT})
    return Record(
        name=name,
        version=int(content["version"]),
        settings=settings_from_json(str(content["settings"])),
        specs=specs,
        columns=columns,
        subject=subject,
        arrays={array: _widened(content[array]) for array in specs},
        measured=content["measured"],
    )


def _spec_to_json(record: Record) -> str:
    arrays = {name: spec._asdict() for name, spec in record.specs.items()}
    columns = [column._asdict() for column in record.columns]
    return json.dumps({"arrays": arrays, "columns": columns})
