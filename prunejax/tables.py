"""Measures -> tables. Each is a function of a study's measures, with the paper's numbers beside ours if given."""

import csv
import dataclasses
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prunejax import metrics
from prunejax.config import Config, Stage
from prunejax.evaluate import Measures

Study = Mapping[str, Measures]
"""Measures by the name of the experiment."""

NAMES = {"sup": "Sup", "scl": "SCL"}
METHODS = {
    "sup_gmp": "Sup / GMP",
    "sup_one_shot": "Sup / One-Shot",
    "scl_gmp": "SCL / GMP",
    "scl_delayed_gmp": "SCL / Δ GMP",
    "scl_one_shot": "SCL / One-Shot",
}
PAIRS = {
    "GMP": ("sup_gmp", "scl_gmp"),
    "Δ GMP": ("sup_gmp", "scl_delayed_gmp"),
    "One-Shot": ("sup_one_shot", "scl_one_shot"),
}
"""Which pruned Sup models are compared with which SCL models; delayed GMP exists for SCL only."""


Published = Mapping[str, Mapping[str, Mapping[Any, str]]]
"""The paper's numbers as it writes them, by column, method and sparsity; `hyperparameters` by name and Sup or SCL."""
Make = Callable[[str, float, Measures], "Cell"]
"""(method, sparsity, models of that cell) -> what a column says of them."""


class Cell(NamedTuple):
    """What a cell says, what it sorts by, what stands small beside it, and the value's 95% interval if it has one."""

    text: str
    value: float = float("nan")
    beside: str = ""
    interval: tuple[float, float] | None = None

    @property
    def all(self) -> str:
        """The text with what stands beside it."""
        return f"{self.text} ({self.beside})" if self.beside else self.text


@dataclasses.dataclass(frozen=True)
class Table:
    """A titled table."""

    name: str
    title: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()

    @property
    def text(self) -> list[list[str]]:
        """The header and the rows as plain text."""
        return [list(self.header), *([cell.all for cell in row] for row in self.rows)]

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        header, *rows = ([cell.replace("|", "\\|") for cell in row] for row in self.text)
        lines = [header, ["---"] * len(header), *rows]
        return f"**{self.title}**\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"

    def csv(self) -> str:
        """The table as comma-separated values."""
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(self.text)
        return buffer.getvalue()

    def latex(self) -> str:
        """The table for LaTeX with the packages `booktabs` and `graphicx`."""
        header, *rows = (" & ".join(map(_latex, row)) + " \\\\" for row in self.text)
        body = "\n".join(["\\toprule", header, "\\midrule", *rows, "\\bottomrule"])
        columns = "l" + "r" * (len(self.header) - 1)
        return (
            f"\\begin{{table}}\n\\centering\n\\caption{{{_latex(self.title)}}}\n\\label{{tab:{self.name}}}\n"
            f"\\resizebox{{\\linewidth}}{{!}}{{\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}}}\n\\end{{table}}\n"
        )


