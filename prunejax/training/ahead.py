"""Programs that are compiled in the background, before the run that needs them begins.

A compiler works on one core, and so does tracing: while one experiment trains, the programs of the
next are made. On a GPU the next one's trial kernels would disturb this one's, so there it is not
done.
"""

import dataclasses
import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from prunejax.config import Checkpoint
from prunejax.training.task import Task

T = TypeVar("T")
Key = Hashable
"""What a program is made from."""
Obtain = Callable[[Key, Callable[[], Any]], Any]
"""`taken`, or in the background `made_ahead`."""
_MADE: dict[Key, Future[Any]] = {}
"""What was made, or is being made, and has not been asked for."""
_CHANGES = threading.Lock()
"""Held while `_MADE` is changed."""


def key_of(task: Task, *what: Hashable) -> Key:
    """What tells a program of a stage apart from all others; when a run is saved is no part."""
    config = dataclasses.replace(task.config, checkpoint=Checkpoint())
    return config, task.stage, task.image_shape, task.num_classes, *what


def taken(key: Key, make: Callable[[], T]) -> T:
    """What was made ahead, awaited if need be; it is then no longer kept. Else what `make` makes.

    Args:
        key: see `key_of`.
        make: what `made_ahead` would have been given. Where that has failed it is called again,
            and raises here.
    """
    with _CHANGES:
        future = _MADE.pop(key, None)
    if future is None or future.exception() is not None:
        return make()
    return future.result()


def made_ahead(key: Key, make: Callable[[], T]) -> T:
    """Makes something that is to be `taken`, in another thread, and returns it."""
    future: Future[T] = Future()
    with _CHANGES:
        _MADE[key] = future
    try:
        future.set_result(make())
    except BaseException as error:
        future.set_exception(error)
        raise
    return future.result()


@contextmanager
def in_background() -> Iterator[Callable[[Callable[[], object]], object]]:
    """Gives a function that has another function called in a thread, one after the other.

    What has not begun when the block ends is not called, and what was not taken is dropped. An
    exception ends no more than the call: what was to be made is then made where it is needed.
    """
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
    try:
        yield executor.submit
    finally:
        executor.shutdown(cancel_futures=True)
        with _CHANGES:
            _MADE.clear()
