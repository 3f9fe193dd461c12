"""One contestant in a process of its own: sets up, then does a round for every line on stdin and answers in JSON.

Started by `benchmarks.run`, which takes the times; each process has its own environment and number of devices.
"""

import json
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

Round = Callable[[], object]


def make_config(spec: dict[str, Any]):  # noqa: ANN201
    """Training of the network, batch and loss in `spec`, without pruning."""
    from experiments.presets import PRESETS
    from experiments.registry import EXPERIMENTS
    from prunejax.config import Model, Population

    config = PRESETS["cifar10"]
    return replace(
        config,
        experiment=EXPERIMENTS["scl_dense" if spec["stage"] == "scl" else "sup_dense"],
        models=spec["models"],
        model=Model(spec["depth"], spec["widen"]),
        compute_dtype=spec["dtype"],
        sup=replace(config.sup, batch_size=spec["batch"]),
        scl=replace(config.scl, batch_size=spec["batch"]),
        population=Population(
            spec.get("models_per_program"), convolution=spec.get("convolution", "unrolled"), steps_per_call=1
        ),
    )


def random_dataset(spec: dict[str, Any]):  # noqa: ANN201
    """Two batches of noise."""
    from prunejax.data import Dataset

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2 * spec["batch"], spec["size"], spec["size"], 3), np.uint8)
    labels = rng.integers(0, 10, len(images)).astype(np.int32)
    return Dataset("random", tuple("0123456789"), images, labels, images, labels)


def ours(spec: dict[str, Any]) -> Round:
    """One step of the whole population in the programs of `population.fit`."""
    import jax

    from prunejax import population, programs

    config, dataset, stage = make_config(spec), random_dataset(spec), spec["stage"]
    who, program = population.members(config), programs.make_programs(config, stage, dataset)
    plan = programs.plan(config, stage, len(who), dataset, program)
    chunks = len(plan.chunks)
    calls = population.rehearse(config, stage, who, dataset, plan, program, chunks)
    return lambda: jax.block_until_ready([next(calls) for _ in range(chunks)])


def serial(spec: dict[str, Any]) -> Round:
    """The single model's step under plain `jit`, one model after another."""
    import jax

    step_one, init, data = _single(spec)
    states = list(map(jax.jit(init), np.arange(spec["models"], dtype=np.int32)))
    program = jax.jit(step_one, donate_argnums=0)

    def step() -> None:
        for seed, state in enumerate(states):
            states[seed], _ = jax.block_until_ready(program(state, np.int32(seed), data))

    return step


def naive(spec: dict[str, Any]) -> Round:
    """`jax.vmap` of the single model's step with XLA's own convolution, on one device."""
    import jax

    return _mapped(spec, lambda step, state, seeds, data: jax.vmap(step, (0, 0, None))(state, seeds, data))


def lax_map(spec: dict[str, Any]) -> Round:
    """`jax.lax.map` of the single model's step."""
    import jax

    return _mapped(spec, lambda step, state, seeds, data: jax.lax.map(lambda one: step(*one, data), (state, seeds)))


def _single(spec: dict[str, Any]) -> tuple[Callable, Callable, Any]:
    """The single model's `step(state, seed, data)` and `init(seed)`, neither jitted, and the data.

    As one would write it: XLA's own convolution and Flax's own normalisation.
    """
    import flax.linen as nn
    import jax

    from prunejax import models, train

    def norm(train: bool, name: str) -> nn.Module:
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name=name)

    models.BatchNorm = norm  # pyright: ignore[reportAttributeAccessIssue]
    config, dataset = make_config(spec | {"convolution": "grouped"}), random_dataset(spec)  # of one model: one group
    stage, num_train = spec["stage"], len(dataset.train_labels)
    step_fn = train.make_step(config, stage, num_train, dataset.num_classes)
    order, schedule = np.arange(num_train, dtype=np.int32), train.schedule_steps(config, stage)
    data = jax.device_put((order, np.int32(0), schedule, dataset.train_images, dataset.train_labels))

    def step(state, seed, data):  # noqa: ANN001, ANN202
        return step_fn(state, seed, np.float32(0), *data, spec["batch"])

    return step, lambda seed: train.init(config, stage, seed, dataset.image_shape, dataset.num_classes), data


def _mapped(spec: dict[str, Any], mapping: Callable) -> Round:
    import jax
    import jax.numpy as jnp

    step_one, init, data = _single(spec)
    seeds = np.arange(spec["models"], dtype=np.int32)
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(jax.jit(init), seeds))
    program = jax.jit(lambda *arguments: mapping(step_one, *arguments), donate_argnums=0)

    def step() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(program(state, seeds, data))

    return step


def pytorch(spec: dict[str, Any]) -> Round:
    """The same network in PyTorch, channels_last, one model after another.

    It is given its batch ready on the device: no gathering and no augmentation, which the others do.
    """
    import torch  # pyright: ignore[reportMissingImports]

    from benchmarks.pytorch_model import make_trainer

    torch.set_num_threads(spec["threads"])
    images = torch.rand(spec["batch"] * (2 if spec["stage"] == "scl" else 1), 3, spec["size"], spec["size"])
    labels = torch.randint(10, (spec["batch"],))
    trainers = [make_trainer(spec, seed) for seed in range(spec["models"])]

    def step() -> None:
        for train_step in trainers:
            train_step(images, labels)

    return step


