"""Measures every trained experiment of a work directory on the test set: predictions, Q-Score, accuracy and PIEs."""

import functools
from pathlib import Path

from absl import flags

from experiments import flags as cli
from experiments.logs import images_bar
from experiments.registry import EXPERIMENTS
from prunejax.config import UserError

FLAGS = flags.FLAGS


def main() -> None:
    """All runs under --workdir."""
    workdir = cli.workdir()
    runs = [workdir / name for name in EXPERIMENTS if (workdir / name / "config.json").exists()]
    if not runs:
        raise UserError(f"{workdir} holds no run of {', '.join(EXPERIMENTS)}")
    evaluate(runs)


def evaluate(runs: list[Path]) -> None:
    """Writes the `measures.npz` of each run, unless it is there: only a finished run has one, and no longer changes."""
    from prunejax import checkpoint, data
    from prunejax import evaluate as measuring

    load = functools.cache(lambda config: data.load(config, FLAGS.data_dir))
    study: dict[str, measuring.Measures] = {}
    for run_dir in runs:
        path = run_dir / "measures.npz"
        if path.exists():
            measures = measuring.load(path)
        else:
            trained = checkpoint.load_population(run_dir)
            dataset = load(trained.config.data)
            with images_bar(f"{run_dir.name} evaluate", len(trained.seeds) * len(dataset.test_labels)) as bar:
                measures = measuring.evaluate(trained, dataset, bar.update)
            measuring.save(measures, path)
        study[run_dir.name] = measures
        for level in measures.levels:
            accuracy = 100 * measures.accuracy(level)
            line = (
                f"{run_dir.name:16} {100 * level:5.3g}% pruned: accuracy {accuracy.mean():.2f} ± {accuracy.std():.2f}%"
            )
            reference = study.get(measuring.dense_of(run_dir.name))
            if reference is not None and level:
                per_class = measures.pies_per_class(reference, level)
                line += f", {per_class.sum()} PIEs, per class {per_class.tolist()}"
            print(f"{line} ({len(accuracy)} models)")


if __name__ == "__main__":
    cli.run(main, __doc__, "python -m experiments.evaluate --workdir=runs/digits", ("workdir", "data_dir"))
