"""What the user can mend, told in one line: bad flags, missing or broken files, a full disk."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable

OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # torch's words on CUDA and on a CPU
READER_GONE = 141  # the shell's exit status of a program whose output nobody reads any more


class UserError(Exception):
    """A problem that the user can mend; its text is one clear line that says how."""


def discard_output() -> None:
    """Send what is yet to be printed nowhere, since its reader has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_with_one_line(command: Callable[..., int]) -> Callable[..., int]:
    """Decorate a command's main function: a UserError or OSError becomes one line on stderr and exit status 2."""

    @functools.wraps(command)
    def wrapped(*args: object, **kwargs: object) -> int:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # what a terminal's encoding lacks is no reason to stop
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
        except BrokenPipeError:  # the reader, `head` say, has seen enough
            discard_output()
            return READER_GONE
        except OSError as error:  # a file or a disk, whose operating system's words and path say what is wrong
            message = f"{error.strerror or error}{f': {os.fsdecode(error.filename)}' if error.filename else ''}"
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        return 2

    return wrapped
