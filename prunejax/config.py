"""Everything that decides a result, as frozen dataclasses. The defaults are the text of the paper (Table 2).

No default lives anywhere else. A preset is a set of overrides of these defaults (`experiments/presets.py`).
"""

import dataclasses
import difflib
import json
import math
import operator
import os
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from etils import epath


class UserError(Exception):
    """Something the user can mend; the message is one line that says what, where and what to do."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One row of the study. `parent` names the dense experiment whose final checkpoint is pruned once, globally."""

    name: str = "sup_dense"
    parent: str | None = None
    stages: tuple[Literal["sup", "scl", "head", "finetune"], ...] = ("sup",)
    schedule: Literal["sup", "scl", "scl_delayed"] | None = None
    """The field of `Prune` that the first stage follows (gradual pruning), or None."""
    prune_head: bool = True
    """Whether the linear head's kernel is prunable too: in the paper for Sup only."""

    @property
    def pruned(self) -> bool:
        """Whether its members are pruned, gradually or once; the others are dense."""
        return self.schedule is not None or self.parent is not None


@dataclasses.dataclass(frozen=True)
class Data:
    """Which images. A count of None takes all; a smaller one takes a fixed, class-balanced subset."""

    name: str = "cifar10"
    train_examples: int | None = None
    test_examples: int | None = None
    subset_seed: int = 0
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, ...] = (0.2470, 0.2435, 0.2616)


@dataclasses.dataclass(frozen=True)
class Augment:
    """Random image transformations, flips first and then in the order of the fields; zero or None switches one off."""

    crop_padding: int = 0
    resized_crop_scale: tuple[float, float] | None = None
    """Range of the crop's area as a fraction of the image's."""
    resized_crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    horizontal_flip: bool = True
    vertical_flip: bool = False
    jitter: tuple[float, float, float, float] | None = None
    """Strengths of brightness, contrast, saturation and hue."""
    jitter_probability: float = 0.8
    grayscale_probability: float = 0.0


@dataclasses.dataclass(frozen=True)
class Model:
    """WideResNet-`depth`-`widen_factor` (Zagoruyko & Komodakis 2016) and the contrastive projection head."""

    depth: int = 16
    widen_factor: int = 2
    projection_dim: int = 128


@dataclasses.dataclass(frozen=True)
class LearningRate:
    """Constant within an epoch: `initial`, times `factor` at each milestone, on a cosine to `final` if that is set."""

    initial: float
    milestone_epochs: tuple[int, ...] = ()
    factor: float = 0.1
    final: float | None = None


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stretch of training with one loss and one optimizer setting."""

    epochs: int
    batch_size: int
    learning_rate: LearningRate
    loss: Literal["cross_entropy", "supcon"] = "cross_entropy"
    weight_decay: float = 0.0
    nesterov: bool = False
    frozen_encoder: bool = False


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Gradual pruning at `begin_step`, every `every_steps` after it, and at `end_step` (Zhu & Gupta 2017)."""

    begin_step: int
    end_step: int
    every_steps: int


@dataclasses.dataclass(frozen=True)
class Prune:
    """The pruning schedules an experiment can name; `head` applies to the head stage of a pruned SCL model."""

    power: int = 3
    at_multiples: bool = False
    """Update at multiples of `every_steps` only, as the released code, which so ends short of the target."""
    sup: Schedule = Schedule(1000, 20000, 500)
    scl: Schedule = Schedule(125, 2476, 62)
    scl_delayed: Schedule = Schedule(2450, 4760, 62)
    head: Schedule | None = None


@dataclasses.dataclass(frozen=True)
class Optim:
    """SGD, as shared by all stages."""

    momentum: float = 0.9


@dataclasses.dataclass(frozen=True)
class SupCon:
    """The loss is multiplied by `temperature / base_temperature`, as in the authors' code."""

    temperature: float = 0.5
    base_temperature: float = 0.07
    collapse_steps: int = 200
    """A model is frozen whose loss was that of a collapsed encoder for so many steps in a row,"""
    collapse_tolerance: float = 1e-3
    """give or take this fraction of it."""


