"""Files that are either whole or not there, and the checkpoint: everything that a run is.

A checkpoint holds tensors, numbers and strings only, so that `torch.load(weights_only=True)` reads it and no file can run code.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import torch

from support.errors import UserError

FORMAT = 1  # rises when a checkpoint of an older version can no longer be read
LAST = "last.pt"
BEFORE = {"shuffle": True, "d_precision": "float32"}  # what checkpoints from before a setting was there did


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file under a temporary name in its folder, sync it, then rename it: an interruption leaves the old file alone.

    Raises:
        OSError: the folder or the disk refuses; the temporary file is removed.
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
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say where
            error.filename = str(path)
        raise
    if os.name != "posix":
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, atomically."""
    write_atomically(path, lambda file: file.write((json.dumps(value, indent=2) + "\n").encode()))


def save_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Write a checkpoint atomically. The payload holds tensors, numbers, strings and containers of them.

    Raises:
        OSError: the file can't be written; an earlier checkpoint of this name is left as it was.
    """
    # Into memory first: torch.save turns a full disk into a RuntimeError that names no file.
    data = io.BytesIO()
    torch.save({"format": FORMAT, **payload}, data)
    data.seek(0)
    # What could not be read back, a numpy number say, must fail now and not on --resume.
    torch.load(data, map_location="cpu", weights_only=True)
    write_atomically(path, lambda file: file.write(data.getbuffer()))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, without running code from it.

    Raises:
        UserError: there is none, it is broken, or another version of this program wrote it.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}")
    data = io.BytesIO(path.read_bytes())
    try:
        payload = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken file makes of the reader: the list of types has no end
        raise UserError(f"{path} is not a readable checkpoint (truncated or not written by this program)") from error
    if not isinstance(payload, dict) or "format" not in payload:
        raise UserError(f"{path} is not a checkpoint of this program")
    if payload["format"] != FORMAT:
        raise UserError(f"{path} has checkpoint format {payload['format']}, this program reads format {FORMAT}")
    return payload


def load_run(path: Path) -> dict[str, Any]:
    """Read the checkpoint of a run; raises UserError as `load_checkpoint` does, and where parts of a run are missing."""
    payload = load_checkpoint(path)
    if not _is_run(payload):
        raise UserError(f"{path} is not a checkpoint of a run")
    payload["args"] = {**BEFORE, **payload["args"]}
    return payload


def _is_run(payload: dict[str, Any]) -> bool:
    """Whether a checkpoint has the parts of a run, and in them what is read before `must_fit` tries the rest."""
    parts = [payload.get(name) for name in ("args", "state", "data", "marks", "folders", "last_evaluation")]
    if not all(isinstance(part, dict) for part in parts):
        return False
    args, state, _, marks, folders, last_evaluation = parts
    counts = state.get("counts")
    done = counts.get("epochs_done") if isinstance(counts, dict) else None
    return (
        all(isinstance(name, str) for name in args)
        and all(isinstance(args.get(name), str) for name in ("dataset", "preset"))
        and all(isinstance(args.get(name), int) for name in ("seed", "seq_len", "vocab_size", "batch_size"))
        and isinstance(done, dict)
        and all(isinstance(done.get(phase), int) for phase in ("pretrain_g", "pretrain_d", "adversarial"))
        and all(isinstance(marks.get(name), dict) for name in ("log", "eval"))
        and all(isinstance(folders.get(name), str) for name in ("log", "eval"))
        and all(isinstance(value, (int, float)) for value in last_evaluation.values())
    )


@contextlib.contextmanager
def must_fit() -> Iterator[None]:
    """Inside, parts of a checkpoint are taken over: what does not fit becomes a UserError."""
    try:
        yield
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"the checkpoint does not fit this run's sizes: {error}") from error


def find_checkpoint(run: Path) -> Path:
    """The checkpoint meant by a run folder or a checkpoint file."""
    return run / LAST if run.is_dir() else run
