"""A work directory's measured runs -> what a report shows of them, and notes on the others."""

from collections.abc import Callable
from typing import NamedTuple

from etils import epath

from prunejax.config import Config, Data, UserError, differences
from prunejax.config.files import MAY_DIFFER
from prunejax.data import Dataset
from prunejax.measures import RunMeasures, load_measures
from prunejax.methods import is_one_shot
from prunejax.report.figures import Curves
from prunejax.report.study import is_in_sweep, seeds_a_cell
from prunejax.runs.directory import differing_data, load_provenance
from prunejax.runs.log import load_curves
from prunejax.types import Path

BASELINE = "cross_entropy"
"""The method that others are compared with, and so the first in tables and figures."""


class Collected(NamedTuple):
    """The arguments of `page.write`, by name, and the settings of one of the runs."""

    study: dict[str, RunMeasures]
    curves: Curves
    dataset: Dataset | None
    source: str
    notes: list[str]
    config: Config


def collect(workdir: Path, load_data: Callable[[Data], Dataset]) -> Collected:
    """The measured runs of a work directory that can be shown together.

    If runs differ in settings, data or test images, the largest compatible group is shown. Runs
    that are missing, damaged or different are left out, and named in a note.

    Args:
        workdir: each of its sub-directories with a `config.json` is a run.
        load_data: returns the images of a run; a UserError leaves them out.

    Raises:
        UserError: if there is no measured run.
    """
    study, notes = _load_runs(workdir)
    if not study:
        raise UserError(
            f"{workdir} holds no measured run; run experiments.train and experiments.evaluate first"
            + "".join(f" ({note})" for note in notes[:1])
        )

    reference = _most_compatible(study)
    shown = _compatible(study, reference, notes)
    shown = _with_dense_run(shown, notes)
    if not shown:
        raise UserError(
            f"{workdir} has nothing that can be shown; measure the dense run too ({notes[-1]})"
        )
    return Collected(
        study=shown,
        curves=_curves(workdir, shown, notes),
        dataset=_images(reference, load_data, notes),
        source=_source(workdir, shown),
        notes=notes,
        config=reference.config,
    )


def _most_compatible(study: dict[str, RunMeasures]) -> RunMeasures:
    """The run with which most others can be shown; ties: the first in order."""

    def agreeing(name: str) -> int:
        return sum(not differing(study[name], other) for other in study.values())

    return study[max(study, key=agreeing)]


def _compatible(
    study: dict[str, RunMeasures], reference: RunMeasures, notes: list[str]
) -> dict[str, RunMeasures]:
    """The runs that can be shown with the reference; a note on each other one."""
    shown: dict[str, RunMeasures] = {}
    for name, run in study.items():
        # Two that can be shown with the reference may still not be shown with each other.
        for other in (reference, *shown.values()):
            different = differing(run, other)
            if different:
                notes.append(
                    f"Not shown: {name}. It was made with other settings than {other.name} "
                    f"({'; '.join(different)})"
                )
                break
        else:
            shown[name] = run
    return shown


def _with_dense_run(study: dict[str, RunMeasures], notes: list[str]) -> dict[str, RunMeasures]:
    """The runs, except those of sweeps without their dense run; adds a note on each of these."""
    shown = dict(study)
    for name, run in study.items():
        dense = run.config.experiment.dense_parent
        if is_in_sweep(study, name) and dense not in study:
            del shown[name]
            notes.append(f"Not shown: {name}. Its dense run {dense} is missing or not shown")
    return shown


def _curves(workdir: Path, study: dict[str, RunMeasures], notes: list[str]) -> Curves:
    """Each run's curves. A run without them is still shown: its measures are complete."""
    curves = {}
    for name, run in study.items():
        try:
            curves[name] = load_curves(workdir / name, len(run.seeds))
        except UserError as error:
            notes.append(str(error))
    return curves