def augmentation(spec: dict[str, Any]) -> Round:
    """A step's batches of `models` models: augmented and normalised, split over the devices."""
    import jax
    from jax.sharding import PartitionSpec

    from prunejax import devices, train

    config, dataset = make_config(spec), random_dataset(spec)
    draw = train.make_batch(config, spec["stage"])

    def draw_all(seeds, images):  # noqa: ANN001, ANN202
        return jax.vmap(lambda seed: draw(train.key_for(seed, "augment"), images[: spec["batch"]]))(seeds)

    mesh, specs = devices.make_mesh(config.population, spec["models"]), (PartitionSpec("models"), PartitionSpec())
    split = jax.shard_map(draw_all, mesh=mesh, in_specs=specs, out_specs=specs[0])
    seeds, images = np.arange(spec["models"], dtype=np.int32), dataset.train_images
    program = jax.jit(split)
    return lambda: jax.block_until_ready(program(seeds, images))


def masks(spec: dict[str, Any]) -> Round:
    """One layerwise mask update of `models` models."""
    from prunejax import prune

    return _masks(spec, lambda params, masks: prune.layerwise_masks(params, masks, 0.9, _kernels))


def masks_sorted(spec: dict[str, Any]) -> Round:
    """The same by ranking every weight with two sorts."""
    import jax
    import jax.numpy as jnp

    def update(leaf, mask):  # noqa: ANN001, ANN202
        magnitudes = jnp.where(mask, jnp.abs(leaf), -1).ravel()
        ranks = jnp.argsort(jnp.argsort(magnitudes))
        return (ranks >= round(0.9 * leaf.size)).reshape(leaf.shape) & mask

    def update_all(params, masks):  # noqa: ANN001, ANN202
        return jax.tree.map(lambda leaf, mask: update(leaf, mask) if leaf.ndim == 4 else mask, params, masks)

    return _masks(spec, update_all)


def _kernels(path: tuple, leaf: Any) -> bool:  # noqa: ANN401
    return leaf.ndim == 4


def _masks(spec: dict[str, Any], update: Callable) -> Round:
    import jax

    from prunejax import population

    config = make_config(spec)
    state = population.init(config, "sup", population.members(config), random_dataset(spec))
    params, masks = jax.device_put((state.params["encoder"], state.masks["encoder"]))
    program = jax.jit(jax.vmap(update))
    return lambda: jax.block_until_ready(program(params, masks))


def masks_pytorch(spec: dict[str, Any]) -> Round:
    """`torch.nn.utils.prune.l1_unstructured` of every convolution of every model, from new masks."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch.nn.utils import prune  # pyright: ignore[reportMissingImports]

    from benchmarks.pytorch_model import WideResNet

    models = [WideResNet(spec["depth"], spec["widen"]) for _ in range(spec["models"])]
    convolutions = [module for model in models for module in model.modules() if isinstance(module, torch.nn.Conv2d)]

    def update() -> None:
        for convolution in convolutions:
            prune.l1_unstructured(convolution, "weight", 0.9)
            prune.remove(convolution, "weight")

    return update


def knn(spec: dict[str, Any]) -> Round:
    """Our probe as it is called by the evaluation."""
    from prunejax.neighbors import knn_predict

    train, labels, test = _features()
    return lambda: np.asarray(knn_predict(train, labels, test))


def knn_sklearn(spec: dict[str, Any]) -> Round:
    """scikit-learn's classifier, brute force."""
    from sklearn.neighbors import KNeighborsClassifier

    train, labels, test = _features()
    search = KNeighborsClassifier(30, algorithm="brute").fit(train, labels)
    return lambda: search.predict(test)


def knn_top_k(spec: dict[str, Any]) -> Round:
    """Our probe under `jit`, which searches by `lax.top_k`."""
    import jax

    from prunejax.neighbors import knn_predict

    arrays = jax.device_put(_features())
    program = jax.jit(knn_predict)
    return lambda: jax.block_until_ready(program(*arrays))


def _features() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    train, test = (rng.normal(size=(rows, 64)).astype(np.float32) for rows in (50_000, 2_000))
    return train, rng.integers(0, 10, len(train)).astype(np.int32), test


CONTESTANTS = {
    function.__name__: function
    for function in (
        *(ours, serial, naive, lax_map, pytorch, augmentation),
        *(masks, masks_sorted, masks_pytorch, knn, knn_sklearn, knn_top_k),
    )
}


def main() -> None:
    """Does rounds as they are asked for."""
    spec = json.loads(sys.argv[1])
    if "devices" in spec:
        import jax

        jax.config.update("jax_num_cpu_devices", spec["devices"])
    do_round = CONTESTANTS[spec["contestant"]](spec)
    for _ in sys.stdin:
        for _ in range(spec["steps"]):
            do_round()
        print(json.dumps({"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


if __name__ == "__main__":
    main()
