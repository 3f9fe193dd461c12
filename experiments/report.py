"""Writes the tables, the figures and the HTML page of a work directory's measured runs."""

from pathlib import Path

from experiments import flags as cli
from experiments import paper
from experiments.registry import EXPERIMENTS
from prunejax.config import FREE, Config, UserError, differences, load_config


def main() -> None:
    """All measured runs under --workdir."""
    print(f"report: {report(cli.workdir())}")


def report(workdir: Path) -> Path:
    """Writes `<workdir>/report` and returns the page's path; what is missing or differs is named on the page."""
    from prunejax import evaluate
    from prunejax import report as reporting

    study, curves, notes, first = {}, {}, [], None
    for name in EXPERIMENTS:
        try:
            config = load_config(workdir / name)
            measures = evaluate.load(workdir / name / "measures.npz")
            first = first or (config, measures.data_checksum)
            different = differences(config, first[0], FREE)
            if measures.data_checksum != first[1]:
                different.append(f"data checksum: {measures.data_checksum}, not {first[1]}")
            if different:
                raise UserError(
                    f"{workdir / name} was made with other settings than the first ({'; '.join(different)})"
                )
        except UserError as error:
            notes.append(f"Not shown: {name}. {error}")
            continue
        study[name], curves[name] = measures, reporting.load_curves(workdir / name)
    if first is None:
        raise UserError(f"{workdir} holds no measured run; run experiments.train and experiments.evaluate first")
    config = first[0]
    published = None
    if config.data.name == "cifar10":
        published = reporting.Published(paper.SPARSITIES, paper.ACCURACY, paper.PIES, paper.HOOKER_PIES)
    figures = {
        "training_curves": (reporting.training_curves(curves, study), "Training loss: mean and range over seeds.")
    }
    for method, title in (("gmp", "GMP"), ("one_shot", "One-Shot")):
        if figure := reporting.figure_4(study, method):
            figures[f"figure_4_{method}"] = (figure, f"PIEs per class under {title} pruning, as Figure 4.")
    model = config.model
    summary = (
        f"Preset {config.preset}: WideResNet-{model.depth}-{model.widen_factor} on {config.data.name}, "
        f"{config.models} seeds per cell, {_examples(config)} training images."
    )
    tables = [reporting.table_1(study, published), reporting.table_3(study, published)]
    return reporting.write(workdir / "report", tables, figures, "What does pruning destroy?", [summary, *notes])


def _examples(config: Config) -> str:
    return "all" if config.data.train_examples is None else f"{config.data.train_examples:,}"


if __name__ == "__main__":
    cli.run(main, __doc__, "python -m experiments.report --workdir=runs/digits", ("workdir",))
