"""Processes that heed signals, however the tests were started."""

import contextlib
import signal


@contextlib.contextmanager
def heeded_signals():
    """What is started in the block ignores none of the signals that ask for an end.

    It would inherit that: a shell's background job ignores SIGINT, and `nohup` SIGHUP. Setting them
    in the child instead would fork Python beside JAX's threads, of which JAX warns.
    """
    asking = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in asking}
    try:
        for number, handler in before.items():
            if handler is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
