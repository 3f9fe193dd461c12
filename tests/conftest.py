"""Small settings that train in seconds, shared by the tests."""

import dataclasses
import os
from pathlib import Path

import jax
import pytest

from experiments.presets import PRESETS
from experiments.studies.paper import paper
from prunejax import cache, data
from prunejax.config import Config, LearningRate, Schedule

EXPERIMENTS = {experiment.name: experiment for experiment in paper()}

jax.config.update("jax_numpy_rank_promotion", "raise")
if "JAX_NUM_CPU_DEVICES" not in os.environ:
    jax.config.update("jax_num_cpu_devices", 2)  # so that every population is split
jax.config.update("jax_compilation_cache_dir", str(cache.cache_dir() / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(scope="session")
def dataset() -> data.Dataset:
    """100 digits to train on, so that batches of 32 leave a last one of 4, and 60 to test on."""
    digits = PRESETS["digits"].data
    return data.load(dataclasses.replace(digits, train_examples=100, test_examples=60))


@pytest.fixture(scope="session")
def make_config():
    """`make_config(experiment, **fields)`: two seeds, two epochs of four steps.

    Pruned at steps 1, 3, 5 and 6.
    """

    def make(experiment: str, **fields) -> Config:
        digits = PRESETS["digits"]
        changes = {
            "experiment": EXPERIMENTS[experiment],
            "models": 2,
            "sparsities": (0.5, 0.9),
            "data": dataclasses.replace(digits.data, train_examples=100, test_examples=60),
            "log_every_steps": 3,
        }
        for name in ("sup", "scl", "head", "finetune"):
            stage = getattr(digits, name)
            changes[name] = dataclasses.replace(
                stage, epochs=2, batch_size=32, learning_rate=LearningRate(0.05)
            )
        schedule = Schedule(1, 6, 2)
        changes["prune"] = dataclasses.replace(
            digits.prune, sup=schedule, scl=schedule, scl_delayed=schedule
        )
        return dataclasses.replace(digits, **(changes | fields))

    return make


@pytest.fixture(scope="session")
def cifar10_dir() -> Path:
    """Where CIFAR-10 is prepared, if it is.

    PRUNEJAX_TFDS_DIR, or the shared copy beside a development checkout.
    """
    root = Path(__file__).parents[1]
    candidates = [root.parent / "shared" / "data" / "tfds"]
    if named := os.environ.get("PRUNEJAX_TFDS_DIR"):
        candidates.insert(0, Path(named))
    for candidate in candidates:
        if (candidate / "cifar10").is_dir():
            return candidate
    pytest.skip("CIFAR-10 is not prepared here; set PRUNEJAX_TFDS_DIR")


QUICK = {
    "test_augment",
    "test_calibration",
    "test_config",
    "test_erk",
    "test_losses",
    "test_metrics",
    "test_n_of_m",
    "test_neighbors",
    "test_norm",
    "test_optim",
    "test_prune",
    "test_random_score",
    "test_registry",
    "test_repository",
    "test_schedules",
    "test_statistics",
    "test_study",
    "test_tables",
}
"""Files that train nothing and start no process: `pytest -m quick`, for who changes a line."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in QUICK:
            item.add_marker(pytest.mark.quick)


def pytest_addoption(parser):
    parser.addoption(
        "--kills", type=int, default=6, help="how often a training process is killed in a test"
    )
