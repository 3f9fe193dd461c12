"""A convolution that a population can be vmapped over without becoming one grouped convolution.

`vmap` over kernels makes XLA emit `feature_group_count=models`, 6 times slower on CPU than one
convolution per model. Here the forward pass and both gradients are `custom_vmap` functions whose
batching rule emits one plain convolution per model, so that everything else stays fused over the
population.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jaxtyping import Float

from prunejax.config import UserError
from prunejax.nn import onednn
from prunejax.nn.onednn import NUMBERS
from prunejax.nn.phases import input_gradient as by_phases
from prunejax.nn.target import target

Images = Float[Array, "batch height width channels"]
Kernel = Float[Array, "rows columns channels features"]
Output = Float[Array, "batch _ _ features"]
Strides = tuple[int, ...]
Padding = Sequence[tuple[int, int]]
"""Zeros above and below, then left and right."""
Convolution = Callable[..., Array]


def convolution(strategy: str) -> Convolution:
    """Returns a stand-in for `lax.conv_general_dilated` in `nn.Conv` (NHWC, no dilation or groups).

    Raises:
        UserError: if there is no strategy of that name in `STRATEGIES`.
    """
    if strategy not in STRATEGIES:
        raise UserError(
            f"execution.convolution is {strategy!r}; there are: {', '.join(STRATEGIES)}"
        )
    return STRATEGIES[strategy]


# --------------------------------------------- one convolution per model


def _unrolled(
    images: Images,
    kernel: Kernel,
    strides: Strides,
    padding: Padding,
    by_onednn: bool,
    **unused: object,
) -> Output:
    # A call is not divided among devices.
    by_onednn = by_onednn and target().platform == "cpu" and not target().shares_batch
    convolve = _make_unrolled(
        tuple(strides), tuple(padding), images.shape, kernel.shape, target().platform, by_onednn
    )
    return convolve(images, kernel)


@cache
def _make_unrolled(
    strides: Strides,
    padding: tuple[tuple[int, int], ...],
    image_shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    platform: str,
    by_onednn: bool,
) -> Convolution:
    """Returns `(images, kernel) -> output`; the shapes are one model's."""

    def plain(images: Images, kernel: Kernel) -> Output:
        return _plain(images, kernel, strides, padding, platform)

    def fast(images: Images, kernel: Kernel, strides: Strides, padding: Padding) -> Output:
        if by_onednn and _onednn_can(images, kernel, strides, padding):
            return onednn.convolve(images, kernel, strides, padding)
        return _plain(images, kernel, strides, padding, platform)

    @jax.named_scope("input_gradient")
    def image_gradient(gradient: Array, kernel: Kernel) -> Images:
        like = jax.ShapeDtypeStruct(image_shape, kernel.dtype)
        # Without strides XLA's own is as fast, and a small convolution is a matrix product.
        worthwhile = platform == "cpu" and (by_onednn or set(strides) != {1})
        if worthwhile and not _is_small(like, kernel, strides, padding):
            found = by_phases(gradient, kernel, image_shape, strides, padding, fast)
            if found is not None:
                return found
        transpose = jax.linear_transpose(lambda images: plain(images, kernel), like)
        return transpose(gradient)[0]

    @jax.named_scope("kernel_gradient")
    def kernel_gradient(images: Images, gradient: Array) -> Kernel:
        like = jax.ShapeDtypeStruct(kernel_shape, images.dtype)
        transpose = jax.linear_transpose(lambda kernel: plain(images, kernel), like)
        return transpose(gradient)[0]

    forward = _per_model(lambda images, kernel: fast(images, kernel, strides, padding))
    to_images = _per_model(image_gradient)
    to_kernel = _per_model(kernel_gradient)

    @jax.custom_vjp
    def convolve(images: Images, kernel: Kernel) -> Output:
        return forward(images, kernel)

    # The barriers keep XLA from computing its operands anew, element by element, within the
    # transpositions at the start of the kernel's gradient: on CPU those took 40% of a step.
    # They serve only where the compiler's option is set that keeps them (`training.programs`).
    def remember(images: Images, kernel: Kernel) -> tuple[Array, tuple[Array, Array]]:
        images = lax.optimization_barrier(images)
        return forward(images, kernel), (images, kernel)

    def backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
        images, kernel = saved
        gradient = lax.optimization_barrier(gradient)
        return to_images(gradient, kernel), to_kernel(images, gradient)

    convolve.defvjp(remember, backward)
    return convolve


