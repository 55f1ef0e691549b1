"""Files that only save time, in the user's cache folder. One that is absent, damaged or another program's counts as none.

A file holds arrays of unsigned integers: MAGIC, a checksum of what follows, the length of a header, the header (JSON: name, type
and shape of each array), and the arrays' bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from support.files import regular_size

MAGIC = b"SeqGAN cache 1\n\0"
LENGTH_BYTES = 8  # of the header's length
TYPES = {np.dtype(kind).str: np.dtype(kind) for kind in ("u1", "u2", "u4", "u8")}


def cache_path(kind: str, *key: object) -> Path | None:
    """Where the cache of a key is: below $XDG_CACHE_HOME, or ~/.cache; None where the user has no home, as in a container."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return folder / "seqgan" / f"{kind}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.cache"


def write_cache(path: Path | None, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of unsigned integers. If that fails, the next run only has to do the work again."""
    if path is None:
        return
    header = json.dumps([(name, array.dtype.str, array.shape) for name, array in arrays.items()]).encode()
    parts = [len(header).to_bytes(LENGTH_BYTES, "big"), header, *map(np.ascontiguousarray, arrays.values())]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")  # unique: two runs may write at once
        try:
            with os.fdopen(handle, "wb") as file:
                for part in (MAGIC, digest.digest(), *parts):
                    file.write(part)
            os.replace(partial, path)
        except BaseException:
            os.unlink(partial)
            raise


def read_cache(path: Path | None) -> dict[str, np.ndarray] | None:
    """What `write_cache` wrote, or None."""
    try:
        return None if path is None else _read(path)
    except Exception:  # whatever reading it raises: it is built anew
        return None


def _read(path: Path) -> dict[str, np.ndarray] | None:
    left, digest = regular_size(path), hashlib.sha256()
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return None
        checksum, length = file.read(digest.digest_size), file.read(LENGTH_BYTES)
        left -= len(MAGIC) + len(checksum + length) + int.from_bytes(length, "big")
        if left < 0:
            return None
        header = file.read(int.from_bytes(length, "big"))
        digest.update(length + header)
        arrays = {}
        for name, kind, shape in json.loads(header):
            count = math.prod(shape)
            left -= count * TYPES[kind].itemsize
            if left < 0 or min(shape) < 0:  # before memory is taken for it
                return None
            arrays[name] = np.fromfile(file, TYPES[kind], count).reshape(shape)
            digest.update(arrays[name])
    return arrays if not left and digest.digest() == checksum else None
