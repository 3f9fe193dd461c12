"""Runs that differ in their seeds only, as one run of all seeds without checkpoints."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from prunejax.config import Config, UserError, differences, load_config, to_json
from prunejax.runs.directory import write_whole
from prunejax.runs.log import ABOUT, at_steps, load_curves, rounded
from prunejax.runs.provenance import load_provenance
from prunejax.training.members import Members, members_of
from prunejax.types import Path

OF_SEEDS = ("models", "seed")
"""Settings in which the parts of a run differ."""


class JoinedRun(NamedTuple):
    """A run of all seeds, not written yet."""

    config: Config
    directories: list[Path]
    """The directories of the parts, by their seeds."""
    rows: list[np.ndarray]
    """For each part, the indices of its models among all."""
    provenance: dict[str, Any]
    curves: list[dict[str, Any]]
    """Lines of `metrics.jsonl`."""


def join_runs(directories: Sequence[Path]) -> JoinedRun:
    """Returns the run that has the seeds of all parts, which may come in any order.

    Args:
        directories: of the parts.

    Raises:
        UserError: if they are not parts of one run, or one cannot be read.
    """
    configs = {directory: load_config(directory) for directory in directories}
    in_order = _in_order(directories, configs)
    config = configs[in_order[0]]
    models = sum(configs[directory].models for directory in in_order)
    config = dataclasses.replace(config, models=models)
    members = members_of(config)
    rows = [_rows(members, members_of(configs[directory])) for directory in in_order]
    return JoinedRun(
        config=config,
        directories=in_order,
        rows=rows,
        provenance=_joined_provenance(in_order),
        curves=_joined_curves(in_order, rows, len(members)),
    )


def write_run(joined: JoinedRun, directory: Path) -> None:
    """Writes `metrics.jsonl`, `provenance.json` and `config.json`.

    Raises:
        OSError: if it cannot be written there.
    """
    lines = [json.dumps(line) + "\n" for line in joined.curves]
    write_whole(directory / "metrics.jsonl", "".join(lines))
    write_whole(directory / "provenance.json", json.dumps(joined.provenance, indent=2) + "\n")
    # Last, because a directory that has one is a run.
    write_whole(directory / "config.json", to_json(joined.config))


def _in_order(directories: Sequence[Path], configs: dict[Path, Config]) -> list[Path]:
    """The parts by their seeds.

    Raises:
        UserError: if they differ in anything else, or their seeds overlap or leave some out.
    """
    in_order = sorted(directories, key=lambda directory: configs[directory].seed)
    first = in_order[0]
    for before, part in itertools.pairwise(in_order):
        both = f"{before} and {part}"
        different = differences(configs[part], configs[first], ignore=OF_SEEDS)
        if different:
            raise UserError(f"{part} differs from {first} ({'; '.join(different)})")
        expected = configs[before].seed + configs[before].models
        seed = configs[part].seed
        if seed < expected:
            raise UserError(f"{both} have seed {seed}; a run has each seed once")
        if seed > expected:
            raise UserError(
                f"{both} leave out the seeds from {expected} to {seed - 1}, and a run has all "
                "between its first and its last; train and evaluate those too"
            )
    return in_order


def _rows(whole: Members, part: Members) -> np.ndarray:
    """Where the members of a part stand in the whole."""
    place = {member: row for row, member in enumerate(_identities(whole))}
    return np.array([place[member] for member in _identities(part)])


def _identities(members: Members) -> list[tuple[float, int]]:
    return list(zip(members.sparsities.tolist(), members.seeds.tolist(), strict=True))


def _joined_provenance(run_dirs: Sequence[Path]) -> dict[str, Any]:
    """The data, and the sessions of all parts.

    Raises:
        UserError: if one cannot be read, or is of other data or stages than the first.
    """
    parts = [load_provenance(run_dir) for run_dir in run_dirs]
    joined = {}
    for field in ("data_checksum", "class_names", "image_shape", "stage_steps"):
        for run_dir, part in zip(run_dirs, parts, strict=True):
            if part[field] != parts[0][field]:
                raise UserError(
                    f"{run_dir} and {run_dirs[0]} differ ({field}: {part[field]}, not "
                    f"{parts[0][field]})"
                )
        joined[field] = parts[0][field]
    return joined | {"sessions": [session for part in parts for session in part["sessions"]]}


def _joined_curves(
    run_dirs: Sequence[Path], rows: Sequence[np.ndarray], models: int
) -> list[dict[str, Any]]:
    """The lines that a run of all seeds would have, of the steps that all of its parts report.

    Of a part that reports more often the means count; metrics that some part lacks are left out.
    Times are those of the first part.

    Args:
        run_dirs: of the parts.
        rows: of each part, where its models stand among all.
        models: how many there are in all.

    Returns:
        Lines for `metrics.jsonl`, with metrics as lists of six significant digits.

    Raises:
        UserError: if one is missing or damaged.
    """
    parts = [
        load_curves(run_dir, len(indices)) for run_dir, indices in zip(run_dirs, rows, strict=True)
    ]
    common = set.intersection(*({line["step"] for line in lines} for lines in parts))
    joined = []
    for same_step in zip(*(at_steps(lines, common) for lines in parts), strict=True):
        line = {name: same_step[0][name] for name in ABOUT if name in same_step[0]}
        for name in same_step[0]:
            if name in line or not all(name in part for part in same_step):
                continue
            whole = np.empty(models)
            for part, indices in zip(same_step, rows, strict=True):
                whole[indices] = part[name]
            line[name] = [rounded(value) for value in whole.tolist()]
        joined.append(line)
    return joined
