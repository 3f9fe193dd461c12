"""Writes the tables, the figures and the HTML page of a work directory's measured runs."""

import os
from dataclasses import replace

from absl import flags
from etils import epath

from experiments import flags as cli
from experiments.paper import PUBLISHED
from experiments.registry import EXPERIMENTS
from prunejax.config import FREE, UserError, differences, load_config

FLAGS = flags.FLAGS


def main() -> None:
    """All measured runs under --workdir."""
    print(f"report: {report(cli.workdir())}")


def report(workdir: epath.Path) -> os.PathLike[str]:
    """Writes `<workdir>/report` and returns the page's path; what is missing or differs is named on the page.

    Where runs differ, those are shown that most others agree with.
    """
    from prunejax import data, evaluate
    from prunejax import report as reporting
    from prunejax.rundir import differing_data, load_provenance

    configs, study, curves, commits, notes = {}, {}, {}, {}, []
    for name in EXPERIMENTS:
        try:
            configs[name] = load_config(workdir / name)
            commits[name] = load_provenance(workdir / name)["commit"]
            study[name] = evaluate.load(workdir / name / "measures.npz")
        except UserError as error:
            notes.append(f"Not shown: {name}. {error}")
    if not study:
        raise UserError(f"{workdir} holds no measured run; run experiments.train and experiments.evaluate first")

    def apart(name: str, other: str) -> list[str]:
        ours, theirs = (replace(configs[run], measure=study[run].measure) for run in (name, other))
        different = differences(ours, theirs, {*FREE} - {"measure"})
        different += differing_data(*(str(study[run].data_checksum) for run in (name, other)))
        if len(study[name].labels) != len(study[other].labels):
            different.append(f"test images: {len(study[name].labels)}, not {len(study[other].labels)}")
        return different

    first = max(study, key=lambda name: sum(not apart(name, other) for other in study))
    for name in list(study):
        if different := apart(name, first):
            notes.append(f"Not shown: {name}. It was made with other settings than {first} ({'; '.join(different)})")
            del study[name]
            continue
        try:
            curves[name] = reporting.load_curves(workdir / name, len(study[name].seeds))
        except UserError as error:
            notes.append(str(error))
    config, dataset = configs[first], None
    try:
        dataset = data.load(config.data, FLAGS.data_dir)
        if dataset.checksum != str(study[first].data_checksum):
            raise UserError(f"the images are of checksum {dataset.checksum}, not {study[first].data_checksum}")
    except UserError as error:
        dataset = None
        notes.append(f"Not shown: the images, and so Figure 6. {error}")
    shown = sorted({f"{commits[name][:10]}{'-dirty' * commits[name].endswith('-dirty')}" for name in study})
    fewer = ", less those excluded" if any(run.excluded.any() for run in study.values()) else ""
    source = f"n = {config.models} seeds a cell{fewer}, preset {config.preset}, commit {', '.join(shown)}."
    published = PUBLISHED if config.data.name == "cifar10" else None
    for note in notes:
        print(note)
    return reporting.write(workdir / "report", study, config, source, curves, notes, published, dataset)


if __name__ == "__main__":
    cli.run(main, __doc__, "python -m experiments.report --workdir=runs/digits", ("workdir", "data_dir"))
