"""The whole study of a preset: trains all seven experiments, measures them and writes the report.

Run again, it resumes where it stopped, or does nothing.
"""

from absl import flags

from experiments import flags as cli
from experiments.evaluate import evaluate
from experiments.registry import EXPERIMENTS
from experiments.report import report
from experiments.train import train
from prunejax.config import validate

FLAGS = flags.FLAGS


def main() -> None:
    """Every experiment in order; all settings are checked before the first starts."""
    configs = [cli.make_config(name) for name in EXPERIMENTS]
    from prunejax import hosts, rundir

    dataset = cli.load_data(configs[0].data)
    for config in configs:
        validate(config, len(dataset.train_labels), dataset.image_shape[-1])
        run_dir = cli.workdir() / config.experiment.name
        hosts.together(lambda r=run_dir, c=config: rundir.check_run(r, c, dataset))
    seconds = [train(config, dataset) for config in configs]
    if FLAGS.dry_run:
        return print(f"the whole study: about {sum(filter(None, seconds)) / 3600:.3g} hours, measures not included")
    evaluate([cli.workdir() / config.experiment.name for config in configs])
    print(f"report: {hosts.together(lambda: report(cli.workdir()) if hosts.is_first() else None)}")


if __name__ == "__main__":
    cli.run(main, __doc__, "python -m experiments.study --preset=digits --workdir=runs/digits", cli.TRAINING)
