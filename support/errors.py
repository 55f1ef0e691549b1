"""Errors the user can fix, reported in one line on stderr: bad flags, missing or broken files, a full disk."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from support.one_line import one_line
from support.standard_streams import open_closed_streams, output_is_closed

OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # in torch's messages on CUDA and on a CPU
BROKEN_PIPE_STATUS = 141  # the shell's exit status of a program whose output is no longer read
INTERRUPTED_STATUS = 130  # of one that Ctrl-C has ended
TERMINATED_STATUS = 143  # and of one that SIGTERM has ended
SAME_REQUEST = 1.0  # seconds: `timeout` sends SIGTERM to its child and to the group that the child is in


class UserError(Exception):
    """An error the user can fix; its text is one line that says how."""


class Terminated(BaseException):
    """SIGTERM; an exception, so that `finally` blocks remove temporary files."""


def discard_output() -> None:
    """Send further output to the null device: its reader has ended."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def must_have_output(instead: str = "") -> None:
    """Raise UserError where standard output was closed, which is to get a command's result; `instead` says what else can."""
    if output_is_closed():
        raise UserError(f"standard output is closed, so that the result would be lost{instead}")


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Inside, SIGTERM raises Terminated, unless somebody has set a handler; only the main thread can set one."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    raised = -math.inf

    def stop(_number: int, _frame: object) -> None:
        nonlocal raised
        if time.monotonic() - raised > SAME_REQUEST:
            raised = time.monotonic()
            raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def output_fails() -> bool:
    """Whether the output that is left can't be written; then it is discarded, or Python would fail with it when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        discard_output()
        return True
    return False


def described(error: Exception) -> str | None:
    """What to tell the user of an error; None for an error of the program itself."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):  # the operating system's message and path say what is wrong
        no_output = output_fails()
        name = error.filename or ("standard output" if no_output else None)
        return f"{error.strerror or error}{f': {os.fsdecode(name)}' if name else ''}"
    if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
        return f"out of memory: smaller sizes may help ({str(error).splitlines()[0][:100] if str(error) else 'no details'})"
    return None


def exit_with_one_line(command: Callable[..., int]) -> Callable[..., int]:
    """Decorate a command's main function: a UserError or OSError becomes one line on stderr and exit status 2."""

    @functools.wraps(command)
    def wrapped(*args: object, **kwargs: object) -> int:
        open_closed_streams()
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # characters that the terminal's encoding lacks are escaped
        try:
            with sigterm_raises():
                status = command(*args, **kwargs)
                sys.stdout.flush()
                return status
        except KeyboardInterrupt:  # Ctrl-C before there was anything to save
            print("stopped", file=sys.stderr)
            return INTERRUPTED_STATUS
        except Terminated:
            print("stopped", file=sys.stderr)
            return TERMINATED_STATUS
        except BrokenPipeError:  # the reader, for example `head`, has ended
            discard_output()
            return BROKEN_PIPE_STATUS
        except (UserError, MemoryError, RuntimeError, OSError) as error:
            message = described(error)
            if message is None:
                raise
        print(f"error: {one_line(message)}", file=sys.stderr)
        return 2

    return wrapped
