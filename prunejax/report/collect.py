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
"""The method that others are looked at beside, and so the first."""


class Collected(NamedTuple):
    """What `page.write` takes, by its names, and the settings of one of the runs."""

    study: dict[str, RunMeasures]
    curves: Curves
    dataset: Dataset | None
    source: str
    notes: list[str]
    config: Config


def collect(workdir: Path, load_data: Callable[[Data], Dataset]) -> Collected:
    """The measured runs of a work directory that can be shown together.

    Where runs differ in settings, data or test images, those are shown that most others agree
    with. What is missing, damaged or different is left out, and named in a note.

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

    reference = _most_alike(study)
    shown = _alike(study, reference, notes)
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


def _most_alike(study: dict[str, RunMeasures]) -> RunMeasures:
    """The run with which most others can be shown; of as many the first in order."""

    def agreeing(name: str) -> int:
        return sum(not differing(study[name], other) for other in study.values())

    return study[max(study, key=agreeing)]


def _alike(
    study: dict[str, RunMeasures], reference: RunMeasures, notes: list[str]
) -> dict[str, RunMeasures]:
    """The runs that can be shown beside the reference; a note on each other one."""
    shown: dict[str, RunMeasures] = {}
    for name, run in study.items():
        # Two that can be shown beside the reference may still not be beside each other.
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
    """The runs without those of sweeps whose dense run is not there; a note on each of these."""
    shown = dict(study)
    for name, run in study.items():
        dense = run.config.experiment.dense_parent
        if is_in_sweep(study, name) and dense not in study:
            del shown[name]
            notes.append(f"Not shown: {name}. Its dense run {dense} is not there, or not shown")
    return shown


def _curves(workdir: Path, study: dict[str, RunMeasures], notes: list[str]) -> Curves:
    """Each run's curves. A run without them is shown nevertheless: its measures are whole."""
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
    """The images, for the gallery and the tooltips only: they may lie on another machine."""
    try:
        dataset = load_data(reference.config.data)
        if dataset.checksum != reference.data_checksum:
            raise UserError(
                f"the images are of checksum {dataset.checksum}, not {reference.data_checksum}"
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
                raise UserError(f"{directory / 'config.json'} is of {run.name}; rename one of them")
        except UserError as error:
            notes.append(f"Not shown: {directory.name}. {error}")
            continue
        study[run.name] = run
    return in_order(study), notes


def in_order(study: dict[str, RunMeasures]) -> dict[str, RunMeasures]:
    """The runs in the order of tables and figures.

    By method, the baseline first and others by name; within a method the dense runs, then gradual
    pruning as early as it starts, then pruning at once. Of several of a kind those come first that
    others are compared with, then it is by name.
    """
    references = {run.config.experiment.baseline for run in study.values()}

    def place(name: str) -> tuple:
        config = study[name].config
        method = config.experiment.method
        pruning = config.experiment.pruning
        # 0 dense, 1 gradual, 2 at once; of gradual ones the earlier start comes first, and those of
        # sweeps last.
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

    return {name: study[name] for name in sorted(study, key=place)}


def differing(run: RunMeasures, other: RunMeasures) -> list[str]:
    """What keeps two runs from being shown together."""
    told = trained_otherwise(run, other)
    # Of how they were measured only that counts on which measures of both depend.
    for field in sorted(run.decided_by & other.decided_by):
        ours = getattr(run.config.measure, field)
        theirs = getattr(other.config.measure, field)
        if ours != theirs:
            told.append(f"measure.{field}: {ours}, not {theirs}")
    return told


def trained_otherwise(run: RunMeasures, other: RunMeasures) -> list[str]:
    """What keeps the models of two runs from being compared, however they were measured."""
    apart = list(MAY_DIFFER)
    if is_one_shot(run.config.experiment) and is_one_shot(other.config.experiment):
        apart.remove("finetune")
    told = differences(run.config, other.config, apart)
    told += differing_data(run.data_checksum, other.data_checksum)
    if len(run.labels) != len(other.labels):
        told.append(f"test images: {len(run.labels)}, not {len(other.labels)}")
    return told


def _source(workdir: Path, study: dict[str, RunMeasures]) -> str:
    """What every caption ends with."""
    failed = any(run.failed.any() for run in study.values())
    fewer = ", less those failed" if failed else ""
    presets = ", ".join(sorted({run.config.preset for run in study.values()}))
    commits = set()
    for name in study:
        commits.update(map(_short, load_provenance(workdir / name)["commits"]))
    return (
        f"n = {seeds_a_cell(study)}{fewer}, preset {presets}, commit {', '.join(sorted(commits))}."
    )


def _short(commit: str) -> str:
    return commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")
