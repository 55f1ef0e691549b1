"""The checkpoint: everything that a run is, in one file.

It holds tensors, numbers and strings only, so that `torch.load(weights_only=True)` reads it and no file can execute code.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from running.flags import BEFORE, FLAGS
from running.run_folder import LAST
from support.errors import UserError
from support.files import write_atomically
from train_state import PHASES

FORMAT = 1  # increased when checkpoints of older versions can no longer be read


def save_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Write a checkpoint atomically. The payload holds tensors, numbers, strings and containers of them.

    Raises:
        OSError: the file can't be written; an earlier checkpoint of this name is left as it was.
    """
    # Into memory first: on a full disk torch.save raises a RuntimeError that names no file.
    data = io.BytesIO()
    torch.save({"format": FORMAT, **payload}, data)
    data.seek(0)
    # What can't be read back, such as a numpy number, must fail now and not on --resume.
    torch.load(data, map_location="cpu", weights_only=True)
    write_atomically(path, lambda file: file.write(data.getbuffer()))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, without executing code from it.

    Raises:
        UserError: there is none, it is broken, or another version of this program wrote it.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}")
    data = io.BytesIO(path.read_bytes())
    try:
        payload = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can make the reader raise anything
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
    payload["args"] = {**{flag.name: flag.default for flag in FLAGS}, **BEFORE, **payload["args"]}
    return payload


def _is_run(payload: dict[str, Any]) -> bool:
    """Whether a checkpoint has the parts of a run, and in them the types that are relied on before `must_fit` checks the rest."""
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
        and all(isinstance(done.get(phase), int) for phase in PHASES)
        and all(isinstance(marks.get(name), dict) for name in ("log", "eval"))
        and all(isinstance(folders.get(name), str) for name in ("log", "eval"))
        and all(isinstance(value, (int, float)) for value in last_evaluation.values())
    )


@contextlib.contextmanager
def must_fit() -> Iterator[None]:
    """Inside, parts of a checkpoint are loaded: an error because they do not fit becomes a UserError."""
    try:
        yield
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"the checkpoint does not fit this run's sizes: {error}") from error


def find_checkpoint(run: Path) -> Path:
    """The checkpoint meant by a run folder or a checkpoint file."""
    return run / LAST if run.is_dir() else run
