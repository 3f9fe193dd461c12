"""oneDNN's convolutions, which are inside jaxlib's wheel for Linux on x86-64.

XLA has a call for them and no longer a pass that makes it, so it is made here. That is XLA's
inside, which may change without notice: before a kind of convolution is computed by it in a
process, a small one is compiled and compared with XLA's own. On a processor for which oneDNN has no
kernels of a dtype the call ends the process, so the first of each dtype is tried in another one;
that it lived is noted in the user's cache.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax import Array, lax

from prunejax.cache import cache_dir
from prunejax.config.errors import in_one_line

CALL = "__onednn$convolution"
NUMBERS = ("NHWC", "HWIO", "NHWC")
"""The order of the dimensions of images, kernel and output, as `lax` writes it."""
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
"""How far two orders of summation may differ, by dtype, as a fraction of the largest output."""
TRIAL = "own.difference(own.Kind((3, 3), (1, 1), ((1, 1), (1, 1)), {dtype!r}))"
"""The call in another process, where its result does not matter."""
Pairs = tuple[tuple[int, int], ...]


class Kind(NamedTuple):
    """What convolutions have in common that are computed by the same code."""

    size: tuple[int, ...]
    """Rows and columns of the kernel."""
    strides: tuple[int, ...]
    padding: Pairs
    dtype: str

    def __str__(self) -> str:
        rows, columns = self.size
        return f"{rows}x{columns} stride {self.strides[0]} {self.dtype}"


def convolve(
    images: Array, kernel: Array, strides: Sequence[int], padding: Sequence[tuple[int, int]]
) -> Array:
    """Returns the convolution by oneDNN, `[batch, rows, columns, features]`.

    Args:
        images: NHWC.
        kernel: HWIO.
        strides: along height and width.
        padding: zeros above and below, then left and right.
    """

    def by_xla(images: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=NUMBERS)

    like = jax.eval_shape(by_xla, images, kernel)
    call = jax.ffi.ffi_call(
        CALL,
        jax.ShapeDtypeStruct(like.shape, like.dtype),
        custom_call_api_version=2,
        legacy_backend_config=_call_config(strides, padding),
    )
    return call(images, kernel)


def _call_config(strides: Sequence[int], padding: Sequence[tuple[int, int]]) -> str:
    """The call's parameters as XLA reads them: a protocol buffer in JSON, its numbers as text."""
    layout = {
        "dims": "4",
        "data": {"batch_dim": "0", "feature_dim": "3", "spatial_dims": ["1", "2"]},
    }
    filter_layout = {
        "input_feature_dim": "2",
        "output_feature_dim": "3",
        "spatial_dims": ["0", "1"],
    }
    window = {
        "pad_left": [str(low) for low, _ in padding],
        "pad_right": [str(high) for _, high in padding],
        "strides": [str(stride) for stride in strides],
        "window_dilations": ["1", "1"],
    }
    convolution = {
        "dims": "4",
        "input": layout,
        "output": layout,
        "kernel": {"dims": "4", "filter": filter_layout},
        "window": window,
        "feature_groups": "1",
    }
    return json.dumps({"onednn_conv_config": convolution})


@cache
def trouble(kind: Kind) -> str | None:
    """Why oneDNN's call cannot stand in for XLA's convolution of a kind here; None if it can.

    Also while something else is traced: what it compiles is small, and runs at once.
    """
    if kind.dtype not in TOLERANCE:
        return f"it has no {kind.dtype}"
    return _last_words(kind.dtype) or difference(kind)


@cache
def _last_words(dtype: str) -> str | None:
    """The last line of another process that the call of a dtype has ended; None if it works."""
    noted = _note_of(dtype)
    if noted.exists():
        return None
    setup = f"import sys; sys.path[:] = {sys.path!r}; from prunejax.nn import onednn as own; "
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", setup + TRIAL.format(dtype=dtype)],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        # A full or read-only home costs seconds at the next start, nothing else.
        with contextlib.suppress(OSError):
            noted.parent.mkdir(parents=True, exist_ok=True)
            noted.touch()
        return None
    message = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return f"its {dtype} ends the process ({message[:200]})"


def _note_of(dtype: str) -> Path:
    """The file that is there if the call of a dtype works, with this jaxlib on such a processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    # The same for all cores; other lines, for instance their frequency, change.
    named = {line for line in lines if line.startswith(("model name", "flags"))}
    processor = hashlib.sha256("".join(sorted(named)).encode()).hexdigest()[:16]
    version = importlib.metadata.version("jaxlib")
    return cache_dir() / "xla" / f"onednn-{version}-{processor}-{dtype}"


def difference(kind: Kind) -> str | None:
    """Why the call is not XLA's convolution of a kind; None if it is."""
    random = np.random.default_rng(0)
    side = 2 * max(kind.size)
    images = random.normal(size=(2, side, side, 16)).astype(kind.dtype)
    kernel = random.normal(size=(*kind.size, 16, 32)).astype(kind.dtype)

    def by_xla(images: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            images, kernel, kind.strides, kind.padding, dimension_numbers=NUMBERS
        )

    def by_onednn(images: Array, kernel: Array) -> Array:
        return convolve(images, kernel, kind.strides, kind.padding)

    outputs = []
    for function in (by_onednn, by_xla):
        try:
            compiled = jax.jit(function).lower(images, kernel).compile()
            outputs.append(np.asarray(compiled(images, kernel), np.float32))
        except Exception as error:  # of JAX or XLA, where the call is missing or has changed
            return in_one_line(error)
    ours, theirs = outputs
    difference_found = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if not difference_found <= TOLERANCE[kind.dtype]:
        return f"it differs from XLA's by {difference_found:.2g} of the largest"
    return None


def can_compute(kind: Kind) -> bool:
    """Whether oneDNN's call can be used for a kind; noted for `used`."""
    # jaxlib cannot write its call into the cache of compiled programs, and JAX says so of each.
    warnings.filterwarnings("ignore", "Error writing .* std::bad_alloc", UserWarning)
    why_not = trouble(kind)
    _USED[str(kind)] = "oneDNN" if why_not is None else f"XLA: {why_not}"
    return why_not is None


_USED: dict[str, str] = {}


def used() -> dict[str, str]:
    """What computes each kind of convolution for which oneDNN was requested in this process."""
    return dict(_USED)
