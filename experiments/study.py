"""A whole study: trains all its experiments, measures them and writes the report.

Run again, it resumes where it stopped, or does nothing.
"""

from functools import partial

from absl import flags

from experiments import flags as cli
from experiments.evaluate import evaluate
from experiments.report import report
from experiments.train import train

FLAGS = flags.FLAGS


def main() -> None:
    """Every experiment in order; all settings are checked before the first starts."""
    configs = [cli.make_config(experiment) for experiment in cli.study()]
    from prunejax.runs.directory import check_run
    from prunejax.training import hosts
    from prunejax.training.programs import require_traceable
    from prunejax.training.task import resolve

    dataset = cli.load_data(configs[0].data)
    for config in configs:
        resolved = resolve(config, dataset)
        require_traceable(resolved, dataset)
        run_dir = cli.workdir() / config.experiment.name
        hosts.on_all_processes(partial(check_run, run_dir, resolved, dataset))
    seconds = [train(config, dataset) for config in configs]
    if FLAGS.dry_run:
        hours = sum(filter(None, seconds)) / 3600
        print(f"the whole study: about {hours:.3g} hours, measures not included")
        return
    evaluate([cli.workdir() / config.experiment.name for config in configs])

    def write_report() -> str:
        return str(report(cli.workdir())) if hosts.is_first() else ""

    print(f"report: {hosts.on_all_processes(write_report)}")


if __name__ == "__main__":
    EXAMPLE = "python -m experiments.study --preset=digits --workdir=runs/digits"
    cli.run(main, __doc__, EXAMPLE, cli.TRAINING)