@dataclasses.dataclass(frozen=True)
class Population:
    """How a population is computed; changes no result but by floating-point reordering."""

    models_per_program: int | None = None
    """Models in one compiled program; the others follow chunk by chunk. None: chosen to fit the memory."""
    devices_per_model: int | None = None
    """Devices that share a model's batch. None: as many as there are for each model; on the CPU of one process 1."""
    convolution: Literal["unrolled", "grouped", "im2col"] = "unrolled"
    steps_per_call: int | None = None
    """Steps between two words with the host. None: 8 on accelerators, 1 on CPU, whose convolutions crawl in loops."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When a checkpoint is written, besides at the end of every stage, and how many are kept."""

    every_steps: int = 2000
    every_minutes: float = 10.0
    keep: int = 2


@dataclasses.dataclass(frozen=True)
class Measure:
    """How trained models are probed; may differ from what a run was trained with, which is then measured again."""

    probe_models: int = 5
    """Models per sparsity, of the lowest seeds, whose prediction depth and purity are measured."""
    neighbors: int = 30
    depth_target: Literal["label", "prediction"] = "label"
    """What a probe must predict: the true label (the paper's code), or the network's prediction (Baldock et al.)."""
    depth_examples: int | None = None
    """Training images, class-balanced, that the probes are fitted on; None takes all."""
    umap_seed: int = 0


@dataclasses.dataclass(frozen=True)
class Config:
    """One run: a population of `models` seeds x `sparsities`, through the stages of one experiment."""

    preset: str = "cifar10"
    experiment: Experiment = Experiment()
    models: int = 30
    seed: int = 0
    """Seed of the first member; the others count up from it."""
    sparsities: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    data: Data = Data()
    model: Model = Model()
    sup_augment: Augment = Augment(crop_padding=4)
    scl_augment: Augment = Augment(
        resized_crop_scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), grayscale_probability=0.2
    )
    optim: Optim = Optim()
    supcon: SupCon = SupCon()
    # The text gives Sup a learning rate of 1.0 and no decay; the milestones are the released code's.
    sup: Stage = Stage(205, 128, LearningRate(1.0, (5, 30, 50, 80)), weight_decay=5e-4)
    scl: Stage = Stage(500, 1024, LearningRate(0.05, final=5e-5), loss="supcon", weight_decay=5e-4)
    head: Stage = Stage(100, 256, LearningRate(0.1), frozen_encoder=True)
    finetune: Stage = Stage(30, 128, LearningRate(1e-3), nesterov=True)
    prune: Prune = Prune()
    population: Population = Population()
    checkpoint: Checkpoint = Checkpoint()
    measure: Measure = Measure()
    log_every_steps: int = 50
    """Steps averaged into one line of `metrics.jsonl`; a line never spans two epochs."""

    def stage(self, name: str) -> Stage:
        """The settings of the stage called `name`."""
        return getattr(self, name)

    def schedule(self, stage: str) -> Schedule | None:
        """The gradual pruning schedule of a stage of this experiment, or None."""
        name = self.experiment.schedule
        if name is None:
            return None
        return self.prune.head if stage == "head" else getattr(self.prune, name)


