"""Measured runs that differ in their seeds only -> one run of all seeds, without checkpoints."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prunejax.config import Config, UserError, differences, load_config, to_json
from prunejax.measures.record import Record, Subject, blank
from prunejax.measures.store import (
    REQUIRED,
    file_of,
    note_failures,
    noted_failures,
    read_all,
    write,
)
from prunejax.runs.directory import write_whole
from prunejax.runs.log import join_curves
from prunejax.runs.provenance import join_provenance, load_provenance
from prunejax.training.members import Members, members_of
from prunejax.types import Path

OF_SEEDS = ("models", "seed")
"""Fields of a configuration in which the parts of a run differ."""


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
    """A run of all seeds, not written yet."""

    config: Config
    records: list[Record]
    failed: dict[str, str]
    """By the name of a measure that failed in some part, why."""
    lacking: dict[str, list[int]]
    """By the name of a measure that some parts lack, their seeds: it was not measured of these."""
    provenance: dict[str, Any]
    curves: list[dict[str, Any]]
    """Lines of `metrics.jsonl`."""


def join(parts: Sequence[Part]) -> Joined:
    """The run that has the seeds of all parts, which may come in any order.

    Raises:
        UserError: if they are not of one run.
    """
    parts = _in_order(parts)
    models = sum(part.config.models for part in parts)
    config = dataclasses.replace(parts[0].config, models=models)
    directories = [part.directory for part in parts]
    members = members_of(config)
    rows = [_rows(members, members_of(part.config)) for part in parts]
    failed: dict[str, str] = {}
    for part in parts:
        failed = dict(part.failed) | failed
    return Joined(
        config=config,
        records=_joined_records(parts, members, rows),
        failed=failed,
        lacking=_lacking(parts),
        provenance=join_provenance(directories),
        curves=join_curves(directories, rows, len(members)),
    )


def write_joined(joined: Joined, directory: Path) -> None:
    """Writes `measures/`, `metrics.jsonl`, `provenance.json` and `config.json`.

    Raises:
        OSError, UserError: if it cannot be written there.
    """
    for record in joined.records:
        write(record, directory)
    known = {record.name for record in joined.records}
    failed = {name: why for name, why in joined.failed.items() if name not in known}
    note_failures(directory, failed, failed)
    lines = [json.dumps(line) + "\n" for line in joined.curves]
    write_whole(directory / "metrics.jsonl", "".join(lines))
    write_whole(directory / "provenance.json", json.dumps(joined.provenance, indent=2) + "\n")
    # Last, because a directory that has one is a run.
    write_whole(directory / "config.json", to_json(joined.config))


def _in_order(parts: Sequence[Part]) -> list[Part]:
    """The parts by their seeds.

    Raises:
        UserError: if they differ in anything else, or their seeds overlap or leave some out.
    """
    parts = sorted(parts, key=lambda part: part.config.seed)
    first = parts[0]
    for before, part in itertools.pairwise(parts):
        both = f"{before.directory} and {part.directory}"
        different = differences(part.config, first.config, apart=OF_SEEDS)
        if different:
            told = "; ".join(different)
            raise UserError(f"{part.directory} differs from {first.directory} ({told})")
        expected = before.config.seed + before.config.models
        if part.config.seed < expected:
            raise UserError(f"{both} have seed {part.config.seed}; a run has each seed once")
        if part.config.seed > expected:
            raise UserError(
                f"{both} leave out the seeds from {expected} to {part.config.seed - 1}, and a run "
                "has all between its first and its last; train and evaluate those too"
            )
    return parts


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
    """A measure of all members; what is of one model of each sparsity is the first part's."""
    first = records[0]
    excluded = [record.subject.excluded for record in records]
    subject = dataclasses.replace(
        first.subject,
        seeds=members.seeds,
        sparsities=members.sparsities,
        excluded=_placed(excluded, rows),
    )
    measured = [record.measured for record in records]
    of_models = next(iter(first.specs.values())).dims[0] == "models"
    arrays = {}
    for name in first.specs:
        values = [record.arrays[name] for record in records]
        arrays[name] = _placed(values, rows) if of_models else _first_measured(values, measured)
    whole = _placed(measured, rows) if of_models else np.any(measured, axis=0)
    return dataclasses.replace(first, subject=subject, arrays=arrays, measured=whole)


def _placed(values: Sequence[np.ndarray], rows: Sequence[np.ndarray]) -> np.ndarray:
    """The parts' values `[models of the part, ...]` as one array `[models, ...]`."""
    count = sum(map(len, rows))
    whole = np.empty((count, *values[0].shape[1:]), values[0].dtype)
    for of_part, places in zip(values, rows, strict=True):
        whole[places] = of_part
    return whole


def _first_measured(values: Sequence[np.ndarray], measured: Sequence[np.ndarray]) -> np.ndarray:
    """The values `[levels, ...]`, each level's of the first part that has measured it."""
    holder = np.argmax(measured, axis=0)
    return np.stack(values)[holder, np.arange(len(holder))]


def _trouble(record: Record, first: Record) -> str:
    """What keeps two parts of a measure from being joined; empty if nothing does."""
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


def _rows(whole: Members, part: Members) -> np.ndarray:
    """Where the members of a part stand in the whole."""
    place = {member: row for row, member in enumerate(_identities(whole))}
    return np.array([place[member] for member in _identities(part)])


def _identities(members: Members) -> list[tuple[tuple[int, float], int]]:
    return list(zip(members.cells, members.seeds.tolist(), strict=True))
