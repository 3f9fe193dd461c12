"""The measures of runs that differ in their seeds only, as those of one run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prunejax.config import Config, UserError, load_config
from prunejax.measures.record import Record, Subject, blank
from prunejax.measures.store import (
    REQUIRED,
    file_of,
    note_failures,
    noted_failures,
    read_all,
    write,
)
from prunejax.runs.joined import JoinedRun, join_runs, write_run
from prunejax.runs.provenance import load_provenance
from prunejax.training.members import Members, members_of
from prunejax.types import Path


class Part(NamedTuple):
    """A run of some of the seeds."""

    directory: Path
    config: Config
    records: Mapping[str, Record]
    """Its measures by name."""
    failed: Mapping[str, str]
    """By the name of a measure that failed when it was computed, why."""


def read_part(directory: Path) -> Part:
    """A run and its measures.

    Raises:
        UserError: if it is none, is not measured, or a measure cannot be used.
    """
    config = load_config(directory)
    records, failures = read_all(directory)
    if failures:
        raise UserError(next(iter(failures.values())))
    if REQUIRED not in records:
        raise UserError(f"{directory} is not measured; run experiments.evaluate first")
    members = members_of(config)
    checksum = load_provenance(directory)["data_checksum"]
    for name, record in records.items():
        if not record.subject.is_of(members.seeds, members.sparsities, checksum):
            raise UserError(
                f"{file_of(directory, name)} is of other models or data than the run; delete it, "
                "and run experiments.evaluate again"
            )
    return Part(directory, config, records, noted_failures(directory))


class Joined(NamedTuple):
    """A measured run of all seeds, not written yet."""

    run: JoinedRun
    records: list[Record]
    failed: dict[str, str]
    """By the name of a measure that failed in some part, why."""
    lacking: dict[str, list[int]]
    """By the name of a measure that some parts lack, their seeds: it was not measured of these."""


def join(parts: Sequence[Part]) -> Joined:
    """The run that has the seeds of all parts, which may come in any order.

    Raises:
        UserError: if they are not of one run.
    """
    run = join_runs([part.directory for part in parts])
    by_directory = {part.directory: part for part in parts}
    parts = [by_directory[directory] for directory in run.directories]
    failed: dict[str, str] = {}
    for part in parts:
        failed = dict(part.failed) | failed
    return Joined(
        run=run,
        records=_joined_records(parts, members_of(run.config), run.rows),
        failed=failed,
        lacking=_lacking(parts),
    )


def write_joined(joined: Joined, directory: Path) -> None:
    """Writes the run's files and its `measures/`.

    Raises:
        OSError, UserError: if it cannot be written there.
    """
    for record in joined.records:
        write(record, directory)
    known = {record.name for record in joined.records}
    failed = {name: why for name, why in joined.failed.items() if name not in known}
    note_failures(directory, failed, failed)
    write_run(joined.run, directory)


def _joined_records(
    parts: Sequence[Part],
    members: Members,
    rows: Sequence[np.ndarray],
) -> list[Record]:
    """The measures that any part has, of all members.

    Args:
        parts: in order.
        members: of the whole.
        rows: of each part, where its members stand among these.

    Raises:
        UserError: if two parts made a measure of different data, by different versions or with
            different settings.
    """
    found = []
    for name in _names(parts):
        holders = [part for part in parts if name in part.records]
        first = holders[0].records[name]
        for part in holders:
            trouble = _trouble(part.records[name], first)
            if trouble:
                both = f"{holders[0].directory} and {part.directory}"
                raise UserError(f"{both}: the measure {name} {trouble}")
        records = [part.records.get(name) or _blank(part, first) for part in parts]
        found.append(_joined(records, members, rows))
    return found


def _names(parts: Sequence[Part]) -> list[str]:
    """The measures that any part has."""
    return list(dict.fromkeys(name for part in parts for name in part.records))


def _lacking(parts: Sequence[Part]) -> dict[str, list[int]]:
    """By measure, the seeds of the parts that lack it."""
    found: dict[str, list[int]] = {}
    for name in _names(parts):
        for part in parts:
            if name not in part.records:
                first = part.config.seed
                found.setdefault(name, []).extend(range(first, first + part.config.models))
    return found


def _blank(part: Part, like: Record) -> Record:
    """A measure of a part that lacks it, as another part has it: of none of its models."""
    subject = part.records[REQUIRED].subject
    arrays = {name: blank(spec, subject.sizes) for name, spec in like.specs.items()}
    measured = np.zeros(len(next(iter(arrays.values()))), bool)
    return dataclasses.replace(like, subject=subject, arrays=arrays, measured=measured)


def _joined(records: Sequence[Record], members: Members, rows: Sequence[np.ndarray]) -> Record:
    """A measure of all members; one of a single model of each sparsity is the first part's."""
    first = records[0]
    failed = [record.subject.failed for record in records]
    subject = dataclasses.replace(
        first.subject,
        seeds=members.seeds,
        sparsities=members.sparsities,
        failed=_merged(failed, rows),
    )
    measured = [record.measured for record in records]
    of_models = next(iter(first.specs.values())).dims[0] == "models"
    arrays = {}
    for name in first.specs:
        values = [record.arrays[name] for record in records]
        arrays[name] = _merged(values, rows) if of_models else _first_measured(values, measured)
    whole = _merged(measured, rows) if of_models else np.any(measured, axis=0)
    return dataclasses.replace(first, subject=subject, arrays=arrays, measured=whole)


def _merged(values: Sequence[np.ndarray], rows: Sequence[np.ndarray]) -> np.ndarray:
    """The parts' values `[models of the part, ...]` as one array `[models, ...]`."""
    count = sum(map(len, rows))
    whole = np.empty((count, *values[0].shape[1:]), values[0].dtype)
    for of_part, indices in zip(values, rows, strict=True):
        whole[indices] = of_part
    return whole


def _first_measured(values: Sequence[np.ndarray], measured: Sequence[np.ndarray]) -> np.ndarray:
    """The values `[levels, ...]`, each level's of the first part that has measured it."""
    holder = np.argmax(measured, axis=0)
    return np.stack(values)[holder, np.arange(len(holder))]


def _trouble(record: Record, first: Record) -> str:
    """Why two parts of a measure cannot be joined; empty if they can."""
    if (record.version, record.specs) != (first.version, first.specs):
        return "is of different versions; evaluate both again"
    if record.settings != first.settings:
        return f"was made with {dict(record.settings)} and {dict(first.settings)}"
    if not _same_data(record.subject, first.subject):
        return "is of different data"
    return ""


def _same_data(ours: Subject, theirs: Subject) -> bool:
    return (
        str(ours.data_checksum) == str(theirs.data_checksum)
        and np.array_equal(ours.labels, theirs.labels)
        and np.array_equal(ours.class_names, theirs.class_names)
    )