def override(config: Config, assignments: Iterable[str]) -> Config:
    """`config` with `path=value` assignments applied, for instance `optim.momentum=0.8`.

    Values are read as the field's type: a tuple is comma-separated, and so is a schedule that is None at first; None is
    `none` or `null`.

    Raises:
        UserError: for a path that is no field or a value that is not of the field's type.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"--set={assignment}: expected FIELD=VALUE, for instance --set=optim.momentum=0.8")
        config = _assign(config, path.strip().split("."), text.strip(), assignment)
    return config


def _assign(node: Any, path: list[str], text: str, assignment: str) -> Any:  # noqa: ANN401
    hints = typing.get_type_hints(type(node))
    name, *rest = path
    if name not in hints:
        close = difflib.get_close_matches(name, hints, n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(f"--set={assignment}: no field {name!r}; {guess}There are: {', '.join(hints)}")
    value = getattr(node, name)
    if rest:
        if not dataclasses.is_dataclass(value):
            raise UserError(f"--set={assignment}: {name!r} is {value!r} and has no field {rest[0]!r}")
        return dataclasses.replace(node, **{name: _assign(value, rest, text, assignment)})
    try:
        return dataclasses.replace(node, **{name: _build(hints[name], _parse(hints[name], text), name)})
    except ValueError as error:
        raise UserError(f"--set={assignment}: {error}") from None


def _optional(hint: Any) -> tuple[Any, bool]:  # noqa: ANN401
    """The type in `T | None` and True; any other type and False."""
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return hint, False
    return next(inner for inner in typing.get_args(hint) if inner is not types.NoneType), True


def _parse(hint: Any, text: str) -> Any:  # noqa: ANN401
    """What a user typed for a field of type `hint`, as JSON would hold it."""
    hint, optional = _optional(hint)
    if optional and text.lower() in ("none", "null"):
        return None
    items = [item.strip() for item in text.strip("()[]").split(",") if item.strip()]
    if typing.get_origin(hint) is tuple:
        return [_parse(typing.get_args(hint)[0], item) for item in items]
    if optional and dataclasses.is_dataclass(hint) and len(hints := typing.get_type_hints(hint)) == len(items):
        return {name: _parse(inner, item) for (name, inner), item in zip(hints.items(), items, strict=True)}
    try:
        return {int: int, float: float, bool: lambda word: json.loads(word.lower())}.get(hint, str)(text)
    except ValueError:
        return text


def _build(hint: Any, value: Any, path: str) -> Any:  # noqa: ANN401
    """`value`, as JSON holds it, as an instance of the type `hint`; a ValueError names the field and what it takes."""
    hint, optional = _optional(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if optional and value is None:
        return None
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        if not isinstance(value, dict) or set(value) != set(hints):
            raise ValueError(f"{path or 'the file'} takes all its fields at once: {', '.join(hints)}")
        return hint(**{name: _build(inner, value[name], f"{path}.{name}".strip(".")) for name, inner in hints.items()})
    takes = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}.get(hint)
    if origin is tuple:
        takes = "values separated by commas" if arguments[-1] is Ellipsis else f"{len(arguments)} values"
        if isinstance(value, list) and (arguments[-1] is Ellipsis or len(value) == len(arguments)):
            return tuple(_build(arguments[0], item, path) for item in value)
    elif origin is Literal:
        takes = "one of " + ", ".join(arguments)
        if value in arguments:
            return value
    elif hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    elif hint is not float and type(value) is hint:
        return value
    raise ValueError(f"{path!r} takes {takes}, not {value!r}")


POSITIVE = (
    *("models", "log_every_steps", "model.widen_factor", "model.projection_dim", "prune.power"),
    *("data.train_examples", "data.test_examples", "supcon.temperature", "supcon.base_temperature"),
    *("supcon.collapse_steps",),
    *("checkpoint.every_steps", "checkpoint.every_minutes", "checkpoint.keep", "population.models_per_program"),
    *(
        "population.devices_per_model",
        "population.steps_per_call",
        "measure.probe_models",
        "measure.neighbors",
        "measure.depth_examples",
    ),
)

RANGES = {
    **dict.fromkeys(("momentum", "jitter_probability", "grayscale_probability"), (0, 1)),
    **dict.fromkeys(("initial", "factor", "final", "weight_decay", "crop_padding"), (0, math.inf)),
    **dict.fromkeys(("subset_seed", "umap_seed"), (0, 2**32 - 1)),
}
"""Of fields by their last name, both ends included."""


def validate(config: Config, num_train: int | None = None, channels: int | None = None) -> None:
    """Refuses settings that cannot be trained; with the data's size at hand, also those that do not fit the data.

    Raises:
        UserError: naming the first field that is wrong.
    """
    stage_fields = [f"{stage}.{field}" for stage in config.experiment.stages for field in ("epochs", "batch_size")]
    for field in (*POSITIVE, *stage_fields):
        value = operator.attrgetter(field)(config)
        if value is not None and value <= 0:
            raise UserError(f"{field} is {value}; it must be positive")
    for field, value in _walk(dataclasses.asdict(config)):
        low, high = RANGES.get(field.split(".")[-1], (None, None))
        if None not in (low, value) and not low <= value <= high:
            raise UserError(f"{field} is {value}; it must lie in [{low:g}, {high:g}]")
    if config.seed < 0 or config.seed + config.models > 2**31:
        raise UserError(f"seed is {config.seed}; seeds must lie in [0, 2**31)")
    for sparsity in config.sparsities:
        if not 0 <= sparsity < 1:
            raise UserError(f"sparsity {sparsity:g} is outside [0, 1); it is the fraction of weights removed")
    if not config.sparsities or len(set(config.sparsities)) < len(config.sparsities):
        raise UserError(f"sparsities {config.sparsities}: give at least one, and none twice")
    if config.model.depth < 10 or (config.model.depth - 4) % 6:
        raise UserError(f"model.depth is {config.model.depth}; a WideResNet has 6n+4 layers: 10, 16, 22, 28, ...")
    if len(config.data.mean) != len(config.data.std) or min(config.data.std, default=0) <= 0:
        raise UserError("data.mean and data.std need one value per channel, and each std above 0")
    if channels not in (None, len(config.data.mean)):
        raise UserError(
            f"data.mean has {len(config.data.mean)} values but the images of {config.data.name} have {channels} "
            "channels; set data.mean and data.std"
        )
    for name in ("sup_augment", "scl_augment"):
        augment: Augment = getattr(config, name)
        for low, high in (augment.resized_crop_scale or (1, 1), augment.resized_crop_ratio):
            if not 0 < low <= high:
                raise UserError(f"{name}: a resized crop needs 0 < low <= high, not {low:g}, {high:g}")
        if channels == 1 and (augment.jitter or augment.grayscale_probability):
            gray = f"set {name}.jitter=none and {name}.grayscale_probability=0"
            raise UserError(f"the images of {config.data.name} have no colour: {gray}")
    for name in config.experiment.stages:
        _validate_schedule(config, name, num_train)


def _validate_schedule(config: Config, stage: str, num_train: int | None) -> None:
    schedule = config.schedule(stage)
    if schedule is None:
        return
    field = f"prune.{'head' if stage == 'head' else config.experiment.schedule}"
    if not 0 <= schedule.begin_step < schedule.end_step or schedule.every_steps <= 0:
        raise UserError(
            f"{field} is {schedule.begin_step}/{schedule.end_step}/{schedule.every_steps}; "
            "it needs 0 <= begin_step < end_step and every_steps > 0"
        )
    if num_train is not None:
        steps = steps_per_epoch(config.stage(stage), num_train) * config.stage(stage).epochs
        if schedule.end_step >= steps:
            raise UserError(f"{field}.end_step is {schedule.end_step}, beyond stage {stage!r}, which has {steps} steps")


def steps_per_epoch(stage: Stage, num_train: int) -> int:
    """Steps that see every training image once; the last batch may be smaller."""
    return -(-num_train // stage.batch_size)


def to_json(config: Config) -> str:
    """Every field of `config`."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str, where: str) -> Config:
    """The inverse of `to_json`; `where` names the source in errors.

    Raises:
        UserError: if a field is missing, unknown or of another type.
    """
    try:
        return _build(Config, json.loads(text), "")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not a configuration of this version of prunejax: {error}") from None


def load_config(run_dir: str | os.PathLike[str]) -> Config:
    """The configuration a run directory was made with.

    Raises:
        UserError: if the directory holds none, or one that cannot be read.
    """
    path = epath.Path(run_dir) / "config.json"
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: no readable configuration ({type(error).__name__}); is this a run directory?"
        ) from None
    return from_json(text, str(path))


def _walk(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Each field's path and value."""
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _walk(value, f"{path}{name}.")
        else:
            yield path + name, value


FREE = ("experiment", "sparsities", "population", "checkpoint", "measure", "log_every_steps")
"""Fields in which the runs of one study may differ."""


def differences(ours: Config, theirs: Config, apart: Iterable[str] = ()) -> list[str]:
    """The fields in which two configurations differ, `apart` from those named, as `path: ours, not theirs`."""
    first, second = (dict(_walk(dataclasses.asdict(config))) for config in (ours, theirs))
    paths = [path for path in sorted(first.keys() | second.keys()) if path.split(".")[0] not in apart]
    return [f"{p}: {first.get(p)}, not {second.get(p)}" for p in paths if first.get(p) != second.get(p)]
