"""What a measure is: a function of one model's outputs, and how its numbers are kept and shown."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from prunejax.config import MeasureSettings
from prunejax.registry import Registry

Needs = Literal["logits", "representations", "probes"]


class Features(NamedTuple):
    """The outputs of one model for some images, in NumPy."""

    representations: np.ndarray
    """float32 `[examples, dim]`, the encoder's un-normalised output."""
    logits: np.ndarray
    """float32 `[examples, classes]`."""
    probes: list[np.ndarray]
    """The features at each probe point, from the first layer on, float32 `[examples, channels]`."""


@dataclasses.dataclass(frozen=True, eq=False)
class ModelOutputs:
    """The outputs of one model: computed at first use, and then kept for all measures."""

    on_test: Callable[[], Features]
    """Applies the model to the test images."""
    on_train: Callable[[], Features]
    """Applies it to the training images that probes are fitted on; raises UserError if there are
    fewer than `measure.depth_examples`."""
    streamed: Features | None = None
    """The outputs for the test images, without probes, where several models are applied at once."""

    @property
    def logits(self) -> np.ndarray:
        """float32 `[examples, classes]`, of the test images."""
        return (self.streamed or self._test).logits

    @property
    def representations(self) -> np.ndarray:
        """float32 `[examples, dim]`, of the test images, un-normalised."""
        return (self.streamed or self._test).representations

    @property
    def probes(self) -> list[np.ndarray]:
        """The features of the test images at each probe point, float32 `[examples, channels]`."""
        return self._test.probes

    @cached_property
    def train_probes(self) -> list[np.ndarray]:
        """The features of the fitted training images at each probe point.

        Each is float32 `[fitted, channels]`.
        """
        return self.on_train().probes

    @cached_property
    def _test(self) -> Features:
        return self.on_test()


def _not_shown(fraction: float) -> None:
    """Ignores the progress."""


class Context(NamedTuple):
    """What a measure may need in addition to the model's outputs."""

    test_labels: np.ndarray
    """int32 `[examples]`."""
    train_labels: np.ndarray
    """int32 `[fitted]`, of the training images that probes are fitted on."""
    num_classes: int
    settings: MeasureSettings
    progress: Callable[[float], None] = _not_shown
    """A slow measure may call it with the fraction of a model's work that it has done since."""


class ArraySpec(NamedTuple):
    """The dtype, dimensions and range of an array of a measure."""

    kind: Literal["i", "f", "b"]
    """int32, float32 or bool."""
    dims: tuple[str | int, ...]
    """Names of dimensions: `levels` if the measure's `models` are `first`, else `models`; then
    `examples`, `classes` or numbers."""
    low: float | None = None
    """The smallest value that a measured model can have; None: any, also NaN."""
    high: float | str | None = None
    """The largest such value; `classes`: that of the last class."""


class Column(NamedTuple):
    """How a table of all cells shows an array: the mean over examples, if any, times `scale`."""

    array: str
    header: str
    scale: float = 1.0
    digits: int = 2
    """After the point."""


class Measure(NamedTuple):
    """A plug-in: what is measured of a model. A model that has failed is not measured."""

    name: str
    """Also its file, `measures/<name>.npz`: lower-case letters, digits and `_`."""
    version: int
    """To be raised when its numbers change: files of other versions are measured again."""
    arrays: Mapping[str, ArraySpec]
    """What it measures, by names that no other measure uses."""
    function: Callable[[ModelOutputs, Context], Mapping[str, Any]]
    """Measures ONE model: returns each array without its first dimension."""
    needs: frozenset[Needs] = frozenset({"logits"})
    """What it reads of the outputs. One that needs no probes of all models is computed as they
    are streamed, several at a time."""
    models: Literal["all", "probed", "first"] = "all"
    """Which are measured, none that failed: all; of each sparsity those of the
    `measure.probe_models` lowest seeds; or the first of each sparsity, which makes one row a
    sparsity (`levels`)."""
    settings: tuple[str, ...] = ()
    """Fields of `config.MeasureSettings` that decide its numbers; other fields make its file not
    outdated. `probe_models` need not be named."""
    columns: tuple[Column, ...] = ()
    """What a report's table of all cells shows of it."""


MEASURES: Registry[Measure] = Registry("measure", "prunejax.measures")


def decisive_settings(measure: Measure, settings: MeasureSettings) -> dict[str, Any]:
    """Returns the settings, by field, on which a measure's numbers depend."""
    fields = list(measure.settings)
    if measure.models == "probed" and "probe_models" not in fields:
        fields.insert(0, "probe_models")
    return {field: getattr(settings, field) for field in fields}
