"""Several processes that train one population: how they find each other, and what they agree on.

All run the same command, each with the devices of its host (JAX's multi-controller runtime). Where
there is one process all of this is trivial. Each function must be called by all processes, in the
same order.
"""

import collections
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from prunejax.config import UserError
from prunejax.types import Array

T = TypeVar("T")
SILENCE_S = 30
"""Seconds without a heartbeat after which a process counts as failed, and the others stop."""


def connect(
    address: str | None = None, processes: int | None = None, index: int | None = None
) -> None:
    """Joins the other processes; to be called before JAX computes anything.

    Args:
        address: host:port of the first process; None: Slurm, Open MPI or a TPU's metadata say
            all three.
        processes: how many there are.
        index: which of them this is, from 0.

    Raises:
        UserError: if they cannot be found, or do not all come.
    """
    # The service would take SIGTERM for itself.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            address,
            processes,
            index,
            heartbeat_timeout_seconds=SILENCE_S,
            shutdown_timeout_seconds=SILENCE_S,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"cannot join the other processes: {error}") from None
    counts = collections.Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        each = [counts[process] for process in sorted(counts)]
        raise UserError(f"the processes have different numbers of devices: {each}")


def alone() -> bool:
    """Whether there is one process only."""
    return jax.process_count() == 1


def is_first() -> bool:
    """Whether this is the process that writes what one process writes."""
    return jax.process_index() == 0


def gather_texts(text: str) -> list[str]:
    """The text of each process, in their order."""
    if alone():
        return [text]
    own = np.frombuffer(text.encode(errors="backslashreplace"), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(own.size))
    padded = np.pad(own, (0, sizes.max() - own.size))
    texts = multihost_utils.process_allgather(padded)
    return [bytes(line[:size]).decode() for line, size in zip(texts, sizes, strict=True)]


def on_all_processes(work: Callable[[], T]) -> T:
    """Returns what `work` returns, once all processes have done theirs.

    Raises:
        UserError: in all processes, if one of them raised an exception. One that is neither a
            UserError nor an OSError is raised unchanged in its own process.
    """
    if alone():
        return work()
    result, failure, message = None, None, ""
    try:
        result = work()
    except (UserError, OSError) as error:
        message = str(error) or type(error).__name__
    except Exception as error:
        failure = error
        message = f"process {jax.process_index()}: {type(error).__name__}: {error}"
    messages = [text for text in gather_texts(message) if text]
    if failure is not None:
        raise failure
    if messages:
        raise UserError(messages[0])
    return result  # pyright: ignore[reportReturnType]


def require_same(what: str, text: str) -> None:
    """Refuses processes that have different texts.

    Raises:
        UserError: naming `what` and both texts.
    """
    texts = gather_texts(text)
    for index, other in enumerate(texts):
        if other != texts[0]:
            raise UserError(
                f"{what} of process {index} is not that of process 0: {other}, not {texts[0]}"
            )


def min_over_processes(value: float) -> float:
    """The smallest of the processes' values, in single precision."""
    return float(np.min(multihost_utils.process_allgather(np.float32(value))))


def any_of(flag: bool) -> bool:
    """Whether the flag is true in any process."""
    return min_over_processes(0.0 if flag else 1.0) == 0


def owners(count: int) -> np.ndarray:
    """Which process has each of `count` pieces of work, int `[count]`, ascending."""
    return np.arange(count) * jax.process_count() // max(count, 1)


def merge(array: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Each row of `array` as the process that owns it has it."""
    if alone():
        return array
    return multihost_utils.process_allgather(array)[owner, np.arange(len(array))]


def gather(array: Array) -> np.ndarray:
    """Returns an array that is spread over the devices of all processes, complete, in NumPy."""
    return multihost_utils.process_allgather(array, tiled=True)
