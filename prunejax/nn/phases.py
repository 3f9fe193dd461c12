"""The input gradient of a convolution, as convolutions that have no strides.

XLA spreads the gradient over the image, zeros between its positions, and convolves that: three
quarters of its products are by zero under a stride of two. Here the image's positions are divided
by their remainder to the stride. All of one remainder meet the same elements of the kernel, so that
each of these divisions is a convolution without strides, of 1, 2, 2 and 4 elements for 3x3 under a
stride of two, and the image is put together from them. Without strides there is one of them, the
convolution by the kernel turned round.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

Pair = tuple[int, int]
Convolve = Callable[[Array, Array, tuple[int, ...], Sequence[Pair]], Array]
"""`(images, kernel, strides, padding) -> output`."""


class Phase(NamedTuple):
    """Along one axis the image's positions of one remainder."""

    taps: slice
    """The elements of the kernel that they meet, in the order of the gradient's positions."""
    padding: Pair
    """Zeros before and after the gradient, so that there is one output for each position."""


def phases(size: int, outputs: int, taps: int, stride: int, before: int) -> list[Phase] | None:
    """The phases of one axis, by their remainder.

    Args:
        size: of the image.
        outputs: of the convolution, the size of the gradient.
        taps: of the kernel.
        stride: of the convolution.
        before: its zeros before the image.

    Returns:
        None where the image is no multiple of the stride, or a phase meets no tap, or not all of
        the gradient: then this is no way to compute it.
    """
    if size % stride:
        return None
    found = []
    for remainder in range(stride):
        # Output p meets the image at position `stride * p + tap - before`.
        last = max((t for t in range(taps) if (remainder + before - t) % stride == 0), default=None)
        if last is None:
            return None
        met = len(range(last, -1, -stride))
        low = -((remainder + before - last) // stride)
        high = size // stride - outputs - low + met - 1
        if low < 0 or high < 0:
            return None
        found.append(Phase(slice(last, None, -stride), (low, high)))
    return found


def input_gradient(
    gradient: Float[Array, "batch rows columns features"],
    kernel: Float[Array, "height width channels features"],
    image_shape: tuple[int, ...],
    strides: Sequence[int],
    padding: Sequence[Pair],
    convolve: Convolve,
) -> Float[Array, "batch image_height image_width channels"] | None:
    """The gradient by the images, of the gradient by the outputs.

    Args:
        gradient: by the outputs.
        kernel: of the convolution.
        image_shape: (batch, height, width, channels).
        strides: of the convolution.
        padding: of the convolution.
        convolve: computes a convolution without strides.

    Returns:
        None where this is no way to compute it, see `phases`.
    """
    axes = []
    for axis in (0, 1):
        found = phases(
            size=image_shape[axis + 1],
            outputs=gradient.shape[axis + 1],
            taps=kernel.shape[axis],
            stride=strides[axis],
            before=padding[axis][0],
        )
        if found is None:
            return None
        axes.append(found)

    towards_image = kernel.swapaxes(2, 3)
    by_row = []
    for row in axes[0]:
        by_column = []
        for column in axes[1]:
            met = towards_image[row.taps, column.taps]
            around = (row.padding, column.padding)
            by_column.append(convolve(gradient, met, (1, 1), around))
        by_row.append(jnp.stack(by_column, axis=3))
    # Without the barrier each use of an element would look up which division it is of.
    return lax.optimization_barrier(jnp.stack(by_row, axis=2).reshape(image_shape))
