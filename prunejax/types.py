"""Aliases for arrays, trees and paths that all packages share."""

import pathlib
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Num

Array = jax.Array | np.ndarray
Key = jax.Array
"""A key of JAX's random number generator."""
Scalar = int | float | np.integer | np.floating | Num[Array, ""]
Path = pathlib.Path | epath.Path
"""On a disk, or in a bucket (`gs://`, `s3://`)."""
Tree = Any
"""A pytree of arrays, for instance the nested dictionary `params`."""
