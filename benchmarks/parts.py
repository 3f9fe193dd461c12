"""Contestants that do one part of a study's work: augmentation, mask updates, k-NN probes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from benchmarks.problem import random_dataset, stage_spec_of
from benchmarks.spec import Round, Spec
from prunejax import measures, pruning
from prunejax.training import population
from prunejax.training.devices import make_mesh
from prunejax.training.members import members_of
from prunejax.training.spec import make_batch
from prunejax.training.state import key_for
from prunejax.types import Array, Scalar, Tree

SPARSITY = 0.9
"""That the masks are updated to."""

# -------------------------------------------------------------- augmentation


def augmentation(spec: Spec) -> Round:
    """A step's batches of all models: augmented and normalised, split over the devices."""
    dataset = random_dataset(spec)
    stage_spec = stage_spec_of(spec, dataset)
    draw = make_batch(stage_spec.config, stage_spec.objective)

    def draw_all(seeds: Array, images: Array) -> Array:
        batch = images[: spec.batch]

        def draw_one(seed: Scalar) -> Array:
            return draw(key_for(seed, "augment"), batch)

        return jax.vmap(draw_one)(seeds)

    mesh = make_mesh(stage_spec.config.execution, spec.models)
    per_model, shared = PartitionSpec("models"), PartitionSpec()
    split = jax.shard_map(draw_all, mesh=mesh, in_specs=(per_model, shared), out_specs=per_model)
    program = jax.jit(split)
    seeds = np.arange(spec.models, dtype=np.int32)
    images = dataset.train_images
    return lambda: jax.block_until_ready(program(seeds, images))


# -------------------------------------------------------------- mask updates


def masks(spec: Spec) -> Round:
    """One layerwise mask update of all models, as `training.step` makes it."""

    def update(params: Tree, masks: Tree) -> Tree:
        return pruning.layerwise_masks(params, masks, SPARSITY)

    return _updates(spec, update)


def masks_sorted(spec: Spec) -> Round:
    """The same by ranking every weight with two sorts."""

    def update_leaf(leaf: Array, mask: Array) -> Array:
        if leaf.ndim != 4:  # no kernel of a convolution
            return mask
        magnitudes = jnp.where(mask, jnp.abs(leaf), -1).ravel()
        ranks = jnp.argsort(jnp.argsort(magnitudes))
        count = round(SPARSITY * leaf.size)
        return (ranks >= count).reshape(leaf.shape) & mask

    def update(params: Tree, masks: Tree) -> Tree:
        return jax.tree.map(update_leaf, params, masks)

    return _updates(spec, update)


def _updates(spec: Spec, update: Callable[[Tree, Tree], Tree]) -> Round:
    """`update(params, masks) -> masks` of the encoder, over all models."""
    stage_spec = stage_spec_of(spec, random_dataset(spec))
    state = population.init(stage_spec, members_of(stage_spec.config))
    params = jax.device_put(state.params["encoder"])
    masks = jax.device_put(state.masks["encoder"])
    program = jax.jit(jax.vmap(update))
    return lambda: jax.block_until_ready(program(params, masks))


# ---------------------------------------------------------------- k-NN probes


def knn(spec: Spec) -> Round:
    """Our probe as it is called by the measures."""
    del spec
    train, labels, test = _features()
    return lambda: np.asarray(measures.knn_predict(train, labels, test))


def knn_sklearn(spec: Spec) -> Round:
    """scikit-learn's classifier, brute force."""
    del spec
    from sklearn.neighbors import KNeighborsClassifier

    train, labels, test = _features()
    search = KNeighborsClassifier(30, algorithm="brute").fit(train, labels)
    return lambda: search.predict(test)


def knn_top_k(spec: Spec) -> Round:
    """Our probe under `jit`, which searches by `lax.top_k`."""
    del spec
    train, labels, test = jax.device_put(_features())
    program = jax.jit(measures.knn_predict)
    return lambda: jax.block_until_ready(program(train, labels, test))


def _features() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random `[50000, 64]` to fit, their labels of ten classes, and `[2000, 64]` to predict."""
    rng = np.random.default_rng(0)
    train = rng.normal(size=(50_000, 64)).astype(np.float32)
    test = rng.normal(size=(2_000, 64)).astype(np.float32)
    labels = rng.integers(0, 10, len(train)).astype(np.int32)
    return train, labels, test
