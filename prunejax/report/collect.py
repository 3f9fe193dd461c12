"""A work directory's measured runs -> what a report shows of them, and notes on the others."""

from collections.abc import Callable
from typing import NamedTuple

from etils import epath

from prunejax.config import Config, Data, UserError, differences
from prunejax.config.files import MAY_DIFFER
from prunejax.data import Dataset
from prunejax.measures import RunMeasures, load_measures
from prunejax.report.figures import Curves
from prunejax.report.study import sweeps
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

    # Those that agree with most others are shown; of as many, the first in order decides.
    def agreeing(name: str) -> int:
        return sum(not differing(study[name], other) for other in study.values())

    reference = study[max(study, key=agreeing)]
    # A run without curves is shown nevertheless: its measures are whole.
    shown = {}
    curves = {}
    commits = set()
    for name, run in study.items():
        different = differing(run, reference)
        if different:
            notes.append(
                f"Not shown: {name}. It was made with other settings than {reference.name} "
                f"({'; '.join(different)})"
            )
            continue
        shown[name] = run
        commits.update(map(_short, load_provenance(workdir / name)["commits"]))
        try:
            curves[name] = load_curves(workdir / name, len(run.seeds))
        except UserError as error:
            notes.append(str(error))

    for name in sweeps(shown):
        dense = shown[name].config.experiment.dense
        if dense not in shown:
            del shown[name]
            curves.pop(name, None)
            notes.append(f"Not shown: {name}. Its dense run {dense} is not there, or not shown")
    if not shown:
        raise UserError(
            f"{workdir} has nothing that can be shown; measure the dense run too ({notes[-1]})"
        )

    # The images are for the gallery and the tooltips only, and may lie on another machine.
    dataset = None
    try:
        dataset = load_data(reference.config.data)
        if dataset.checksum != reference.data_checksum:
            raise UserError(
                f"the images are of checksum {dataset.checksum}, not {reference.data_checksum}"
            )
    except UserError as error:
        dataset = None
        notes.append(f"Not shown: the images, and so Figure 6. {error}")
    source = _source(shown, reference.config, sorted(commits))
    return Collected(shown, curves, dataset, source, notes, reference.config)


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
    pruning as early as it begins, then pruning at once. Of several of a kind those come first that
    others are compared with, then it is by name.
    """
    references = {run.config.experiment.against for run in study.values()}

    def place(name: str) -> tuple:
        config = study[name].config
        method = config.experiment.method
        pruning = config.experiment.pruning
        # 0 dense, 1 gradual, 2 at once; of gradual ones the earlier begin comes first.
        kind = 0
        begin = 0
        if pruning is not None and pruning.schedule is not None:
            kind = 1
            begin = getattr(config.prune, pruning.schedule).begin_step
        elif pruning is not None:
            kind = 2
        return method != BASELINE, method, kind, begin, name not in references, name

    return {name: study[name] for name in sorted(study, key=place)}


def differing(run: RunMeasures, other: RunMeasures) -> list[str]:
    """What keeps two runs from being shown together."""
    told = differences(run.config, other.config, apart=MAY_DIFFER)
    # Of how they were measured only that counts on which measures of both depend.
    for field in sorted(run.decided_by & other.decided_by):
        ours = getattr(run.config.measure, field)
        theirs = getattr(other.config.measure, field)
        if ours != theirs:
            told.append(f"measure.{field}: {ours}, not {theirs}")
    told += differing_data(run.data_checksum, other.data_checksum)
    if len(run.labels) != len(other.labels):
        told.append(f"test images: {len(run.labels)}, not {len(other.labels)}")
    return told


def _short(commit: str) -> str:
    return commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")


def _source(study: dict[str, RunMeasures], config: Config, commits: list[str]) -> str:
    """What every caption ends with."""
    excluded = any(run.excluded.any() for run in study.values())
    fewer = ", less those excluded" if excluded else ""
    return (
        f"n = {config.models} seeds a cell{fewer}, preset {config.preset}, "
        f"commit {', '.join(commits)}."
    )
