"""Images made smaller: each new pixel is the mean of the area that it covers."""

import numpy as np
from jaxtyping import UInt8

from prunejax.config import UserError


def averaged(
    image: UInt8[np.ndarray, "height width channels"], size: int
) -> UInt8[np.ndarray, "size size channels"]:
    """An image averaged over areas to another height and width, by Pillow's box filter.

    An image that is not square is squeezed.

    Args:
        image: of any number of channels, each of which is averaged by itself.
        size: the new height and width.

    Raises:
        UserError: if the image is smaller than that.
    """
    from PIL import Image

    height, width, channels = image.shape
    if min(height, width) < size:
        raise UserError(
            f"data.image_size is {size}, but an image is {height}x{width}; choose one that no "
            "image is smaller than"
        )
    averages = []
    for channel in range(channels):
        plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
        averages.append(np.asarray(plane.resize((size, size), Image.Resampling.BOX)))
    return np.stack(averages, axis=-1)
