"""Reading regular files of a bounded size; writing so that a reader finds the old content or the new one, never a part of it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO


def regular_size(path: Path) -> int:
    """The size of a regular file; to be asked before it is opened: opening a pipe waits for a writer, a device may have no end.

    Raises:
        OSError: there is no such file, or it is a folder, a pipe or a device.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return status.st_size


def read_regular(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        OSError: it is larger, no regular file, or can't be read.
    """
    size = regular_size(path)
    if size > limit:
        raise OSError(errno.EFBIG, f"larger than {limit:,} bytes", str(path))
    with path.open("rb") as file:
        return file.read(size)


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file under a temporary name in the same folder, sync it to the disk, then rename it.

    Args:
        path: the file; an interrupted write leaves its old content as it was.
        write: writes the content to the open file that it is given.

    Raises:
        OSError: the file can't be written; the temporary file is removed.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        with partial.open("xb") as file:  # never into a pipe, or into what another name or a link leads to
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # an error for a full disk names no file
            error.filename = str(path)
        raise
    if os.name == "posix":
        _sync_folder(path.parent)


def keep_as(path: Path, other: Path) -> None:
    """Give a file's content a second name, atomically, where there is such a file; raises OSError.

    Later on `path` must be replaced and not written into: where the file system can, both names are one file.
    """
    if not path.is_file():
        return
    partial = other.with_name(f".{other.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        try:
            os.link(path, partial)
        except OSError:  # a file system without links
            shutil.copyfile(path, partial)
        os.replace(partial, other)
    finally:
        partial.unlink(missing_ok=True)  # a rename between two names of one file does nothing


def _sync_folder(folder: Path) -> None:
    """Sync the folder itself: without it a power failure may undo the rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, atomically; raises OSError."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, atomically; raises OSError."""
    write_text(path, json.dumps(value, indent=2) + "\n")
