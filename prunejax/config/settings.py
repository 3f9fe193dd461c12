"""Every setting of a run, as frozen dataclasses. The defaults are the text of the paper (Table 2).

No default is anywhere else. A preset is a set of changes to these (`experiments/presets.py`).
The constraint of a field is next to it; what depends on several fields is in `checks`.
A new field's default must mean what was done before there was the field, so that older
configurations stay readable.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
GeneratorSeed = Annotated[int, Field(ge=0, lt=2**32)]
"""A seed of NumPy's generators."""
Sparsity = Annotated[float, Field(ge=0, lt=1)]
"""The fraction of weights that is removed."""
Epochs = tuple[Count, ...]
StartFraction = Annotated[float, Field(ge=0, lt=1)]
Start = Count | StartFraction
"""The start step of pruning: a whole number is a step, as schedules number them; any other number a
fraction of the first stage."""


# ------------------------------------------------------- the experiments of a study


@dataclass(frozen=True, config=STRICT)
class Pruning:
    """A way of pruning: when, by which score, and how many weights of which layer."""

    schedule: str | None
    """The field of `Prune` that the first stage follows (gradual pruning); None: the dense parent's
    final checkpoint is pruned at once."""
    score: str = "magnitude"
    """A name in `pruning.SCORES`: what a weight is worth."""
    allocation: str = "layerwise"
    """A name in `pruning.ALLOCATIONS`: how many weights are pruned in each layer."""
    exclude: tuple[str, ...] = ()
    """Parts of the network that stay dense, for instance `stem`."""
    start: Start | None = None
    """The start step of gradual pruning; its span and interval stay the schedule's. None: the
    schedule's own `begin_step`."""
    sparsities: tuple[Sparsity, ...] = ()
    """The population's, unless `--sparsities` requests others. Empty: the preset's."""
    shorten: bool = False
    """Whether a span that would end after its stage is cut to end with it; if not it is refused."""


@dataclass(frozen=True, config=STRICT)
class Experiment:
    """One population of a study: how it is trained and pruned, and what it is compared with."""

    name: str = "sup_dense"
    """Also its directory."""
    method: str = "cross_entropy"
    """A name in `methods.METHODS`: how it is trained."""
    pruning: Pruning | None = None
    """None for a dense experiment."""
    dense_parent: str | None = None
    """For a pruned experiment, the dense one: its models before pruning, from which one-shot and
    gradual pruning start."""
    label: str = "dense"
    """The way of pruning in tables and figures, for instance `GMP`."""
    baseline: str | None = None
    """The pruned experiment that this one is compared with, if there is one."""
    prune_head: bool = True
    """Whether the linear head's kernel is prunable too: in the paper for Sup only."""


# ------------------------------------------------------ result-defining settings


@dataclass(frozen=True, config=STRICT)
class Data:
    """Which images. A count of None takes all; a smaller one a fixed, class-balanced subset."""

    name: str = "cifar10"
    """`digits`, a set that TFDS knows, or a path to custom arrays, `*.npz`."""
    train_examples: Positive | None = None
    test_examples: Positive | None = None
    subset_seed: GeneratorSeed = 0
    image_size: Positive | None = None
    """Height and width that images are averaged to when they are loaded; None: as they are."""
    mean: tuple[float, ...] | None = (0.4914, 0.4822, 0.4465)
    """The mean of each channel, of images in [0, 1]; None: measured on the training images."""
    std: tuple[PositiveFloat, ...] | None = (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True, config=STRICT)
class Augment:
    """Random image transformations: padding, flips, crop, jitter, grayscale, in this order.

    0 or None switches one off.
    """

    crop_padding: Count = 0
    """Pixels of black on each side, before a window of the old size is cut."""
    resized_crop_scale: tuple[PositiveFloat, PositiveFloat] | None = None
    """Range of the crop's area as a fraction of the image's."""
    resized_crop_ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)
    horizontal_flip: bool = True
    vertical_flip: bool = False
    jitter: tuple[NonNegative, NonNegative, NonNegative, NonNegative] | None = None
    """Strengths of brightness, contrast, saturation and hue."""
    jitter_probability: Fraction = 0.8
    grayscale_probability: Fraction = 0.0


