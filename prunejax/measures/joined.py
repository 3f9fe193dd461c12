"""Measured runs that differ in their seeds only -> one run of all seeds, without checkpoints."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prunejax.config import Config, UserError, differences, load_config, to_json
from prunejax.measures.record import BLANK, DTYPES, Record, Subject, shape_of
from prunejax.measures.store import read_all, write
from prunejax.runs.directory import write_whole
from prunejax.runs.log import join_curves
from prunejax.runs.provenance import join_provenance
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


def read_part(directory: Path) -> Part:
    """A run and its measures.

    Raises:
        UserError: if it is none, or a measure cannot be used.
    """
    records, failures = read_all(directory)
    if failures:
        raise UserError(next(iter(failures.values())))
    return Part(directory, load_config(directory), records)


class Joined(NamedTuple):
    """A run of all seeds, not written yet."""

    config: Config
    records: list[Record]
    provenance: dict[str, Any]
    curves: list[dict[str, Any]]
    """Lines of `metrics.jsonl`."""


def join(parts: Sequence[Part]) -> Joined:
    """The run that has the seeds of all parts, which may come in any order.

    Raises:
        UserError: if they are not of one run.
    """
    parts = in_order(parts)
    config = joined_config(parts)
    directories = [part.directory for part in parts]
    members = members_of(config)
    rows = [_rows(members, members_of(part.config)) for part in parts]
    return Joined(
        config=config,
        records=joined_records(parts),
        provenance=join_provenance(directories),
        curves=join_curves(directories, rows, len(members)),
    )


def write_joined(joined: Joined, directory: Path) -> None:
    """Writes `measures/`, `metrics.jsonl`, `provenance.json` and `config.json`.

    Raises:
        UserError: if it cannot be written there.
    """
    for record in joined.records:
        write(record, directory)
    lines = [json.dumps(line) + "\n" for line in joined.curves]
    write_whole(directory / "metrics.jsonl", "".join(lines))
    write_whole(directory / "provenance.json", json.dumps(joined.provenance, indent=2) + "\n")
    # Last, because a directory that has one is a run.
    write_whole(directory / "config.json", to_json(joined.config))


def in_order(parts: Sequence[Part]) -> list[Part]:
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


def joined_config(parts: Sequence[Part]) -> Config:
    """The settings of a run of all seeds of `parts`, which are in order."""
    models = sum(part.config.models for part in parts)
    return dataclasses.replace(parts[0].config, models=models)


def joined_records(parts: Sequence[Part]) -> list[Record]:
    """The measures of all seeds of `parts`, which are in order.

    What is measured of one model of each sparsity is that of the part with the lowest seed.

    Raises:
        UserError: if one lacks a measure that another has, or made it of other data, by another
            version or with other settings.
    """
    config = joined_config(parts)
    names = dict.fromkeys(name for part in parts for name in part.records)
    found = []
    for name in names:
        for part in parts:
            if name not in part.records:
                raise UserError(f"{part.directory} lacks the measure {name}; evaluate it first")
        found.append(_joined(name, parts, config))
    return found


def _joined(name: str, parts: Sequence[Part], config: Config) -> Record:
    records = [part.records[name] for part in parts]
    first = records[0]
    for part, record in zip(parts, records, strict=True):
        trouble = _trouble(record, first)
        if trouble:
            raise UserError(
                f"{part.directory} and {parts[0].directory}: the measure {name} {trouble}"
            )
    members = members_of(config)
    rows = [_rows(members, members_of(part.config)) for part in parts]
    subject = dataclasses.replace(
        first.subject,
        seeds=members.seeds,
        sparsities=members.sparsities,
        excluded=_placed([record.subject.excluded for record in records], rows, len(members)),
    )
    of_models = next(iter(first.specs.values())).dims[0] == "models"
    arrays = {}
    if of_models:
        measured = _placed([record.measured for record in records], rows, len(members))
        for array, spec in first.specs.items():
            shape = shape_of(spec, subject.sizes)
            whole = np.full(shape, BLANK[spec.kind], DTYPES[spec.kind])
            for record, places in zip(records, rows, strict=True):
                whole[places] = record.arrays[array]
            arrays[array] = whole
    else:
        # Of each level by the first part that has it.
        all_measured = np.stack([record.measured for record in records])
        measured = all_measured.any(0)
        holder = all_measured.argmax(0)
        for array in first.specs:
            values = np.stack([record.arrays[array] for record in records])
            arrays[array] = values[holder, np.arange(len(holder))]
    return dataclasses.replace(first, subject=subject, arrays=arrays, measured=measured)


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


def _identities(members: Members) -> list[tuple[int, float, int]]:
    return list(
        zip(
            members.begins.tolist(),
            members.sparsities.tolist(),
            members.seeds.tolist(),
            strict=True,
        )
    )


def _placed(values: Sequence[np.ndarray], rows: Sequence[np.ndarray], count: int) -> np.ndarray:
    """The parts' values `[models of the part]` in one array `[count]`."""
    whole = np.zeros(count, values[0].dtype)
    for of_part, places in zip(values, rows, strict=True):
        whole[places] = of_part
    return whole