_LATEX = {"±": r"$\pm$", "Δ": r"$\Delta$", "−": "$-$", "×": r"$\times$", "<": "$<$", ">": "$>$"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {sign: "\\" + sign for sign in "#$%&_{}"}


def _latex(text: str) -> str:
    return text.translate(str.maketrans(_LATEX))


def cell_title(method: str, sparsity: float) -> str:
    """For instance `SCL / GMP, 90%`."""
    return f"{METHODS[method]}, {100 * sparsity:.3g}%" if sparsity else f"{NAMES[method[:3]]}, dense"


def levels(study: Study) -> list[float]:
    """All sparsities of a study, ascending."""
    return sorted({level for measures in study.values() for level in measures.levels})


def headline(study: Study) -> float:
    """The sparsity nearest to 90%, at which the paper compares."""
    return min(levels(study), key=lambda level: abs(level - 0.9))


def run_of(method: str, sparsity: float) -> str:
    """The experiment that holds a cell: sparsity 0 is the method's dense run."""
    return method if sparsity else f"{method[:3]}_dense"


def at(study: Study, method: str, sparsity: float) -> Measures | None:
    """The models of one cell of the study, or None if there are none; sparsity 0 is the method's dense run."""
    run = study.get(run_of(method, sparsity))
    cell = run.at(sparsity) if run is not None and sparsity in run.levels else None
    return cell if cell is not None and len(cell.seeds) else None


def why_not(study: Study, method: str, sparsity: float) -> Cell:
    """Says why `at` gives None."""
    run = study.get(run_of(method, sparsity))
    if run is None or sparsity not in run.levels:
        return Cell("not run")
    return Cell(f"0 of {run.trained(sparsity)} models")


def _grid(
    table: Table, study: Study, columns: Mapping[str, Make], methods: Sequence[str], published: Published | None
) -> Table:
    """Fills an empty table: a row for each sparsity, and for each method what the columns say of its models.

    Beside it stands what must be said: models that are missing, and the paper's number.
    """
    header, rows = ["Sparsity [%]"], [[percent(sparsity)] for sparsity in levels(study)]
    for method, (column, make) in itertools.product(methods, columns.items()):
        header.append(f"{METHODS[method]} {column}")
        for row in rows:
            sparsity, models = row[0].value, at(study, method, row[0].value)
            cell = why_not(study, method, sparsity) if models is None else make(method, sparsity, models)
            beside = [cell.beside]
            if models is not None:
                trained = study[run_of(method, sparsity)].trained(sparsity)
                beside += [f"{len(models.seeds)} of {trained} models"] if len(models.seeds) < trained else []
            paper = (published or {}).get(column, {}).get(method, {}).get(sparsity)
            beside += [f"paper {paper}"] if paper not in (None, "-") else []
            row.append(cell._replace(beside="; ".join(filter(None, beside))))
    return dataclasses.replace(table, header=header, rows=rows)


def _mean_std(values: np.ndarray) -> Cell:
    mean, std = float(values.mean()), float(values.std())
    return Cell(f"{mean:.2f} ± {std:.2f}", mean)


def percent(sparsity: float) -> Cell:
    """A sparsity in %."""
    return Cell(f"{100 * sparsity:.3g}", sparsity)


def noise_floor(study: Study, kind: str) -> Cell:
    """The PIEs between halves of the dense Sup or SCL models: the mean over the splits, and the range."""
    dense = at(study, f"{kind}_dense", 0.0)
    if dense is None or len(dense.seeds) < 2:
        return Cell("needs 2 dense models")
    counts = np.asarray(metrics.noise_floor(dense.predictions, len(dense.class_names)))
    return Cell(f"{counts.mean():.0f} [{counts.min()}, {counts.max()}]", float(counts.mean()))


def scope(study: Study) -> str:
    """How many images are counted among."""
    return f"{len(next(iter(study.values())).labels):,} test images"


def probed(study: Study) -> str:
    """How many models depth and purity are measured of."""
    most = max(len(run.at(level).probed.seeds) for run in study.values() for level in run.levels)
    return f"up to {most} models a cell"


FLOOR = "Floor: PIEs between disjoint halves of the dense models, mean of 100 splits"


def _pies_and_accuracy(study: Study) -> dict[str, Make]:
    floors = {kind: f"floor {noise_floor(study, kind).text.split(' [')[0]}" for kind in NAMES}

    def pies(method: str, sparsity: float, models: Measures) -> Cell:
        dense = at(study, method, 0.0)
        if not sparsity or dense is None:
            return Cell("no dense run" if sparsity else "-")
        found = float(models.pies(dense).sum())
        return Cell(f"{found:.0f}", found, floors[method[:3]])

    return {"PIE": pies, "Acc [%]": lambda method, sparsity, models: _mean_std(100 * models.accuracy)}


def table_1(study: Study, published: Published | None = None) -> Table:
    """PIEs, their noise floor, and test accuracy (mean ± standard deviation over models), as Table 1."""
    paper = ". Paper: among 10,000, of 30 WRN-16-2 models (Δ GMP at 90%: 25)" if published else ""
    title = f"Table 1. PIEs among {scope(study)}, and test accuracy (mean ± std over models). {FLOOR}{paper}"
    return _grid(Table("table_1", title), study, _pies_and_accuracy(study), list(METHODS), published)


def table_2(config: Config, published: Published | None = None) -> Table:
    """The training hyper-parameters, as Table 2, with the head and the fine-tuning that it leaves out."""
    stages = {"Sup": config.sup, "SCL": config.scl, "SCL head": config.head, "Fine-tuning": config.finetune}
    schedules = (config.prune.sup, config.prune.scl, config.prune.head, None, config.prune.scl_delayed)
    begin, end, every = (
        [f"{getattr(schedule, field)}" if schedule else "-" for schedule in schedules]
        for field in ("begin_step", "end_step", "every_steps")
    )

    def rate(stage: Stage) -> str:
        plan = stage.learning_rate
        steps = f", × {plan.factor:g} at epochs {', '.join(map(str, plan.milestone_epochs))}"
        cosine = f", cosine to {plan.final:g}" if plan.final is not None else ""
        return f"{plan.initial:g}{steps if plan.milestone_epochs else ''}{cosine}"

    def augmentation(stage: Stage) -> str:
        augment = dataclasses.asdict(config.scl_augment if stage.loss == "supcon" else config.sup_augment)
        names = ("crop_padding", "resized_crop_scale", "horizontal_flip", "vertical_flip", "jitter")
        used = {name.replace("_", " "): augment[name] for name in (*names, "grayscale_probability") if augment[name]}
        return ", ".join(name if value is True else f"{name} {value}" for name, value in used.items()) or "none"

    each = list(stages.values())
    ours = {
        "Weight decay": [f"{stage.weight_decay:g}" for stage in each],
        "Batch size": [f"{stage.batch_size}" for stage in each],
        "# epochs": [f"{stage.epochs}" for stage in each],
        "Loss function": [stage.loss.replace("_", " ") for stage in each],
        "Learning rate": [rate(stage) for stage in each],
        "Momentum": [f"{config.optim.momentum:g}" + (" (Nesterov)" if stage.nesterov else "") for stage in each],
        "Data augment.": [augmentation(stage) for stage in each],
        "Sparsity begin step": begin[:4],
        "Sparsity end step": end[:4],
        "Pruning frequency": every[:4],
        "Δ GMP begin, end, frequency": ["-", f"{begin[4]}, {end[4]}, {every[4]}", "-", "-"],
        "Temperature": ["-", f"{config.supcon.temperature:g} (base {config.supcon.base_temperature:g})", "-", "-"],
        "Network type": [f"WideResNet-{config.model.depth}-{config.model.widen_factor}"] * 4,
    }
    paper = (published or {}).get("hyperparameters", {})
    rows = []
    for name in [*ours, *(name for name in paper if name not in ours)]:
        theirs = [paper.get(name, {}).get(kind, "-") for kind in NAMES.values()] if paper else []
        rows.append([Cell(text) for text in (name, *ours.get(name, ["not used"] * 4), *theirs)])
    header = ["Hyperparameter", *stages, *(["Paper Sup", "Paper SCL"] if paper else [])]
    return Table("table_2", "Table 2. Training hyper-parameters", header, rows)


def table_3(study: Study, published: Published | None = None) -> Table:
    """PIEs of Sup / GMP beside those of Hooker et al. 2019, as Table 3."""
    title = f"Table 3. Sup / GMP: PIEs among {scope(study)}, and accuracy. {FLOOR}"
    table = _grid(Table("table_3", title), study, _pies_and_accuracy(study), ["sup_gmp"], published)
    if published is None:
        return table
    theirs = [published["PIE"]["hooker"].get(row[0].value, "-") for row in table.rows]
    rows = [[*row, Cell(text)] for row, text in zip(table.rows, theirs, strict=True)]
    return dataclasses.replace(table, header=[*table.header, "Hooker et al. 2019 PIE"], rows=rows)


def _quality_table(kind: str, number: int, study: Study, published: Published | None) -> Table:
    def column(name: str) -> Make:
        def score(method: str, sparsity: float, models: Measures) -> Cell:
            dead = int((models.l1 == 0).sum()) if name == "q" else 0
            return _mean_std(getattr(models, name).mean(0))._replace(beside=f"{dead} all-zero" if dead else "")

        return score

    title = f"Table {number}. Q-Score, Z-Score and l1 norm of {NAMES[kind]} models' representations of {scope(study)}"
    table = Table(f"table_{number}", f"{title}: mean over models, then mean ± std over images")
    columns = {"Q": column("q"), "Z": column("z"), "l1": column("l1")}
    return _grid(table, study, columns, [method for method in METHODS if method.startswith(kind)], published)


def table_4(study: Study, published: Published | None = None) -> Table:
    """Q-Score, Z-Score and l1 norm of SCL models (mean over models, then mean ± std over images), as Table 4."""
    return _quality_table("scl", 4, study, published)


def table_5(study: Study, published: Published | None = None) -> Table:
    """Q-Score, Z-Score and l1 norm of Sup models, as Table 5."""
    return _quality_table("sup", 5, study, published)


def table_6(study: Study, published: Published | None = None) -> Table:
    """Prediction depth of PIEs and of the other images (mean over models, then mean ± std over images), as Table 6.

    The row of sparsity 0 holds the dense models' depth, split by the PIEs of any of the method's sparsities.
    """

    def column(among_pies: bool) -> Make:
        def depth(method: str, sparsity: float, models: Measures) -> Cell:
            dense = at(study, method, 0.0)
            cells = [at(study, method, level) for level in levels(study) if level and sparsity in (0, level)]
            pies = [cell.pies(dense) for cell in cells if cell is not None and dense is not None]
            if not pies or not len(models.probed.seeds):
                return Cell("not probed" if pies else "no PIEs known")
            chosen = models.probed.depth.mean(0)[np.any(pies, axis=0) == among_pies]
            return _mean_std(chosen) if chosen.size else Cell("none")

        return depth

    title = (
        f"Table 6. Prediction depth over {probed(study)} of {scope(study)}, mean ± std over images. "
        "At sparsity 0: the dense models', of the images that are PIEs at any sparsity"
    )
    columns = {"depth of PIEs": column(True), "of non-PIEs": column(False)}
    return _grid(Table("table_6", title), study, columns, list(METHODS), published)