@dataclass(frozen=True, config=STRICT)
class Model:
    """The encoder's architecture, and the contrastive projection head."""

    name: str = "wide_resnet"
    """A name in `nn.ARCHITECTURES`."""
    depth: Positive = 16
    widen_factor: Positive = 2
    projection_dim: Positive = 128


@dataclass(frozen=True, config=STRICT)
class LearningRate:
    """Constant within an epoch: `initial`, on a cosine to `final`, times `factor` at milestones."""

    initial: NonNegative
    milestone_epochs: Epochs = ()
    factor: NonNegative = 0.1
    final: NonNegative | None = None
    """None: no cosine."""
    chained: bool = False
    """Whether milestones and cosine change one rate in turn, as two schedulers of one optimizer do
    in PyTorch and so in the released code: it then ends near `final` whatever the milestones."""


@dataclass(frozen=True, config=STRICT)
class Stage:
    """A stretch of training with one optimizer setting."""

    epochs: Positive
    batch_size: Positive
    learning_rate: LearningRate
    weight_decay: NonNegative = 0.0
    nesterov: bool = False
    frozen_encoder: bool = False


@dataclass(frozen=True, config=STRICT)
class Schedule:
    """Gradual pruning at `begin_step`, every `every_steps` after it, and at `end_step`.

    Source: Zhu & Gupta 2017.
    """

    begin_step: Count
    end_step: Count
    every_steps: Positive


@dataclass(frozen=True, config=STRICT)
class Prune:
    """The schedules an experiment can name; `head` is for the head stage of a pruned SCL model."""

    power: Positive = 3
    at_multiples: bool = False
    """Update at multiples of `every_steps` only, as the released code, which ends short of it."""
    count_from: Annotated[int, Field(ge=0, le=1)] = 0
    """What schedules call a stage's first step: 0, so that an update at step 1000 comes after 1000
    optimizer steps; or 1 as in the released code, where it comes after 999."""
    sup: Schedule = Schedule(1000, 20000, 500)
    scl: Schedule = Schedule(125, 2476, 62)
    scl_delayed: Schedule = Schedule(2450, 4760, 62)
    head: Schedule | None = None


@dataclass(frozen=True, config=STRICT)
class Optim:
    """SGD, as shared by all stages."""

    momentum: Fraction = 0.9


@dataclass(frozen=True, config=STRICT)
class SupCon:
    """The contrastive losses; they are multiplied by `temperature / base_temperature`."""

    temperature: PositiveFloat = 0.5
    base_temperature: PositiveFloat = 0.07
    collapse_steps: Positive = 200
    """A model has failed whose loss was that of a collapsed encoder for so many steps in a row,"""
    collapse_tolerance: NonNegative = 1e-3
    """give or take this fraction of it."""


@dataclass(frozen=True, config=STRICT)
class ResultSettings:
    """Result-defining settings: two runs that differ here are different runs."""

    preset: str = "cifar10"
    experiment: Experiment = Experiment()
    models: Positive = 30
    seed: Count = 0
    """Seed of the first member; the others count up from it."""
    sparsities: tuple[Sparsity, ...] = (0.3, 0.5, 0.7, 0.9)
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """The dtype of the encoder. In float32 JAX multiplies in TF32 on GPUs and in bfloat16 on TPUs,
    unless `JAX_DEFAULT_MATMUL_PRECISION=highest` is set; heads and losses are in full precision."""
    data: Data = Data()
    model: Model = Model()
    sup_augment: Augment = Augment(crop_padding=4)
    scl_augment: Augment = Augment(
        resized_crop_scale=(0.2, 1.0),
        jitter=(0.4, 0.4, 0.4, 0.1),
        grayscale_probability=0.2,
    )
    optim: Optim = Optim()
    supcon: SupCon = SupCon()
    # The text gives Sup a learning rate of 1.0 and no decay; the milestones are those of the
    # released code.
    sup: Stage = Stage(205, 128, LearningRate(1.0, (5, 30, 50, 80)), weight_decay=5e-4)
    scl: Stage = Stage(500, 1024, LearningRate(0.05, final=5e-5), weight_decay=5e-4)
    head: Stage = Stage(100, 256, LearningRate(0.1), frozen_encoder=True)
    finetune: Stage = Stage(30, 128, LearningRate(1e-3), nesterov=True)
    prune: Prune = Prune()


