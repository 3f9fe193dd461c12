"""The convolution under vmap: the strategies compute the same by different programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lowered import convolutions, group_counts

import benchmarks.strategies  # noqa: F401
from prunejax.nn.conv import NUMBERS, convolution

PAD_ONE = ((1, 1), (1, 1))


def population_gradient(strategy, strides):
    """Of a scalar function of the convolution, per model, by images and kernel."""
    convolve = convolution(strategy)

    def loss(images, kernel):
        output = convolve(images, kernel, strides, PAD_ONE, dimension_numbers=NUMBERS)
        return jnp.sum(jnp.sin(output))

    return jax.vmap(jax.value_and_grad(loss, argnums=(0, 1)))


@pytest.mark.parametrize("size", [16, 8, 7, 2])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("strategy", ["unrolled", "onednn", "im2col"])
def test_every_strategy_computes_the_same(strategy, strides, size):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(3, 2, size, size, 4)), jnp.float32)
    kernels = jnp.asarray(rng.normal(size=(3, 3, 3, 4, 5)), jnp.float32)
    ours = population_gradient(strategy, strides)(images, kernels)
    reference = population_gradient("grouped", strides)(images, kernels)
    for mine, theirs in zip(jax.tree.leaves(ours), jax.tree.leaves(reference), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("strategy", ["unrolled", "onednn", "im2col", "grouped"])
def test_a_convolution_is_the_sum_over_its_window(strategy):
    """At stride 2 and padded by one, the window of output (i, j) starts at (2i-1, 2j-1)."""
    rng = np.random.default_rng(1)
    images = rng.normal(size=(2, 5, 7, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 4)).astype(np.float32)
    output = convolution(strategy)(
        jnp.asarray(images), jnp.asarray(kernel), (2, 2), PAD_ONE, dimension_numbers=NUMBERS
    )
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((2, 3, 4, 4))
    for i in range(3):
        for j in range(4):
            window = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            expected[:, i, j] = np.einsum("bhwc,hwcf->bf", window, kernel)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("strategy", "groups"), [("unrolled", {1}), ("im2col", set()), ("grouped", {1, 3})]
)
def test_only_the_grouped_strategy_makes_a_grouped_convolution(strategy, groups):
    images = jnp.zeros((3, 2, 8, 8, 4))
    kernels = jnp.zeros((3, 3, 3, 4, 5))
    text = jax.jit(population_gradient(strategy, (1, 1))).lower(images, kernels).as_text()
    assert group_counts(text) == groups


def test_one_plain_convolution_per_model_and_pass_is_emitted():
    images = jnp.zeros((3, 2, 8, 8, 4))
    kernels = jnp.zeros((3, 3, 3, 4, 5))
    text = jax.jit(population_gradient("unrolled", (1, 1))).lower(images, kernels).as_text()
    passes = ["forward", "input gradient", "kernel gradient"]
    assert len(convolutions(text)) == len(images) * len(passes)


def test_images_shared_by_the_population_are_not_copied_per_model():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 4)), jnp.float32)
    kernels = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3, 3, 4, 5)), jnp.float32)

    def convolve(kernel):
        return convolution("unrolled")(images, kernel, (1, 1), PAD_ONE)

    program = jax.jit(jax.vmap(convolve))
    plain = []
    for kernel in kernels:
        one = lax.conv_general_dilated(images, kernel, (1, 1), PAD_ONE, dimension_numbers=NUMBERS)
        plain.append(one)
    np.testing.assert_allclose(program(kernels), jnp.stack(plain), rtol=1e-5, atol=1e-5)
    assert "tensor<3x2x8x8x4xf32>" not in program.lower(kernels).as_text()
