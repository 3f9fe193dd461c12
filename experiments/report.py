"""Writes the tables, the figures and the HTML page of a work directory's measured runs."""

import os

from absl import flags
from etils import epath

from experiments import evaluate
from experiments import flags as cli
from experiments.paper import PUBLISHED
from prunejax.config import UserError

FLAGS = flags.FLAGS


def main() -> None:
    """All runs under --workdir that are measured, or with --measure all that are finished."""
    workdir = cli.workdir()
    if FLAGS.set and not FLAGS.measure:
        raise UserError("--set: a report takes no settings, measures do; add --measure")
    if FLAGS.measure:
        evaluate.main()
    print(f"report: {report(workdir)}")


def report(workdir: epath.Path) -> os.PathLike[str]:
    """Writes `<workdir>/report` and returns the page's path.

    What is missing or differs is printed, and named on the page.
    """
    from prunejax import data
    from prunejax.report.collect import collect
    from prunejax.report.page import write

    cli.study()  # the study's module may add the data set's source
    found = collect(workdir, lambda config: data.load(config, FLAGS.data_dir))
    for note in found.notes:
        print(note)
    published = PUBLISHED if found.config.data.name == "cifar10" else None
    return write(
        workdir / "report",
        found.study,
        found.source,
        found.curves,
        found.notes,
        published,
        found.dataset,
    )


if __name__ == "__main__":
    EXAMPLE = "python -m experiments.report --workdir=runs/digits"
    cli.run(main, __doc__, EXAMPLE, ("workdir", "data_dir", "study", "measure", "set"))
