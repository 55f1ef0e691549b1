"""Errors the user can fix, reported in one line on stderr: bad flags, missing or broken files, a full disk."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable

OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # in torch's messages on CUDA and on a CPU
BROKEN_PIPE_STATUS = 141  # the shell's exit status of a program whose output is no longer read


class UserError(Exception):
    """An error the user can fix; its text is one line that says how."""


def discard_output() -> None:
    """Send further output to the null device: its reader has ended."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_with_one_line(command: Callable[..., int]) -> Callable[..., int]:
    """Decorate a command's main function: a UserError or OSError becomes one line on stderr and exit status 2."""

    @functools.wraps(command)
    def wrapped(*args: object, **kwargs: object) -> int:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # characters that the terminal's encoding lacks are escaped
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:  # Ctrl-C before there was anything to save
            print("stopped", file=sys.stderr)
            return 130
        except UserError as error:
            message = str(error)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
                raise
            message = f"out of memory: smaller sizes may help ({str(error).splitlines()[0][:100] if str(error) else 'no details'})"
        except BrokenPipeError:  # the reader, for example `head`, has ended
            discard_output()
            return BROKEN_PIPE_STATUS
        except OSError as error:  # the operating system's message and path say what is wrong
            message = f"{error.strerror or error}{f': {os.fsdecode(error.filename)}' if error.filename else ''}"
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        return 2

    return wrapped
