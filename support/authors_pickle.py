"""Reads the authors' oracle pickles (a list of float32 arrays) without executing anything that a file names.

A pickle is a program that can call whatever it can import. This reader replaces the names that a numpy array needs by stand-ins,
which only collect an array's shape and bytes, and refuses every other name. The file calls nothing of numpy.
"""

from __future__ import annotations

import math
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

LARGEST_FILE = 2**31  # bytes


class _Type:
    """Stands for numpy.dtype: float32 and nothing else."""

    def __init__(self, name: object, *_flags: object):
        if name not in ("f4", b"f4"):
            raise pickle.UnpicklingError(f"an array of {name!r}, not of float32")
        self.order = "<"

    def set_state(self, state: Any) -> None:
        """(version, byte order, and fields that only other types use)."""
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">"):
            raise pickle.UnpicklingError(f"byte order {order!r}")
        self.order = order


class _Array:
    """Stands for an array that is being assembled."""

    def __init__(self) -> None:
        self.values: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        """(version, shape, type, Fortran order, bytes)."""
        _, shape, kind, fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data
        self.fill(shape, kind, "F" if fortran else "C", data)

    def fill(self, shape: Any, kind: Any, order: str, data: Any) -> None:
        """Check that shape, type and bytes fit each other, and take over the values."""
        if not (isinstance(kind, _Type) and isinstance(data, bytes) and isinstance(shape, tuple)):
            raise pickle.UnpicklingError("an array without shape, type and bytes")
        if not all(type(length) is int and length >= 0 for length in shape) or len(data) != 4 * math.prod(shape):
            raise pickle.UnpicklingError(f"{len(data)} bytes for an array of shape {shape}")
        values = np.frombuffer(data, np.dtype(kind.order + "f4")).reshape(shape, order=order)
        self.values = np.ascontiguousarray(values, dtype=np.float32)


def _reconstruct(_kind: object, _shape: object, _code: object) -> _Array:
    return _Array()


def _frombuffer(data: object, kind: object, shape: object, order: object, _axes: object = None) -> _Array:
    """How protocol 5 builds an array, with the arguments of numpy's function; `_axes` is for orders other than C and F."""
    if order not in ("C", "F"):
        raise pickle.UnpicklingError(f"array order {order!r}")
    array = _Array()
    array.fill(shape, kind, order, bytes(data) if isinstance(data, bytearray) else data)
    return array


def _encode(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("text that is not latin1")
    return text.encode("latin1")


def _no_call(*_arguments: object) -> None:
    raise pickle.UnpicklingError("a call of numpy.ndarray")


STAND_INS = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
    ("numpy", "ndarray"): _no_call,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle._Unpickler):  # the Python version: the C version allocates memory of any size that the file claims
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return STAND_INS[module, name]

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"it asks for extension {code}")

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Type, _Array)):
            raise pickle.UnpicklingError("it sets the state of something that is no array")
        self.stack[-1].set_state(state)

    dispatch[pickle.BUILD[0]] = load_build

    def load_bytearray8(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        data = self.read(length) if length <= LARGEST_FILE else b""  # pickle's own allocates before it reads
        if len(data) != length:
            raise pickle.UnpicklingError(f"no {length} bytes left in the file")
        self.append(bytearray(data))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def read_arrays(path: Path) -> list[np.ndarray]:
    """The float32 arrays of a pickled list, from Python 2 or 3.

    Raises:
        ValueError: the file is no such list, or asks for anything else.
        OSError: the file can't be read.
    """
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError("the file is too large")
    with path.open("rb") as file:
        try:
            value = _Reader(file, encoding="latin1").load()
        except OSError:
            raise
        except Exception as error:  # a broken pickle can raise anything
            # Only this reader's own messages: those of the pickle module quote the file.
            reason = f": {error}" if isinstance(error, pickle.UnpicklingError) and str(error) else ""
            raise ValueError(f"no pickled list of float32 arrays{reason}") from error
    if not isinstance(value, list) or not all(isinstance(item, _Array) and item.values is not None for item in value):
        raise ValueError("no pickled list of float32 arrays")
    return [item.values for item in value]
