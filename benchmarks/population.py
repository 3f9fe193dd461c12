"""Images per second of a population, ours against naive `jax.vmap` and against its members one after another.

The contestants take turns in one process, so that a slow minute of a shared machine hits them alike; what counts are
the ratios of their medians.

    python -m benchmarks.population --models=8 --depth=16 --widen=2 --size=32 --batch=128
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from absl import app, flags
from jax.sharding import NamedSharding

from experiments.presets import PRESETS
from prunejax import population, train
from prunejax.config import Config, Model, Population
from prunejax.data import Dataset

FLAGS = flags.FLAGS
flags.DEFINE_integer("models", 8, "Models in the population.")
flags.DEFINE_integer("depth", 16, "Depth of the WideResNet.")
flags.DEFINE_integer("widen", 2, "Widening factor of the WideResNet.")
flags.DEFINE_integer("size", 32, "Height and width of the images.")
flags.DEFINE_integer("batch", 128, "Images per model and step.")
flags.DEFINE_integer("repeats", 5, "Timed steps of each contestant.")
flags.DEFINE_string("out", None, "Write the result as JSON to this file.")


def make_config() -> Config:
    """Cross-entropy training of the network and batch that the flags name, without pruning."""
    config = PRESETS["cifar10"]
    return replace(
        config,
        models=FLAGS.models,
        model=Model(FLAGS.depth, FLAGS.widen),
        sup=replace(config.sup, batch_size=FLAGS.batch),
    )


def make_population(config: Config, dataset: Dataset, strategy: str) -> Callable[[], None]:
    """Returns one step of the whole population in one program."""
    config = replace(config, population=Population(convolution=strategy))  # pyright: ignore[reportArgumentType]
    who = population.members(config)
    program = population.make_programs(config, "sup", dataset)(len(who), FLAGS.batch)
    orders = np.tile(np.arange(len(dataset.train_labels), dtype=np.int32), (len(who), 1))
    schedule = tuple(map(np.int32, train.schedule_steps(config, "sup")))
    mesh = population.make_mesh(len(who))
    per_model, shared = (NamedSharding(mesh, spec) for spec in (population.PER_MODEL, population.SHARED))
    fixed = jax.device_put((who.seeds, who.sparsities, orders), per_model)
    data = jax.device_put((np.int32(0), schedule, dataset.train_images, dataset.train_labels), shared)
    state = jax.device_put(population.init(config, "sup", who, dataset), per_model)

    def step() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(program(state, *fixed, *data))

    return step


def make_serial(config: Config, dataset: Dataset) -> Callable[[], None]:
    """Returns one step of each model in turn with the plain single-model step and XLA's own convolution."""
    config = replace(config, population=Population(convolution="grouped"))  # of one model it has one group
    step_fn = jax.jit(
        train.make_step(config, "sup", len(dataset.train_labels), dataset.num_classes),
        static_argnames="batch_size",
        donate_argnums=0,
    )
    order = np.arange(len(dataset.train_labels), dtype=np.int32)
    schedule = tuple(map(np.int32, train.schedule_steps(config, "sup")))
    fixed = jax.device_put((np.float32(0), order, np.int32(0), schedule))
    data = jax.device_put((dataset.train_images, dataset.train_labels))
    init = jax.jit(lambda seed: train.init(config, "sup", seed, dataset.image_shape, dataset.num_classes))
    states = [init(seed) for seed in range(FLAGS.models)]

    def step() -> None:
        for seed, state in enumerate(states):
            states[seed], _ = jax.block_until_ready(
                step_fn(state, np.int32(seed), *fixed, *data, batch_size=FLAGS.batch)
            )

    return step


def main(_: list[str]) -> None:
    """Times the contestants in turns and prints images per second and ratios."""
    jax.config.update("jax_num_cpu_devices", os.cpu_count())  # as the scripts do; the serial contestant uses one
    config = make_config()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2 * FLAGS.batch, FLAGS.size, FLAGS.size, 3), np.uint8)
    labels = rng.integers(0, 10, len(images)).astype(np.int32)
    dataset = Dataset("random", tuple("0123456789"), images, labels, images, labels)
    contestants = {
        "ours (unrolled)": make_population(config, dataset, "unrolled"),
        "one after another": make_serial(config, dataset),
        "im2col": make_population(config, dataset, "im2col"),
        "naive vmap (grouped)": make_population(config, dataset, "grouped"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(FLAGS.repeats + 1):
        for name, step in contestants.items():
            start = time.perf_counter()
            step()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    count = FLAGS.models * FLAGS.batch
    ours = statistics.median(seconds["ours (unrolled)"])
    title = f"WRN-{FLAGS.depth}-{FLAGS.widen}, {FLAGS.size}x{FLAGS.size}, batch {FLAGS.batch}, {FLAGS.models} models"
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {jax.devices()[0].device_kind}, jax {jax.__version__}"
    print(f"{title}; {machine}; median of {FLAGS.repeats}\n\n| contestant | images/s | slowest to fastest | ours is |")
    print("|---|---|---|---|")
    for name, times in seconds.items():
        rate = count / statistics.median(times)
        spread = f"{count / max(times):.0f} to {count / min(times):.0f}"
        print(f"| {name} | {rate:.0f} | {spread} | {statistics.median(times) / ours:.2f}x |")
    if FLAGS.out:
        result = {"title": title, "machine": machine, "images_per_step": count, "seconds": seconds}
        Path(FLAGS.out).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
