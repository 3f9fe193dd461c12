"""Checks of several settings together; the constraint of one field is next to it in `settings`."""

from typing import TYPE_CHECKING

import numpy as np

from prunejax.config.errors import UserError
from prunejax.config.levels import fraction
from prunejax.config.settings import Schedule

if TYPE_CHECKING:
    from prunejax.config.settings import Augment, Config, Data, Experiment, Prune


def validate(config: "Config", channels: int | None = None) -> None:
    """Refuses settings that contradict each other, or the images they are for.

    Args:
        config: the settings.
        channels: of the images, once they are at hand.

    Raises:
        UserError: naming the first field that is wrong.
    """
    if config.seed + config.models > 2**31:
        raise UserError(f"seed is {config.seed}; seeds must lie in [0, 2**31)")
    _check_levels(config.sparsities)
    _check_start(config.experiment, config.prune.count_from)
    _check_schedules(config.prune)
    _check_statistics(config.data, channels)
    _check_augment("sup_augment", config.sup_augment, channels)
    _check_augment("scl_augment", config.scl_augment, channels)


def _check_levels(sparsities: tuple[float, ...]) -> None:
    # Members carry their sparsity as float32: levels that are one there would be one population.
    levels = [fraction(sparsity) for sparsity in sparsities]
    if not levels or len(set(levels)) < len(levels):
        raise UserError(
            f"sparsities {sparsities}: give at least one, and none twice in single precision"
        )
    for sparsity in sparsities:
        if np.float32(sparsity) == 1:
            raise UserError(
                f"sparsities {sparsities}: {sparsity} is 1 in single precision, which leaves no "
                "weight; lower it"
            )


def _check_start(experiment: "Experiment", count_from: int) -> None:
    pruning = experiment.pruning
    if pruning is None or pruning.start is None:
        return
    if pruning.schedule is None:
        raise UserError(
            f"experiment {experiment.name!r} prunes in one shot, and has a start step of pruning "
            f"({pruning.start}); give it a schedule"
        )
    if isinstance(pruning.start, int) and pruning.start < count_from:
        raise UserError(
            f"start of pruning {pruning.start} is before the first step, which prune.count_from "
            f"numbers {count_from}; raise it"
        )


def _check_schedules(prune: "Prune") -> None:
    for name, value in vars(prune).items():
        if isinstance(value, Schedule) and value.begin_step < prune.count_from:
            raise UserError(
                f"prune.{name}.begin_step is {value.begin_step}, before the first step, which "
                f"prune.count_from numbers {prune.count_from}; raise one or lower the other"
            )


def _check_statistics(data: "Data", channels: int | None) -> None:
    if (data.mean is None) != (data.std is None):
        raise UserError("data.mean and data.std: give both, or neither to have them measured")
    if data.mean is None or data.std is None:
        return
    if len(data.mean) != len(data.std) or not data.mean:
        raise UserError("data.mean and data.std need one value per channel")
    if channels is not None and channels != len(data.mean):
        raise UserError(
            f"data.mean has {len(data.mean)} values but the images of {data.name} have "
            f"{channels} channels; set data.mean and data.std, or both to none"
        )


def _check_augment(name: str, augment: "Augment", channels: int | None) -> None:
    for low, high in (augment.resized_crop_scale or (1.0, 1.0), augment.resized_crop_ratio):
        if low > high:
            raise UserError(f"{name}: a resized crop needs 0 < low <= high, not {low:g}, {high:g}")
    coloured = augment.jitter or augment.grayscale_probability
    if coloured and channels not in (None, 3):
        raise UserError(
            f"images of {channels} channels have no colour to change: "
            f"set {name}.jitter=none and {name}.grayscale_probability=0"
        )
