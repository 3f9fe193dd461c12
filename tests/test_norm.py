"""Batch normalisation against Flax's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunejax.norm import BatchNorm


@pytest.mark.parametrize("shape", [(32, 8, 8, 16), (7, 3, 5, 4), (1, 4, 4, 2)])
def test_it_normalises_learns_and_remembers_as_flax(shape):
    rng = np.random.default_rng(0)
    x, cotangent = rng.normal(0.5, 2, shape).astype(np.float32), rng.normal(size=shape).astype(np.float32)
    variables = {
        "params": {name: rng.normal(size=shape[-1:]).astype(np.float32) for name in ("scale", "bias")},
        "batch_stats": {"mean": rng.normal(size=shape[-1:]).astype(np.float32), "var": np.ones(shape[-1:], np.float32)},
    }
    flax = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)
    ours = BatchNorm(train=True)

    def run(module):
        def apply(params, x):
            return module.apply(variables | {"params": params}, x, mutable=["batch_stats"])

        outputs, pullback, updated = jax.vjp(apply, variables["params"], x, has_aux=True)
        return outputs, pullback(cotangent), updated

    for mine, theirs in zip(jax.tree.leaves(run(ours)), jax.tree.leaves(run(flax)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)
    assert jax.tree.structure(run(ours)[2]) == jax.tree.structure(run(flax)[2])
    frozen = BatchNorm(train=False).apply(variables, x)
    theirs = nn.BatchNorm(use_running_average=True, epsilon=1e-5).apply(variables, x)
    np.testing.assert_allclose(frozen, theirs, rtol=1e-5, atol=1e-5)


def test_initialising_leaves_the_statistics_at_zero_and_one():
    x = jnp.full((4, 2, 2, 3), 5.0)
    theirs = nn.BatchNorm(use_running_average=False).init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, BatchNorm(train=True).init(jax.random.key(0), x), theirs)


def test_bfloat16_features_have_float32_statistics():
    x = jnp.linspace(0, 300, 4096, dtype=jnp.bfloat16).reshape(64, 8, 8, 1)
    module = BatchNorm(train=True)
    variables = module.init(jax.random.key(0), x)
    y, updated = module.apply(variables, x, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert updated["batch_stats"]["mean"].dtype == jnp.float32
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * 150, rtol=1e-3)
    assert float(jnp.std(y.astype(jnp.float32))) == pytest.approx(1, rel=1e-2)
    gradient = jax.grad(lambda x: jnp.sum(module.apply(variables, x, mutable=["batch_stats"])[0] ** 3))(x)
    assert gradient.dtype == jnp.bfloat16
    assert bool(jnp.isfinite(gradient).all())


def test_the_sums_round_no_more_than_float64_shows():
    """131,072 values around 1000: added one by one in float32 their mean would be off in the fourth digit."""
    x = np.random.default_rng(0).normal(1000, 1, (128, 32, 32, 2)).astype(np.float32)
    module = BatchNorm(train=True)
    _, updated = module.apply(module.init(jax.random.key(0), x), x, mutable=["batch_stats"])
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * x.mean((0, 1, 2), dtype=np.float64), rtol=1e-6)
