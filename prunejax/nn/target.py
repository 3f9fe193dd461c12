"""What a program is traced for: layers that differ between platforms ask here.

Which devices a program is for is known where it is built, and not while a layer is traced: JAX's
default may be another platform, and a program may be lowered for one that is not at hand.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

import jax


class Target(NamedTuple):
    """The devices of a program."""

    platform: str
    """As JAX calls it: `cpu`, `gpu`, `cuda`, `rocm` or `tpu`."""
    shares_batch: bool = False
    """Whether several devices share one model's batch."""


_TARGET: ContextVar[Target | None] = ContextVar("target", default=None)


def target() -> Target:
    """Returns the devices of the program that is being traced; by default JAX's own platform."""
    return _TARGET.get() or Target(jax.default_backend())


@contextlib.contextmanager
def traced_for(devices: Target) -> Iterator[None]:
    """While it lasts, programs are traced for these devices."""
    token = _TARGET.set(devices)
    try:
        yield
    finally:
        _TARGET.reset(token)
