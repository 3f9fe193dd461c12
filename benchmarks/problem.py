"""The training that a spec describes: settings, data, and the spec of its stage."""

from dataclasses import replace

import numpy as np

import benchmarks.strategies  # noqa: F401, which adds what ours is compared with
from benchmarks.spec import Spec
from experiments.presets import PAPER
from experiments.studies.paper import SCL_DENSE, SUP_DENSE
from prunejax.config import Config, Execution, Model
from prunejax.data import Dataset
from prunejax.training.spec import StageSpec, make_specs


def make_config(spec: Spec) -> Config:
    """The paper's training of the network, batch and loss in `spec`, without pruning."""
    execution = Execution(
        models_per_program=spec.models_per_program,
        convolution=spec.convolution,
        steps_per_call=spec.steps_per_call,
    )
    return replace(
        PAPER,
        experiment=SCL_DENSE if spec.stage == "scl" else SUP_DENSE,
        models=spec.models,
        model=Model(depth=spec.depth, widen_factor=spec.widen),
        compute_dtype=spec.dtype,
        sup=replace(PAPER.sup, batch_size=spec.batch),
        scl=replace(PAPER.scl, batch_size=spec.batch),
        execution=execution,
    )


def random_dataset(spec: Spec) -> Dataset:
    """Two batches of noise with random labels of ten classes, the same to train and to test on."""
    rng = np.random.default_rng(0)
    shape = (2 * spec.batch, spec.size, spec.size, 3)
    images = rng.integers(0, 256, shape, np.uint8)
    labels = rng.integers(0, 10, len(images)).astype(np.int32)
    class_names = tuple("0123456789")
    return Dataset("random", class_names, images, labels, images, labels)


def stage_spec_of(spec: Spec, dataset: Dataset) -> StageSpec:
    """The stage of `spec`."""
    return make_specs(make_config(spec), dataset)[spec.stage]
