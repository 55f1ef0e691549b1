"""Standard streams that were closed by whoever started the process (`>&-`) lead to the null device instead.

Else the next files to be opened get the numbers of the closed streams, and what a library prints there goes into them, for example
into a checkpoint; and Python's sys.stdout or sys.stderr is None.
"""

from __future__ import annotations

import os
import sys

_closed: set[int] = set()  # of descriptors 0, 1 and 2, those that were closed


def open_closed_streams() -> None:
    """Open the null device where descriptor 0, 1 or 2 is closed, and make sys.stdout and sys.stderr streams."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            os.set_inheritable(opened, True)  # processes that are started need the streams as well
            _closed.add(opened)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", buffering=1))


def output_is_closed() -> bool:
    """Whether standard output was closed."""
    return 1 in _closed
