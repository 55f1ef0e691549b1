"""Ctrl-C while a command still loads torch ends it with one line, as it does later. Imported first.

`support.errors.exit_with_one_line` does the same from the moment on when a command has begun.
"""

import sys
from types import TracebackType

_earlier = sys.excepthook  # a debugger's, perhaps


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
    else:
        _earlier(kind, error, trace)


sys.excepthook = _show
