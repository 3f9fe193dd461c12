"""Batch normalisation against Flax's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunejax.nn.norm import BatchNorm


@pytest.mark.parametrize("shape", [(32, 8, 8, 16), (7, 3, 5, 4), (1, 4, 4, 2)])
def test_it_normalises_learns_and_remembers_as_flax(shape):
    rng = np.random.default_rng(0)
    channels = shape[-1:]
    x = rng.normal(0.5, 2, shape).astype(np.float32)
    cotangent = rng.normal(size=shape).astype(np.float32)
    variables = {
        "params": {
            "scale": rng.normal(size=channels).astype(np.float32),
            "bias": rng.normal(size=channels).astype(np.float32),
        },
        "batch_stats": {
            "mean": rng.normal(size=channels).astype(np.float32),
            "var": np.ones(channels, np.float32),
        },
    }

    def run(module):
        """The output, the gradients by parameters and input, and the new statistics."""

        def apply(params, x):
            return module.apply(variables | {"params": params}, x, mutable=["batch_stats"])

        output, pullback, updated = jax.vjp(apply, variables["params"], x, has_aux=True)
        return output, pullback(cotangent), updated

    ours = run(BatchNorm(train=True))
    theirs = run(nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5))
    for mine, flax in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(mine, flax, rtol=1e-4, atol=1e-4)
    assert jax.tree.structure(ours[2]) == jax.tree.structure(theirs[2])

    # In evaluation mode.
    frozen = BatchNorm(train=False).apply(variables, x)
    flax = nn.BatchNorm(use_running_average=True, epsilon=1e-5).apply(variables, x)
    np.testing.assert_allclose(frozen, flax, rtol=1e-5, atol=1e-5)


def test_initialising_leaves_the_statistics_at_zero_and_one():
    x = jnp.full((4, 2, 2, 3), 5.0)
    ours = BatchNorm(train=True).init(jax.random.key(0), x)
    theirs = nn.BatchNorm(use_running_average=False).init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_bfloat16_features_have_float32_statistics():
    x = jnp.linspace(0, 300, 4096, dtype=jnp.bfloat16).reshape(64, 8, 8, 1)
    module = BatchNorm(train=True)
    variables = module.init(jax.random.key(0), x)
    y, updated = module.apply(variables, x, mutable=["batch_stats"])
    mean = updated["batch_stats"]["mean"]
    assert y.dtype == jnp.bfloat16
    assert mean.dtype == jnp.float32
    np.testing.assert_allclose(mean, 0.1 * 150, rtol=1e-3)
    assert float(jnp.std(y.astype(jnp.float32))) == pytest.approx(1, rel=1e-2)

    def cubes(x):
        return jnp.sum(module.apply(variables, x, mutable=["batch_stats"])[0] ** 3)

    gradient = jax.grad(cubes)(x)
    assert gradient.dtype == jnp.bfloat16
    assert bool(jnp.isfinite(gradient).all())


def test_the_sums_round_no_more_than_float64_shows():
    """131,072 values around 1000: added one by one, the mean would be off in the fourth digit."""
    x = np.random.default_rng(0).normal(1000, 1, (128, 32, 32, 2)).astype(np.float32)
    module = BatchNorm(train=True)
    variables = module.init(jax.random.key(0), x)
    _, updated = module.apply(variables, x, mutable=["batch_stats"])
    exact = x.mean((0, 1, 2), dtype=np.float64)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * exact, rtol=1e-6)