def _images(
    reference: RunMeasures, load_data: Callable[[Data], Dataset], notes: list[str]
) -> Dataset | None:
    """The images, for the gallery and the tooltips only: they may be on another machine."""
    try:
        dataset = load_data(reference.config.data)
        if dataset.checksum != reference.data_checksum:
            raise UserError(
                f"the images have checksum {dataset.checksum}, not {reference.data_checksum}"
            )
    except UserError as error:
        notes.append(f"Not shown: the images, and so Figure 6. {error}")
        return None
    return dataset


def run_directories(workdir: Path) -> list[Path]:
    """The sub-directories that are runs, by name."""
    workdir = epath.Path(workdir)
    if not workdir.is_dir():
        return []
    found = [path for path in workdir.iterdir() if (path / "config.json").exists()]
    return sorted(found, key=lambda path: path.name)


def _load_runs(workdir: Path) -> tuple[dict[str, RunMeasures], list[str]]:
    """The runs that can be read, in the order of tables and figures; and notes on the others."""
    study = {}
    notes = []
    for directory in run_directories(workdir):
        try:
            load_provenance(directory)
            run = load_measures(directory)
            # Other runs name their dense parent and their partner: a renamed one would be missed.
            if run.name != directory.name:
                raise UserError(
                    f"{directory / 'config.json'} names the run {run.name}; rename one of them"
                )
        except UserError as error:
            notes.append(f"Not shown: {directory.name}. {error}")
            continue
        study[run.name] = run
    return in_order(study), notes


def in_order(study: dict[str, RunMeasures]) -> dict[str, RunMeasures]:
    """The runs in the order of tables and figures.

    By method, the baseline first and others by name; within a method the dense runs, then gradual
    pruning by its start, then one-shot pruning. Within these the baselines of other runs come
    first, then the order is by name.
    """
    references = {run.config.experiment.baseline for run in study.values()}

    def sort_key(name: str) -> tuple:
        config = study[name].config
        method = config.experiment.method
        pruning = config.experiment.pruning
        # 0 dense, 1 gradual, 2 one-shot; gradual ones are ordered by start, those of sweeps last.
        kind, in_sweep, start = 0, False, 0.0
        if pruning is not None and pruning.schedule is not None:
            kind = 1
            start = study[name].start_fraction
            in_sweep = start is not None
            if start is None:
                start = getattr(config.prune, pruning.schedule).begin_step
        elif pruning is not None:
            kind = 2
        return method != BASELINE, method, kind, in_sweep, start, name not in references, name

    return {name: study[name] for name in sorted(study, key=sort_key)}


def differing(run: RunMeasures, other: RunMeasures) -> list[str]:
    """The differences that prevent two runs from being shown together."""
    found = trained_otherwise(run, other)
    # Only those measure settings count that measures of both runs depend on.
    for field in sorted(run.decided_by & other.decided_by):
        ours = getattr(run.config.measure, field)
        theirs = getattr(other.config.measure, field)
        if ours != theirs:
            found.append(f"measure.{field}: {ours}, not {theirs}")
    return found


def trained_otherwise(run: RunMeasures, other: RunMeasures) -> list[str]:
    """The differences that prevent comparing the models of two runs, measure settings ignored."""
    ignore = list(MAY_DIFFER)
    if is_one_shot(run.config.experiment) and is_one_shot(other.config.experiment):
        ignore.remove("finetune")
    found = differences(run.config, other.config, ignore)
    found += differing_data(run.data_checksum, other.data_checksum)
    if len(run.labels) != len(other.labels):
        found.append(f"test images: {len(run.labels)}, not {len(other.labels)}")
    return found


def _source(workdir: Path, study: dict[str, RunMeasures]) -> str:
    """The end of every caption."""
    failed = any(run.failed.any() for run in study.values())
    fewer = ", less those that failed" if failed else ""
    presets = ", ".join(sorted({run.config.preset for run in study.values()}))
    commits = set()
    for name in study:
        commits.update(map(_short, load_provenance(workdir / name)["commits"]))
    return (
        f"n = {seeds_a_cell(study)}{fewer}, preset {presets}, commit {', '.join(sorted(commits))}."
    )


def _short(commit: str) -> str:
    return commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")
