"""Reads the authors' oracle pickles (a list of float32 arrays) without executing anything that a file names.

A pickle is a program that can call whatever it can import. This reader knows only the instructions that a list of arrays needs,
replaces the names that a numpy array needs by stand-ins, which only collect an array's shape and bytes, and refuses every other
name. The file calls nothing of numpy.

A few bytes of a pickle can describe a value of any size: a tuple of two equal tuples, each of two equal tuples, and so on. So the
values of a file are never formatted, hashed or copied before their types and sizes are checked.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from support.files import read_regular

LARGEST_FILE = 2**28  # bytes; the authors' file for 5000 tokens has 3.7 million
MAX_INSTRUCTIONS = 10_000  # 15 arrays need about 500
MAX_DIMENSIONS = 2
MAX_LENGTH = 2**31 - 1  # of a dimension
INSTRUCTIONS = """
    PROTO FRAME MARK STOP PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD
    NONE NEWFALSE NEWTRUE INT BININT BININT1 BININT2 LONG LONG1 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES
    BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS
"""


class _RefusedError(Exception):
    """This reader's own errors. Those of the pickle module quote the file at any length."""


class _Type:
    """Stands for numpy.dtype: float32 and nothing else."""

    def __init__(self, name: object, *_flags: object):
        if name not in ("f4", b"f4"):
            raise _RefusedError(f"an array of {_shown(name)}, not of float32")
        self.order = "<"

    def set_state(self, state: Any) -> None:
        """(version, byte order, and fields that only other types use)."""
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">"):
            raise _RefusedError(f"byte order {_shown(order)}")
        self.order = order


class _Array:
    """Stands for an array that is being assembled. It keeps what the file gives: the numbers are copied once, at the end."""

    def __init__(self) -> None:
        self.data: str | bytes | bytearray | None = None

    def set_state(self, state: Any) -> None:
        """(version, shape, type, Fortran order, bytes); Python 2 has the bytes as text."""
        _, shape, kind, fortran, data = state
        self.fill(shape, kind, "F" if fortran else "C", data)

    def fill(self, shape: Any, kind: Any, order: str, data: Any) -> None:
        """Check that shape, type and bytes fit each other, and take them over."""
        if not (isinstance(kind, _Type) and isinstance(data, (str, bytes, bytearray)) and isinstance(shape, tuple)):
            raise _RefusedError("an array without shape, type and bytes")
        if len(shape) > MAX_DIMENSIONS:
            raise _RefusedError(f"an array of {len(shape)} dimensions")
        if not all(type(length) is int and 0 <= length <= MAX_LENGTH for length in shape):
            raise _RefusedError("an array whose shape is not made of lengths")
        if len(data) != 4 * math.prod(shape):
            raise _RefusedError(f"{len(data)} bytes for an array of shape {shape}")
        self.shape, self.dtype, self.order, self.data = shape, np.dtype(kind.order + "f4"), order, data

    def values(self) -> np.ndarray:
        """The array."""
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        return np.ascontiguousarray(np.frombuffer(data, self.dtype).reshape(self.shape, order=self.order), dtype=np.float32)


def _shown(value: object) -> str:
    """A short description of a value of the file."""
    return repr(value[:20]) if isinstance(value, (str, bytes)) else f"a {type(value).__name__}"


def _reconstruct(_kind: object, _shape: object, _code: object) -> _Array:
    return _Array()


def _frombuffer(data: object, kind: object, shape: object, order: object, _axes: object = None) -> _Array:
    """How protocol 5 builds an array, with the arguments of numpy's function; `_axes` is for orders other than C and F."""
    if order not in ("C", "F"):
        raise _RefusedError(f"array order {_shown(order)}")
    array = _Array()
    array.fill(shape, kind, order, data)
    return array


def _encode(text: object, encoding: object = "latin1") -> str:
    """How Python 3 writes bytes in the protocols of Python 2. They stay text for now, as in a file of Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _RefusedError("text that is not latin1")
    return text


def _no_call(*_arguments: object) -> None:
    raise _RefusedError("a call of numpy.ndarray")


STAND_INS = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
    ("numpy", "ndarray"): _no_call,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
}


def _counted(load: Callable[[_Reader], None]) -> Callable[[_Reader], None]:
    """An instruction that counts itself: each byte of a file can be one, and a mark alone takes 100 bytes of memory."""

    def load_and_count(reader: _Reader) -> None:
        reader.instructions += 1
        if reader.instructions > MAX_INSTRUCTIONS:
            raise _RefusedError(f"more than {MAX_INSTRUCTIONS} instructions")
        load(reader)

    return load_and_count


class _Reader(pickle._Unpickler):  # the Python version: the C version allocates memory of any size that the file claims
    dispatch: ClassVar[dict[int, Any]] = {}
    instructions = 0

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STAND_INS:
            raise _RefusedError(f"it asks for {_shown(module)} {_shown(name)}, which no array needs")
        return STAND_INS[module, name]

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Type, _Array)):
            raise _RefusedError("it sets the state of something that is no array")
        self.stack[-1].set_state(state)

    def load_bytearray8(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        data = self.read(length) if length <= LARGEST_FILE else b""  # pickle's own allocates before it reads
        if len(data) != length:
            raise _RefusedError(f"no {length} bytes left in the file")
        self.append(bytearray(data))


_OWN = {"BUILD": _Reader.load_build, "BYTEARRAY8": _Reader.load_bytearray8}
for _name in INSTRUCTIONS.split():
    _code = getattr(pickle, _name)[0]
    _Reader.dispatch[_code] = _counted(_OWN.get(_name, pickle._Unpickler.dispatch[_code]))


def read_arrays(path: Path) -> list[np.ndarray]:
    """The float32 arrays of a pickled list, from Python 2 or 3.

    Raises:
        ValueError: the file is no such list, or asks for anything else.
        OSError: the file can't be read, or is too large.
    """
    data = read_regular(path, LARGEST_FILE)
    try:
        return _values(_Reader(io.BytesIO(data), encoding="latin1").load(), len(data))
    except Exception as error:  # a broken pickle can raise anything
        raise ValueError(f"no pickled list of float32 arrays{f': {error}' if isinstance(error, _RefusedError) else ''}") from error


def _values(items: Any, file_size: int) -> list[np.ndarray]:
    if not isinstance(items, list) or not all(isinstance(item, _Array) and item.data is not None for item in items):
        raise _RefusedError("it holds something else")
    if sum(len(item.data) for item in items) > file_size:
        raise _RefusedError("arrays that share their bytes")
    return [item.values() for item in items]
