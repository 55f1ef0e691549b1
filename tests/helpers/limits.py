"""Bounds on what a piece of a test may take: time and memory."""

import contextlib
import signal
import tracemalloc


@contextlib.contextmanager
def at_most(seconds=None, megabytes=None):
    """Fails what takes longer, waits for ever, or allocates more at its peak."""
    if megabytes is not None:
        tracemalloc.start()
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds or 0)
    try:
        yield
        if megabytes is not None:
            assert tracemalloc.get_traced_memory()[1] < megabytes * 2**20
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        tracemalloc.stop()


class TooLong(BaseException):
    """Raised in what takes too long. Not an Exception: the readers turn those into messages."""


def _too_long(*_):
    raise TooLong
