"""The input gradient by phases: equal to XLA's, and nothing is multiplied by spread zeros."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from prunejax.nn.conv import NUMBERS, convolution
from prunejax.nn.phases import input_gradient, phases


def convolve(images, kernel, strides, padding):
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=NUMBERS)


@pytest.mark.parametrize("size", [(8, 8), (12, 6), (9, 9), (4, 8)])
@pytest.mark.parametrize("taps", [(3, 3), (1, 1), (5, 3), (2, 4), (3, 1)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1), (3, 3)])
@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((0, 0), (0, 0)), ((0, 1), (2, 1))])
def test_it_is_the_transposed_convolution_or_says_that_it_is_not(size, taps, strides, padding):
    shape = (2, *size, 3)
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(*taps, 3, 4)), jnp.float32)
    forward = jax.eval_shape(
        lambda images: convolve(images, kernel, strides, padding),
        jax.ShapeDtypeStruct(shape, jnp.float32),
    )
    gradient = jnp.asarray(rng.normal(size=forward.shape), jnp.float32)
    ours = input_gradient(gradient, kernel, shape, strides, padding, convolve)
    divides = all(length % stride == 0 for length, stride in zip(size, strides, strict=True))
    covers = all(length >= stride for length, stride in zip(taps, strides, strict=True))
    if ours is None:
        usual = strides in ((1, 1), (2, 2)) and taps == (3, 3) and padding == ((1, 1), (1, 1))
        assert not (divides and usual)
        return
    assert divides
    assert covers
    transpose = jax.linear_transpose(
        lambda images: convolve(images, kernel, strides, padding),
        jax.ShapeDtypeStruct(shape, jnp.float32),
    )
    np.testing.assert_allclose(ours, transpose(gradient)[0], rtol=1e-4, atol=1e-4)


def test_three_taps_under_a_stride_of_two_are_one_and_two():
    even, odd = phases(size=32, outputs=16, taps=3, stride=2, before=1)
    assert [0, 1, 2][even.taps] == [1]
    assert even.padding == (0, 0)
    assert [0, 1, 2][odd.taps] == [2, 0]
    assert odd.padding == (0, 1)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other platforms have XLA's own")
def test_on_a_cpu_no_gradient_is_spread_with_zeros():
    def loss(images, kernel):
        return convolution("unrolled")(images, kernel, (2, 2), ((1, 1), (1, 1))).sum()

    images, kernel = jnp.ones((2, 16, 16, 4)), jnp.ones((3, 3, 4, 8))
    text = jax.jit(jax.grad(loss)).lower(images, kernel).as_text()
    assert "convolution" in text
    assert "lhs_dilate = [2, 2]" not in text
    spread = jax.linear_transpose(lambda x: convolve(x, kernel, (2, 2), ((1, 1), (1, 1))), images)
    assert "lhs_dilate = [2, 2]" in jax.jit(spread).lower(jnp.ones((2, 8, 8, 8))).as_text()
