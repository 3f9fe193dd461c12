"""Table 2: the training hyper-parameters, a column for each stage of the study's methods."""

import dataclasses
from typing import NamedTuple

from prunejax.config import Augment, Config, Schedule, Stage, UserError
from prunejax.methods import is_one_shot, objective_of, stage_settings, stages_of
from prunejax.report.published import Published
from prunejax.report.study import (
    Study,
    method_of,
    methods,
    pruned_experiments,
    pruning_label,
    stage_title,
)
from prunejax.report.table import Cell, Table

PAPER_METHODS = {"cross_entropy": "Sup", "supcon": "SCL"}
"""The keys of the published hyper-parameters, by method."""


class StageColumn(NamedTuple):
    """A stage of training, with settings that are the same in all runs that have it."""

    title: str
    stage: str
    """The field of the configuration."""
    method: str | None
    """The method of which it is the first stage; None for later ones, which methods share."""
    loss: str
    config: Config
    """The configuration of a run that has it."""

    @property
    def settings(self) -> Stage:
        """The settings of the stage."""
        return stage_settings(self.config, self.stage)


def table_2(study: Study, published: Published | None = None) -> Table:
    """The training hyper-parameters, with the head and fine-tuning that the paper leaves out."""
    # Ours, in the order of the paper's table.
    columns, unknown = _stage_columns(study)
    ours = _settings_rows(columns) | _schedule_rows(study, columns) | _loss_rows(columns)
    ours["Network type"] = [
        column.config.display.architecture or column.config.model.name for column in columns
    ]

    # Next to ours the paper's, for those of its methods that the study has.
    paper = (published or {}).get("hyperparameters", {})
    known = [method.name for method in methods(study)]
    theirs = [key for method, key in PAPER_METHODS.items() if paper and method in known]
    rows = []
    for name in [*ours, *(name for name in paper if name not in ours)]:
        texts = ours.get(name, ["not used"] * len(columns))
        # Skip a row that is empty for every stage, for instance of schedules if nothing is pruned.
        if name not in paper and set(texts) == {"-"}:
            continue
        texts = [name, *texts, *(paper.get(name, {}).get(key, "-") for key in theirs)]
        rows.append([Cell(text) for text in texts])

    note = ""
    if unknown:
        note = f"Left out: {', '.join(unknown)}; the module of that method was not imported."
    header = ["Hyperparameter", *(column.title for column in columns)]
    header += [f"Paper {key}" for key in theirs]
    return Table("table_2", "Table 2. Training hyper-parameters", header, rows, note)


def _stage_columns(study: Study) -> tuple[list[StageColumn], list[str]]:
    """First stages method by method, then those that methods share; and the unknown methods."""
    first: dict[str, StageColumn] = {}
    later: dict[str, StageColumn] = {}
    unknown = []
    for name, run in study.items():
        config = run.config
        method = method_of(study, name)
        try:
            stages = stages_of(config)
        except UserError:  # a custom method; its module was not imported for this report
            if method.label not in unknown:
                unknown.append(method.label)
            continue
        for index, stage in enumerate(stages):
            # Stages after a method's own first one classify, with settings that methods share.
            if index or is_one_shot(config.experiment):
                heading = stage_title(stage).capitalize()
                column = StageColumn(heading, stage, None, "cross entropy", config)
                later.setdefault(stage, column)
            else:
                loss = method.name.replace("_", " ")
                column = StageColumn(method.label, stage, method.name, loss, config)
                first.setdefault(method.name, column)
    # Fine-tuning comes after all training, whichever experiment came first.
    shared = sorted(later.values(), key=lambda column: column.stage == "finetune")
    return [*first.values(), *shared], unknown


