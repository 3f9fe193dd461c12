"""A whole study: trains all its experiments, measures them and writes the report.

Run again, it resumes where it stopped, or does nothing.
"""

from functools import partial

from absl import flags

from experiments import flags as cli
from experiments.evaluate import evaluate
from experiments.plan import print_plan
from experiments.report import report
from experiments.train import train

FLAGS = flags.FLAGS


def main() -> None:
    """Every experiment in order; all settings are checked before the first starts."""
    configs = [cli.make_config(experiment) for experiment in cli.study()]
    from prunejax.runs.directory import check_run
    from prunejax.training import hosts
    from prunejax.training.programs import require_traceable
    from prunejax.training.spec import resolve

    dataset = cli.load_data(configs[0].data)
    resolved = [resolve(config, dataset) for config in configs]
    for config in resolved:
        require_traceable(config, dataset)
        run_dir = cli.workdir() / config.experiment.name
        hosts.on_all_processes(partial(check_run, run_dir, config, dataset))
    if FLAGS.dry_run:
        seconds = [print_plan(config, dataset, dense_first=True) for config in configs]
        hours = sum(seconds) / 3600
        print(f"the whole study: about {hours:.3g} hours, measures not included")
        return
    run_dirs = [cli.workdir() / config.experiment.name for config in configs]
    for config in configs:
        train(config, dataset)
    evaluate(run_dirs)

    def write_report() -> str:
        return str(report(cli.workdir())) if hosts.is_first() else ""

    print(f"report: {hosts.on_all_processes(write_report)}")


if __name__ == "__main__":
    EXAMPLE = "python -m experiments.study --preset=digits --workdir=runs/digits"
    cli.run(main, __doc__, EXAMPLE, cli.TRAINING)
