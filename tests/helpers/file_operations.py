"""Running out of disk, or being killed, at a chosen file operation of a command that runs in this process."""

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

CHANGES = {"os.rename": 1, "os.remove": 0, "os.link": 1, "os.mkdir": 0, "os.truncate": 0, "shutil.copyfile": 1}  # event -> path


class Killed(BaseException):
    """Stands for SIGKILL: whatever the program does about it, no file changes any more."""


class _Watch:
    """An audit hook, which can't be taken away again: it is installed once, and sleeps between the tests."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.left = 0
        self.kill = False
        self.really = False
        self.reached = False
        self.installed = False

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.folder is None or (path := self._changed(event, arguments)) is None:
            return
        if event == "os.link" and not self.kill:  # needs no room on the disk, and a copy serves as well
            return
        if not os.path.abspath(path).startswith(self.folder):
            return
        self.left -= 1
        if self.left > 0 or (self.reached and not self.kill):
            return
        self.reached = True
        if self.really:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kill and threading.current_thread() is threading.main_thread():
            raise Killed  # in another thread, whose end nobody expects, the main thread would wait for it for ever
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    @staticmethod
    def _changed(event: str, arguments: tuple) -> str | None:
        if event == "open":
            path, mode, flags = arguments
            writes = set(mode) & set("wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR)
            return os.fsdecode(path) if writes and isinstance(path, (str, bytes)) else None
        path = os.fsdecode(arguments[CHANGES[event]]) if event in CHANGES else None
        return None if event == "os.mkdir" and os.path.isdir(path) else path


_watch = _Watch()


@contextlib.contextmanager
def ending_at(operation: int, folder: Path, kill: bool) -> Iterator[_Watch]:
    """Inside, the operation of this number (from 1) that changes a file below a folder fails as on a full disk.

    Args:
        operation: its number.
        folder: where operations count.
        kill: it fails as in a killed process: with all operations after it, and with Killed, which is swallowed here.

    Yields:
        An object whose `reached` says whether there were so many operations.
    """
    if not _watch.installed:
        sys.addaudithook(_watch)
        _watch.installed = True
    _watch.left, _watch.kill, _watch.reached, _watch.folder = operation, kill, False, str(folder)
    try:
        with contextlib.suppress(Killed):
            yield _watch
    finally:
        _watch.folder = None


def killing_at(operation: int, folder: Path) -> None:
    """From here on, this process is killed at the operation of this number that changes a file below a folder."""
    sys.addaudithook(_watch)
    _watch.left, _watch.really, _watch.folder = operation, True, str(folder)
