"""Reads chosen arrays of an .npz from a stranger: what they claim to be is known, and can be refused, before any is unpacked."""

from __future__ import annotations

import contextlib
import errno
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from support.files import regular_size
from support.zips import METHODS, open_zip

LIST_BYTES = 2**20
MAX_HEADER = 1000  # characters; that of an array of numbers has about 100, and a long one takes its parser long
MAX_LENGTH = 2**31 - 1  # of a dimension
SMALL = 2**24  # bytes of arrays that any file may hold
MOST_COMPRESSED = 16  # times a larger file's size: trained or random numbers hardly compress, zeros a thousandfold


class StoredArray:
    """An array in an .npz, known by its header.

    Args:
        archive: the open file.
        name: the array's name.

    Attributes:
        shape, dtype: of the array.
        size: bytes of its numbers.

    Raises:
        ValueError: it is missing, or no array.
    """

    def __init__(self, archive: zipfile.ZipFile, name: str):
        self.archive, self.name = archive, name
        try:
            self.member = archive.getinfo(f"{name}.npy")
        except KeyError:
            raise ValueError(f"no array {name!r} in it") from None
        if self.member.compress_type not in METHODS:
            raise ValueError(f"{name} is not compressed by deflate")
        try:
            with archive.open(self.member) as file:
                if np.lib.format.read_magic(file) != (1, 0):
                    raise ValueError("an array of another version")
                self.shape, self.fortran, self.dtype = np.lib.format.read_array_header_1_0(file, max_header_size=MAX_HEADER)
                if not all(0 <= length <= MAX_LENGTH for length in self.shape):
                    raise ValueError("not the lengths of an array")
                self.offset = file.tell()
        except Exception as error:  # damaged data can raise anything, and numpy's own errors quote the header
            raise ValueError(f"{name} is no array") from error
        self.size = self.member.file_size - self.offset

    def read(self) -> np.ndarray:
        """Its numbers; raises ValueError where they are not as many as its shape says, or damaged."""
        if math.prod(self.shape) * self.dtype.itemsize != self.size or self.dtype.hasobject:
            raise ValueError(f"{self.name} has {self.size} bytes for shape {self.shape}")
        with self.archive.open(self.member) as file:
            file.read(self.offset)
            data = file.read(self.size)
        if len(data) != self.size:
            raise ValueError(f"{self.name} is cut short")
        return np.frombuffer(data, self.dtype).reshape(self.shape, order="F" if self.fortran else "C")


@contextlib.contextmanager
def open_npz(path: Path, names: Sequence[str], limit: int) -> Iterator[dict[str, StoredArray]]:
    """Arrays of an .npz by name, none of them unpacked yet; together they have at most `limit` bytes.

    Raises:
        ValueError, zipfile.BadZipFile: one of them is missing or broken, or they are too large, also for the file's own size.
        OSError: the file can't be read, or is too large.
    """
    size = regular_size(path)
    if size > limit:
        raise OSError(errno.EFBIG, f"larger than {limit:,} bytes", str(path))
    with open_zip(path, LIST_BYTES) as archive:
        arrays = {name: StoredArray(archive, name) for name in names}
        total = sum(array.size for array in arrays.values())
        if total > min(limit, max(SMALL, MOST_COMPRESSED * size)):
            raise ValueError(f"its arrays would unpack to {total:,} bytes")
        yield arrays