# -------------------------------------------------------- runtime settings


@dataclass(frozen=True, config=STRICT)
class Execution:
    """How a population is computed; changes no result but by floating-point reordering."""

    models_per_program: Positive | None = None
    """Models in one compiled program; the others follow chunk by chunk. None: what memory holds."""
    devices_per_model: Positive | None = None
    """Devices that share a model's batch. None: as many as there are for each model; on the CPU of
    one process 1."""
    convolution: str = "unrolled"
    """A name in `nn.conv.STRATEGIES`: how convolutions of many models are computed. On a CPU
    `onednn` takes the fastest steps, and compiles each program anew at every start."""
    steps_per_call: Positive | None = None
    """Steps that one call of a program takes. None: 8 on accelerators, 1 on CPU, whose
    convolutions crawl in loops."""
    warm_start: bool = True
    """Whether a gradually pruned run starts from its dense parent's checkpoint at the start step of
    pruning, until which both are equal; see `runs.warm_start`."""


@dataclass(frozen=True, config=STRICT)
class Checkpoint:
    """When a checkpoint is written, apart from the end of every stage, and how many are kept."""

    every_steps: Positive = 2000
    every_minutes: PositiveFloat = 10.0
    keep: Positive = 2
    keep_at: tuple[Positive, ...] = ()
    """Further steps whose checkpoints are written and kept: warm starts of pruned runs."""


@dataclass(frozen=True, config=STRICT)
class MeasureSettings:
    """How trained models are measured."""

    probe_models: Positive = 5
    """Models per sparsity whose prediction depth and purity are measured: those of the lowest seeds
    that have not failed."""
    neighbors: Positive = 30
    depth_target: Literal["label", "prediction"] = "label"
    """What a probe must predict: the true label (the paper's code), or the network's prediction
    (Baldock et al.)."""
    depth_count: Literal["first_right", "last_wrong"] = "first_right"
    """Which probe's number is the depth: of the first from which all are right (Baldock et al.), or
    as in the paper's code of the last that is wrong, and 1 if none is."""
    depth_examples: Positive | None = None
    """Training images, class-balanced, that the probes are fitted on; None takes all."""
    umap_seed: GeneratorSeed = 0


@dataclass(frozen=True, config=STRICT)
class Display:
    """What tables and figures show of a run and its method; filled in when the run starts."""

    label: str = ""
    """For instance `SCL`."""
    colour: str = "#666666"
    architecture: str = ""
    """For instance `WideResNet-16-2`."""
    first_stage_steps: Count = 0
    """Steps of the first stage, of which start steps are fractions; 0 if not known."""


@dataclass(frozen=True, config=STRICT)
class RuntimeSettings:
    """How a run is computed, saved, measured and shown: may differ on resume."""

    execution: Execution = Execution()
    checkpoint: Checkpoint = Checkpoint()
    measure: MeasureSettings = MeasureSettings()
    display: Display = Display()
    log_every_steps: Positive = 50
    """Steps averaged into one line of `metrics.jsonl`; a line never spans two epochs."""


@dataclass(frozen=True, config=STRICT)
class Config(RuntimeSettings, ResultSettings):
    """One run: a population, `models` seeds x `sparsities`, through the stages of an experiment."""
