"""Measures a restored run on the test set: what is missing or outdated, one file a measure."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial

import numpy as np
from etils import epath

from prunejax.config import Config, MeasureSettings, UserError
from prunejax.data import Dataset
from prunejax.measures.entry import MEASURES, Context, Measure, decisive_settings
from prunejax.measures.groups import Advance, Job, Track, make_groups, measure_group
from prunejax.measures.outputs import fitted_examples
from prunejax.measures.record import Record, Subject, check_entry
from prunejax.measures.results import RunMeasures
from prunejax.measures.store import REQUIRED, assemble, note_failures, read_all, write
from prunejax.runs.directory import load_provenance
from prunejax.runs.restored import RestoredPopulation
from prunejax.training import hosts
from prunejax.training.members import Members, members_of
from prunejax.training.state import under_own_switches
from prunejax.types import Path


def _untracked(unit: str, total: int) -> AbstractContextManager[Advance]:
    return contextlib.nullcontext(lambda count: None)


@under_own_switches
def evaluate(
    trained: RestoredPopulation,
    dataset: Dataset,
    directory: str | Path,
    settings: MeasureSettings | None = None,
    track: Track = _untracked,
    measures: Iterable[str] | None = None,
) -> RunMeasures:
    """Measures a run's models on the test set, and writes a file for each measure.

    Computed is what has no file, or one that is damaged, of another version of the measure, of
    other settings that it depends on, of other models or of other data. A measure that fails is
    left out and named in `failures`. Several processes share the models among them, and the first
    one writes.

    Args:
        trained: a finished run.
        dataset: what it was trained on.
        directory: the run's, in which `measures/` is or will be.
        settings: of the measures; None takes the run's own.
        track: entered with `images`, over all models, for measures of several models at a time;
            then with `models` for each group of measures of one model at a time, the slower part.
        measures: names of those to bring up to date, in addition to the predictions; None: all.

    Returns:
        All measures of the run, including those that were there before.

    Raises:
        UserError: if the run is unfinished, the data is not what it was trained on, there is no
            measure of such a name, the predictions fail or a file cannot be written.
    """
    _refuse_other_data(trained, dataset)
    settings = settings or trained.config.measure
    directory = epath.Path(directory)
    subject = Subject(
        seeds=np.asarray(trained.seeds, np.int32),
        sparsities=np.asarray(trained.sparsities, np.float32),
        failed=trained.failed,
        labels=np.asarray(dataset.test_labels, np.int32),
        class_names=np.array(dataset.class_names),
        data_checksum=np.array(dataset.checksum),
    )

    # These are there already, and need not be measured again.
    records, failures = hosts.on_all_processes(lambda: read_all(directory))
    names = _pending(records, measures, settings, trained.members, dataset.checksum)
    hosts.require_same(f"{directory}: the list of measures to compute", str(names))
    for name in names:
        records.pop(name, None)
        failures.pop(name, None)
    if REQUIRED in records:
        subject = dataclasses.replace(subject, failed=records[REQUIRED].subject.failed)

    # One group after the other, each written before the next, so that it is kept.
    pending, refused = _without_impossible_entries(names, records)
    failures |= refused
    chosen = fitted_examples(dataset, settings)
    context = Context(
        test_labels=dataset.test_labels,
        train_labels=dataset.train_labels[chosen],
        num_classes=len(dataset.class_names),
        settings=settings,
    )
    job = Job(trained, dataset, context, track)
    for group in make_groups(pending):
        made, failed, subject = measure_group(job, group, subject)
        failures |= failed
        if REQUIRED in failures:
            raise UserError(
                f"{trained.config.experiment.name}: no {REQUIRED}: {failures[REQUIRED]}"
            )
        for record in made:
            _by_one_process(partial(write, record, directory))
            records[record.name] = record
    _by_one_process(partial(note_failures, directory, names, failures))

    config = dataclasses.replace(trained.config, measure=settings)
    in_order = {name: records[name] for name in MEASURES if name in records}
    return assemble(config, in_order | records, failures)


def outdated(
    run_dir: str | Path, config: Config, measures: Iterable[str] | None = None
) -> list[str]:
    """The measures that `evaluate` would compute for a run; reads no checkpoint.

    Args:
        run_dir: the run's directory.
        config: of the run, with the requested `measure` settings.
        measures: names, as for `evaluate`.

    Raises:
        UserError: if the directory has no readable provenance, or there is no measure of such a
            name.
    """
    run_dir = epath.Path(run_dir)
    checksum = load_provenance(run_dir)["data_checksum"]
    records, _ = read_all(run_dir)
    return _pending(records, measures, config.measure, members_of(config), checksum)


def _pending(
    records: Mapping[str, Record],
    measures: Iterable[str] | None,
    settings: MeasureSettings,
    who: Members,
    data_checksum: str,
) -> list[str]:
    """The requested measures that are missing, or of other settings or models."""
    names = list(MEASURES) if measures is None else list(measures)
    if REQUIRED not in names:
        names.insert(0, REQUIRED)
    pending = []
    for name in names:
        measure = MEASURES[name]
        record = records.get(name)
        if record is None or not record.subject.is_of(who.seeds, who.sparsities, data_checksum):
            pending.append(name)
        elif dict(record.settings) != decisive_settings(measure, settings):
            pending.append(name)
    return pending


def _refuse_other_data(trained: RestoredPopulation, dataset: Dataset) -> None:
    name = trained.config.experiment.name
    if trained.step < trained.total_steps:
        raise UserError(
            f"{name} is at step {trained.step} of {trained.total_steps}; train it first"
        )
    if trained.data_checksum != dataset.checksum:
        raise UserError(
            f"{name} was trained on data of checksum {trained.data_checksum}; "
            f"this is {dataset.checksum}"
        )


def _without_impossible_entries(
    names: list[str], records: Mapping[str, Record]
) -> tuple[list[Measure], dict[str, str]]:
    """The measures with valid entries, and why the others are not valid."""
    possible = []
    failures = {}
    taken = {array: name for name, record in records.items() for array in record.arrays}
    for name in names:
        measure = MEASURES[name]
        try:
            check_entry(measure)
            for array in measure.arrays:
                if array in taken:
                    raise UserError(f"its array {array!r} is one of {taken[array]}; rename it")
        except UserError as error:
            failures[name] = str(error)
            continue
        taken |= dict.fromkeys(measure.arrays, name)
        possible.append(measure)
    return possible, failures


def _by_one_process(write_it: Callable[[], object]) -> None:
    """One process writes; all go on when it has, or stop where it could not."""

    def write_once() -> None:
        if hosts.is_first():
            write_it()

    hosts.on_all_processes(write_once)
