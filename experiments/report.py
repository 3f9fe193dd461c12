"""Writes the tables, the figures and the HTML page of a work directory's measured runs."""

import os

from absl import flags
from etils import epath

from experiments import flags as cli
from experiments.paper import PUBLISHED

FLAGS = flags.FLAGS


def main() -> None:
    """All measured runs under --workdir."""
    print(f"report: {report(cli.workdir())}")


def report(workdir: epath.Path) -> os.PathLike[str]:
    """Writes `<workdir>/report` and returns the page's path.

    What is missing or differs is printed, and named on the page.
    """
    from prunejax import data
    from prunejax.report.collect import collect
    from prunejax.report.page import write

    cli.study()  # whose module may add the data set's source
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
    cli.run(main, __doc__, EXAMPLE, ("workdir", "data_dir", "study"))
