"""Joins the measured runs of work directories that differ in their seeds only into one.

Seeds may be trained on other days, on other machines, or when a study turns out to need more of
them: each part is a study with its own --seed and --models. The checkpoints stay where they are.
A measure that some parts lack is of the others' seeds only, which is said.
"""

import contextlib
import os
from collections.abc import Iterator

from absl import flags
from etils import epath

from experiments import flags as cli
from prunejax.config import UserError
from prunejax.config.counts import counted

FLAGS = flags.FLAGS


def main() -> None:
    """Every run of the parts, each as one of all seeds."""
    from prunejax.measures.joined import join, read_part, write_joined

    cli.study()  # the study's module may add measures
    sources = [epath.Path(os.path.expanduser(part)) for part in FLAGS.parts or []]
    if len(sources) < 2:
        raise UserError("--parts: name at least two work directories, separated by commas")
    names = _common_names(sources)
    workdir = cli.workdir()
    targets = [workdir / name for name in names]
    for target in targets:
        if target.exists():
            raise UserError(f"{target} is there already; use another --workdir, or delete it")
    # All are read and compared before the first is written.
    runs = [join([read_part(source / name) for source in sources]) for name in names]
    with _staging(workdir) as staging:
        for run, name in zip(runs, names, strict=True):
            write_joined(run, staging / name)
    for run, target in zip(runs, targets, strict=True):
        print(f"{target}: {counted(run.run.config.models, 'seed')} from {run.run.config.seed}")
        for measure, seeds in run.lacking.items():
            why = f" ({run.failed[measure]})" if measure in run.failed else ""
            print(f"{target}: {measure} is not measured of seeds {', '.join(map(str, seeds))}{why}")


@contextlib.contextmanager
def _staging(workdir: epath.Path) -> Iterator[epath.Path]:
    """Gives where to write the runs: they are in the work directory once all are written.

    A join that ends before they are moved has left nothing that is in the way of the next.
    """
    from prunejax.runs.directory import is_remote

    if is_remote(workdir):  # where no directory can be moved
        yield workdir
        return
    staging = workdir / ".joining"
    if staging.exists():  # of a join that was killed
        staging.rmtree()
    try:
        yield staging
        for path in staging.iterdir():
            path.rename(workdir / path.name)
    finally:
        staging.rmtree(missing_ok=True)


def _common_names(sources: list[epath.Path]) -> list[str]:
    """The names of the runs, which all sources must have."""
    from prunejax.report.collect import run_directories

    of_source = {source: [path.name for path in run_directories(source)] for source in sources}
    names = dict.fromkeys(name for found in of_source.values() for name in found)
    if not names:
        raise UserError(f"{sources[0]} holds no run")
    for source, found in of_source.items():
        for name in names:
            if name not in found:
                raise UserError(f"{source} has no run {name}, which another part has")
    return list(names)


if __name__ == "__main__":
    EXAMPLE = "python -m experiments.join --workdir=runs/all --parts=runs/first,runs/second"
    cli.run(main, __doc__, EXAMPLE, ("workdir", "parts", "study"))