def _onednn_can(images: Images, kernel: Kernel, strides: Strides, padding: Padding) -> bool:
    """Whether oneDNN can compute this convolution, and nothing else is faster."""
    if _is_small(images, kernel, strides, padding):
        return False
    kind = onednn.Kind(kernel.shape[:2], tuple(strides), tuple(padding), images.dtype.name)
    return onednn.can_compute(kind)


def _per_model(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """`function` of two arrays, such that vmapping it calls it once per model."""
    mapped = custom_vmap(function)

    @mapped.def_vmap
    def rule(
        axis_size: int, in_batched: list[bool], left: Array, right: Array
    ) -> tuple[Array, bool]:
        # An array that all models share, images for instance, is not copied for each.
        left_batched, right_batched = in_batched
        outputs = []
        for model in range(axis_size):
            own_left = left[model] if left_batched else left
            own_right = right[model] if right_batched else right
            outputs.append(mapped(own_left, own_right))
        return jnp.stack(outputs), True

    return mapped


def _plain(
    images: Images, kernel: Kernel, strides: Strides, padding: Padding, platform: str
) -> Output:
    """One model's convolution: XLA's, except where that is slow.

    On CPU it takes three times as long as matrix products for the gradients of a 1x1 convolution,
    and eight times as long for what leaves fewer rows than the kernel has.
    """
    if platform == "cpu" and _is_small(images, kernel, strides, padding):
        return im2col(images, kernel, strides, padding)
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=NUMBERS)


def _is_small(
    images: Images | jax.ShapeDtypeStruct, kernel: Kernel, strides: Strides, padding: Padding
) -> bool:
    """Whether the kernel has one position, or more rows than it leaves."""
    height, width = kernel.shape[:2]
    padded_height = images.shape[1] + sum(padding[0])
    output_height = (padded_height - height) // strides[0] + 1
    return height == width == 1 or output_height < height


# ---------------------------------------------- patches and a matrix product


def im2col(
    images: Images,
    kernel: Kernel,
    strides: Strides,
    padding: Padding,
    **unused: object,
) -> Output:
    """Computes a convolution as a matrix product of patches.

    Args:
        images: `[batch, height, width, channels]`.
        kernel: `[rows, columns, channels, features]`.
        strides: along height and width.
        padding: zeros above and below, then left and right.
        unused: the other arguments of `lax.conv_general_dilated`.
    """
    height, width, channels, features = kernel.shape
    down, right = strides
    padded = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    rows = (padded.shape[1] - height) // down + 1
    columns = (padded.shape[2] - width) // right + 1

    # What each element of the kernel meets, at all positions of the output.
    patches = []
    for i in range(height):
        for j in range(width):
            met = padded[:, i : i + rows * down : down, j : j + columns * right : right]
            patches.append(met)
    patches = jnp.concatenate(patches, axis=-1)

    # Without the barrier each element of the patches is found anew in the product.
    patches = lax.optimization_barrier(patches)
    return patches @ kernel.reshape(height * width * channels, features)


STRATEGIES: dict[str, Convolution] = {
    "unrolled": partial(_unrolled, by_onednn=False),
    "onednn": partial(_unrolled, by_onednn=True),
}
"""How convolutions of many models are computed: one per model by XLA, or by oneDNN's calls on a CPU
that has them. Benchmarks and tests add what these are compared with."""
