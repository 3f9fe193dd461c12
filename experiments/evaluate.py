"""Measures every finished run of a work directory: predictions, Q-Score, prediction depth, k-NN purity, UMAP."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator

import numpy as np
from absl import flags
from etils import epath

from experiments import flags as cli
from experiments.logs import bar
from experiments.registry import EXPERIMENTS
from prunejax.config import UserError, load_config, override, validate

FLAGS = flags.FLAGS


def main() -> None:
    """All runs under --workdir."""
    workdir = cli.workdir()
    runs = [workdir / name for name in EXPERIMENTS if (workdir / name / "config.json").exists()]
    if not runs:
        raise UserError(f"{workdir} holds no run of {', '.join(EXPERIMENTS)}")
    if any(not assignment.startswith("measure.") for assignment in FLAGS.set):
        raise UserError("--set: only fields of measure can change after training, for instance measure.probe_models=3")
    evaluate(runs)


def evaluate(runs: list[epath.Path]) -> None:
    """Writes the `measures.npz` of each run, unless it is there and was made with the same settings.

    A run that cannot be measured is named in one line, and the others are measured; an error if none can.
    """
    load = functools.cache(cli.load_data)
    study, skipped = {}, {}
    for run_dir in runs:
        try:
            measures = study[run_dir.name] = _evaluate(run_dir, load)
        except (UserError, OSError) as error:
            skipped[run_dir.name] = error
            continue
        for level in measures.levels:
            print(_summary(study, run_dir.name, level))
    if not study:
        raise next(iter(skipped.values()))
    for name, error in skipped.items():
        print(f"skipped {name}: {error}", file=sys.stderr)


def _summary(study: dict, name: str, level: float) -> str:
    from prunejax.tables import at

    cell, dense, trained = study[name].at(level), at(study, name, 0.0), study[name].trained(level)
    line = f"{name:16} {100 * level:5.3g}% pruned: {len(cell.seeds)} of {trained} models"
    if len(cell.seeds):
        line += f", accuracy {100 * cell.accuracy.mean():.2f} ± {100 * cell.accuracy.std():.2f}%"
    if level and dense is not None and len(cell.seeds):
        per_class = np.bincount(cell.labels[cell.pies(dense)], minlength=len(cell.class_names))
        line += f", {per_class.sum()} PIEs, per class {per_class.tolist()}"
    return line


def _evaluate(run_dir: epath.Path, load: Callable):  # noqa: ANN202
    from prunejax import evaluate as measuring
    from prunejax import hosts
    from prunejax.checkpoint import load_population

    path = run_dir / "measures.npz"

    def find() -> tuple:
        config = override(load_config(run_dir), FLAGS.set)
        validate(config)
        measures = measuring.load(path) if path.exists() else None
        if measures and measures.measure == config.measure:
            return measures, config, None
        return None, config, load_population(run_dir)

    measures, config, trained = hosts.together(find)
    hosts.require_same(f"{path}, there or not,", str(measures is None))
    if measures:
        return measures
    dataset = load(config.data)

    @contextlib.contextmanager
    def track(unit: str, total: int) -> Iterator[Callable[[float], object]]:
        with bar(f"{run_dir.name} {'test set' if unit == 'images' else 'probes'}", total, unit=unit) as shown:
            yield shown.update

    measures = measuring.evaluate(trained, dataset, config.measure, track)
    hosts.together(lambda: measuring.save(measures, path) if hosts.is_first() else None)
    return measures


if __name__ == "__main__":
    EXAMPLE = "python -m experiments.evaluate --workdir=runs/digits"
    cli.run(main, __doc__, EXAMPLE, ("workdir", "data_dir", "set", *cli.HOSTS))
