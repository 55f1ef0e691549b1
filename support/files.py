"""Writing files so that a reader finds the old content or the new one, never a part of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO


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
        with partial.open("wb") as file:
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