def _settings_rows(columns: list[StageColumn]) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {
        "Weight decay": [],
        "Batch size": [],
        "# epochs": [],
        "Loss function": [],
        "Learning rate": [],
        "Momentum": [],
        "Data augment.": [],
    }
    for column in columns:
        stage = column.settings
        # The objective of a stage defines which augmentation it uses.
        augment = objective_of(column.config, column.stage).augment
        nesterov = " (Nesterov)" if stage.nesterov else ""
        rows["Weight decay"].append(f"{stage.weight_decay:g}")
        rows["Batch size"].append(f"{stage.batch_size}")
        rows["# epochs"].append(f"{stage.epochs}")
        rows["Loss function"].append(column.loss)
        rows["Learning rate"].append(_learning_rate(stage))
        rows["Momentum"].append(f"{column.config.optim.momentum:g}{nesterov}")
        rows["Data augment."].append(_augmentation(getattr(column.config, augment)))
    return rows


def _learning_rate(stage: Stage) -> str:
    plan = stage.learning_rate
    text = f"{plan.initial:g}"
    if plan.milestone_epochs:
        epochs = ", ".join(str(epoch) for epoch in plan.milestone_epochs)
        text += f", × {plan.factor:g} at epochs {epochs}"
    if plan.final is not None:
        joint = "chained with a cosine" if plan.chained and plan.milestone_epochs else "cosine"
        text += f", {joint} to {plan.final:g}"
    return text


SHOWN_AUGMENTATIONS = (
    "crop_padding",
    "resized_crop_scale",
    "horizontal_flip",
    "vertical_flip",
    "jitter",
    "grayscale_probability",
)


def _augmentation(augment: Augment) -> str:
    values = dataclasses.asdict(augment)
    used = []
    for field in SHOWN_AUGMENTATIONS:
        value = values[field]
        # Numbers and ranges are shown, switches only named.
        if value is True:
            used.append(field.replace("_", " "))
        elif value:
            used.append(f"{field.replace('_', ' ')} {value}")
    return ", ".join(used) or "none"


def _schedule_rows(study: Study, columns: list[StageColumn]) -> dict[str, list[str]]:
    """When each stage prunes; a method's further schedules have a row each, by their label."""
    rows: dict[str, list[str]] = {
        "Sparsity begin step": [],
        "Sparsity end step": [],
        "Pruning frequency": [],
    }
    further: dict[str, list[str]] = {}
    for index, column in enumerate(columns):
        schedules = _schedules(study, column)
        # The first schedule fills the paper's three rows.
        main = next(iter(schedules.values()), None)
        for label, schedule in schedules.items():
            if schedule == main:
                continue
            row = further.setdefault(f"{label} start, end, frequency", ["-"] * len(columns))
            row[index] = f"{schedule.begin_step}, {schedule.end_step}, {schedule.every_steps}"
        rows["Sparsity begin step"].append(str(main.begin_step) if main else "-")
        rows["Sparsity end step"].append(str(main.end_step) if main else "-")
        rows["Pruning frequency"].append(str(main.every_steps) if main else "-")
    return rows | further


def _schedules(study: Study, column: StageColumn) -> dict[str, Schedule]:
    """The schedules that a stage of the study follows, by the pruning's label."""
    # Of the stages that methods share only the head can be pruned, by its own schedule.
    if column.method is None:
        head = column.config.prune.head if column.stage == "head" else None
        return {"head": head} if head is not None else {}
    found: dict[str, Schedule] = {}
    for name in pruned_experiments(study):
        config = study[name].config
        pruning = config.experiment.pruning
        same_method = config.experiment.method == column.method
        if pruning is None or pruning.schedule is None or not same_method:
            continue
        schedule = getattr(config.prune, pruning.schedule)
        label = pruning_label(study, name)
        # Each run has its own settings: those of one label may still differ.
        if found.get(label, schedule) != schedule:
            label = f"{label} ({name})"
        found[label] = schedule
    return found


def _loss_rows(columns: list[StageColumn]) -> dict[str, list[str]]:
    texts = []
    for column in columns:
        # The temperatures are those of the losses of embeddings.
        contrastive = objective_of(column.config, column.stage).network == "projection"
        loss = column.config.supcon
        text = f"{loss.temperature:g} (base {loss.base_temperature:g})"
        texts.append(text if contrastive else "-")
    return {"Temperature": texts}
