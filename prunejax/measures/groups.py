"""Measures that share the outputs of the same models, computed together."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from prunejax.config import MeasureSettings
from prunejax.data import Dataset
from prunejax.measures.entry import Context, Measure, ModelOutputs, decisive_settings
from prunejax.measures.one_model import Values, measure_model, why_it_failed
from prunejax.measures.outputs import one_by_one, streamed
from prunejax.measures.record import FIRST_DIM, Record, Subject, blank
from prunejax.runs.restored import RestoredPopulation
from prunejax.training import hosts

Advance = Callable[[float], object]
"""To be called with how much has been done since."""
Track = Callable[[str, int], AbstractContextManager[Advance]]
"""`track(unit, total)` is entered before a part of the work, which calls what that yields."""


class Job(NamedTuple):
    """What all groups of measures have in common."""

    trained: RestoredPopulation
    dataset: Dataset
    context: Context
    track: Track


Found = dict[str, dict[int, Values]]
"""By measure and by row of its arrays, what was found."""


def make_groups(pending: list[Measure]) -> list[list[Measure]]:
    """The measures that are computed together, because they take the same models."""
    one_by_one = [measure for measure in pending if not _is_streamed(measure)]
    groups = [[measure for measure in pending if _is_streamed(measure)]]
    for models in ("first", "probed", "all"):
        groups.append([measure for measure in one_by_one if measure.models == models])
    return [group for group in groups if group]


def measure_group(
    job: Job, measures: list[Measure], subject: Subject
) -> tuple[list[Record], dict[str, str], Subject]:
    """Measures a run's models, which the processes share among them.

    Args:
        job: the run.
        measures: one of `make_groups`.
        subject: the models and images that are measured.

    Returns:
        The measures; why others failed, by name; and the subject, in which models with outputs that
        are not finite have failed too.
    """
    if _is_streamed(measures[0]):
        return _measure_streamed(job, measures, subject)
    return _measure_one_by_one(job, measures, subject)


def _is_streamed(measure: Measure) -> bool:
    return measure.models == "all" and "probes" not in measure.needs


def _measure_streamed(
    job: Job, measures: list[Measure], subject: Subject
) -> tuple[list[Record], dict[str, str], Subject]:
    """Measures of all models that need no probes, several models at a time."""
    owner = hosts.owners(len(subject.seeds))
    ours = np.flatnonzero(owner == jax.process_index())
    failed = subject.failed.copy()

    def models(advance: Advance) -> Iterator[tuple[int, ModelOutputs]]:
        settings = job.context.settings
        outputs = streamed(job.trained, ours, job.dataset, settings, advance)
        # A model may diverge in its last update, which no later step of training notices.
        for row, model in zip(ours.tolist(), outputs, strict=True):
            finite = np.isfinite(model.representations).all() and np.isfinite(model.logits).all()
            failed[row] |= not finite
            if not failed[row]:
                yield row, model

    with job.track("images", len(ours) * len(subject.labels)) as advance:
        found, failures = _measure_models(
            measures, models(advance), job.context, subject, lambda count: None
        )
    subject = dataclasses.replace(subject, failed=hosts.merge(failed, owner))
    records, failures = _gather(measures, found, failures, owner, subject, job.context)
    return records, failures, subject


def _measure_one_by_one(
    job: Job, measures: list[Measure], subject: Subject
) -> tuple[list[Record], dict[str, str], Subject]:
    """Measures that need probes, or some models only."""
    # A group's measures are of the same models: what holds for the first holds for all.
    kind = measures[0].models
    settings = job.context.settings
    rows = _chosen_rows(kind, subject, settings)
    _, level_of = np.unique(subject.sparsities, return_inverse=True)
    indices = level_of[rows] if kind == "first" else rows  # in the arrays
    owner_of_rows = hosts.owners(len(rows))
    owner = np.zeros(subject.sizes[FIRST_DIM[kind]], int)
    owner[indices] = owner_of_rows
    ours = owner_of_rows == jax.process_index()

    # One model after the other: its probes of all images are the largest arrays.
    outputs = one_by_one(job.trained, rows[ours], job.dataset, settings)
    models = zip(indices[ours].tolist(), outputs, strict=True)
    with job.track("models", int(ours.sum())) as advance:
        found, failures = _measure_models(measures, models, job.context, subject, advance)
    records, failures = _gather(measures, found, failures, owner, subject, job.context)
    return records, failures, subject


def _chosen_rows(
    kind: str, subject: Subject, settings: MeasureSettings
) -> Int[np.ndarray, " rows"]:
    """The models that a measure is computed for, level by level; none that has failed."""
    rows = [np.zeros(0, np.int64)]
    most = {"all": None, "probed": settings.probe_models, "first": 1}[kind]
    for level in np.unique(subject.sparsities):
        healthy = (subject.sparsities == level) & ~subject.failed
        rows.append(np.flatnonzero(healthy)[:most])
    return np.concatenate(rows)


def _measure_models(
    measures: list[Measure],
    models: Iterable[tuple[int, ModelOutputs]],
    context: Context,
    subject: Subject,
    advance: Advance,
) -> tuple[Found, dict[str, str]]:
    """Applies each measure to each model; one that fails is not applied again.

    Args:
        measures: which share the models' outputs.
        models: each with its row in the measures' arrays.
        context: what else measures need.
        subject: of which the sizes are those of the arrays.
        advance: is called with the fractions of models that are done.
    """
    found: Found = {measure.name: {} for measure in measures}
    failures = {}
    share = 1 / len(measures)
    for index, outputs in models:
        for measure in measures:
            with _part(advance, share) as progress:
                if measure.name in failures:
                    continue
                watched = context._replace(progress=progress)
                try:
                    values = measure_model(measure, outputs, watched, subject.sizes)
                except Exception as error:  # a custom function may raise anything
                    failures[measure.name] = why_it_failed(error, measure)
                    continue
                found[measure.name][index] = values
    return found, failures


@contextlib.contextmanager
def _part(advance: Advance, size: float) -> Iterator[Callable[[float], None]]:
    """A part of the work, done when the block has ended; yields a function to report progress."""
    left = 1.0

    def progress(fraction: float) -> None:
        nonlocal left
        done = min(fraction, left)
        left -= done
        advance(size * done)

    try:
        yield progress
    finally:
        advance(size * left)


def _gather(
    measures: list[Measure],
    found: Found,
    failures: dict[str, str],
    owner: Int[np.ndarray, " rows"],
    subject: Subject,
    context: Context,
) -> tuple[list[Record], dict[str, str]]:
    """Merges what all processes have found.

    Args:
        measures: that were computed.
        found: by this process.
        failures: in this process.
        owner: the process that has each row of the arrays.
        subject: what was measured.
        context: with which.

    Returns:
        the measures; and why others failed, in any process.
    """
    # All processes must leave out the same measures, or they would wait for each other below.
    everywhere = {}
    for text in hosts.gather_texts(json.dumps(failures)):
        everywhere = json.loads(text) | everywhere
    records = []
    for measure in measures:
        if measure.name in everywhere:
            continue
        rows = found[measure.name]
        measured = np.zeros(len(owner), bool)
        measured[list(rows)] = True
        arrays = {}
        for name, spec in measure.arrays.items():
            array = blank(spec, subject.sizes)
            for index, values in rows.items():
                array[index] = values[name]
            arrays[name] = hosts.merge(array, owner)
        record = Record(
            name=measure.name,
            version=measure.version,
            settings=decisive_settings(measure, context.settings),
            specs=measure.arrays,
            columns=measure.columns,
            subject=subject,
            arrays=arrays,
            measured=hosts.merge(measured, owner),
        )
        records.append(record)
    return records, everywhere
