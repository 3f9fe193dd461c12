"""A convolution that a population can be vmapped over without becoming one grouped convolution.

`vmap` over kernels makes XLA emit `feature_group_count=models`, 6 times slower on CPU than one convolution per model.
Here the forward pass and both gradients are `custom_vmap` functions whose batching rule emits one plain convolution
per model, so that everything else stays fused over the population.
"""

from collections.abc import Callable, Sequence
from functools import cache

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

Padding = Sequence[tuple[int, int]]
Convolution = Callable[..., Array]


def convolution(strategy: str) -> Convolution:
    """A stand-in for `lax.conv_general_dilated` in `nn.Conv` (2-d, NHWC, no dilation, no groups).

    `unrolled` is one convolution per model, `grouped` what `vmap` makes of `lax`, `im2col` patches and a matmul.
    """
    return {"unrolled": _unrolled, "grouped": lax.conv_general_dilated, "im2col": _im2col}[strategy]


def _plain(images: Array, kernel: Array, strides: tuple[int, ...], padding: Padding) -> Array:
    """One model's convolution: XLA's, except where that is slow.

    On CPU it takes three times as long as matrix products for the gradients of a 1x1 convolution, and eight times as
    long for what leaves fewer rows than the kernel has.
    """
    height, width = kernel.shape[:2]
    rows = (images.shape[1] + sum(padding[0]) - height) // strides[0] + 1
    if jax.default_backend() == "cpu" and (height == width == 1 or rows < height):
        return _im2col(images, kernel, strides, padding)
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _per_model(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """`function` of two arrays, such that vmapping it calls it once per model."""
    mapped = custom_vmap(function)

    @mapped.def_vmap
    def rule(axis_size: int, in_batched: list[bool], left: Array, right: Array) -> tuple[Array, bool]:
        def member(array: Array, batched: bool, index: int) -> Array:
            return array[index] if batched else array

        outputs = [mapped(member(left, in_batched[0], i), member(right, in_batched[1], i)) for i in range(axis_size)]
        return jnp.stack(outputs), True

    return mapped


@cache
def _make_unrolled(
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    image_shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
) -> Convolution:
    @jax.named_scope("input_gradient")
    def image_gradient(gradient: Array, kernel: Array) -> Array:
        like = jax.ShapeDtypeStruct(image_shape, kernel.dtype)
        return jax.linear_transpose(lambda images: _plain(images, kernel, strides, padding), like)(gradient)[0]

    @jax.named_scope("kernel_gradient")
    def kernel_gradient(images: Array, gradient: Array) -> Array:
        like = jax.ShapeDtypeStruct(kernel_shape, images.dtype)
        return jax.linear_transpose(lambda kernel: _plain(images, kernel, strides, padding), like)(gradient)[0]

    forward = _per_model(lambda images, kernel: _plain(images, kernel, strides, padding))
    to_images, to_kernel = _per_model(image_gradient), _per_model(kernel_gradient)

    @jax.custom_vjp
    def convolve(images: Array, kernel: Array) -> Array:
        return forward(images, kernel)

    # The barriers keep XLA from computing its operands anew, element by element, within the transpositions that the
    # kernel's gradient begins with: on CPU those took 40% of a step. See `programs.CPU_OPTIONS`.
    def remember(images: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
        images = lax.optimization_barrier(images)
        return forward(images, kernel), (images, kernel)

    def backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
        images, kernel = saved
        gradient = lax.optimization_barrier(gradient)
        return to_images(gradient, kernel), to_kernel(images, gradient)

    convolve.defvjp(remember, backward)
    return convolve


def _unrolled(images: Array, kernel: Array, strides: tuple[int, ...], padding: Padding, **unused: object) -> Array:
    return _make_unrolled(tuple(strides), tuple(padding), images.shape, kernel.shape)(images, kernel)


def _im2col(images: Array, kernel: Array, strides: tuple[int, ...], padding: Padding, **unused: object) -> Array:
    height, width, channels, features = kernel.shape
    padded = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    rows, columns = (
        (size - k) // stride + 1 for size, k, stride in zip(padded.shape[1:3], (height, width), strides, strict=True)
    )
    patches = [
        padded[:, i : i + rows * strides[0] : strides[0], j : j + columns * strides[1] : strides[1]]
        for i in range(height)
        for j in range(width)
    ]
    patches = jnp.concatenate([patch[:, :rows, :columns] for patch in patches], axis=-1)
    patches = lax.optimization_barrier(patches)  # or each of its elements is found anew in the product
    return patches @ kernel.reshape(height * width * channels, features)
