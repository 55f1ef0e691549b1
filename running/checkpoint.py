"""The checkpoint: everything that a run is, in one file.

It holds tensors, numbers and strings only, so that `torch.load(weights_only=True)` reads it and no file can execute code.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from generator import Generator
from running.flags import BEFORE, FLAGS
from running.run_folder import BEST, LAST
from support.errors import UserError
from support.files import write_atomically
from train_state import PHASES, make_generator

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
    return _as_run(load_checkpoint(path), path)


def _as_run(payload: dict[str, Any], path: Path) -> dict[str, Any]:
    """The checkpoint of a run, given what its file holds; raises UserError where it is none."""
    if payload.get("kind") == "best":
        raise UserError(f"{path} holds models to draw from, no run to go on with: take {LAST}")
    if not _is_run(payload):
        raise UserError(f"{path} is not a checkpoint of a run")
    payload["args"] = with_later_flags(payload["args"])
    return payload


def with_later_flags(args: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run with the values of flags that came after it."""
    return {**{flag.name: flag.default for flag in FLAGS}, **BEFORE, **args}


def _is_run(payload: dict[str, Any]) -> bool:
    """Whether a checkpoint has the parts of a run, and in them the types that are relied on before `must_fit` checks the rest."""
    parts = [payload.get(name) for name in ("args", "state", "data", "marks", "folders", "last_evaluation")]
    if not all(isinstance(part, dict) for part in parts):
        return False
    args, state, _, marks, folders, last_evaluation = parts
    counts = state.get("counts")
    done = counts.get("epochs_done") if isinstance(counts, dict) else None
    return (
        _has_settings(args)
        and isinstance(done, dict)
        and all(isinstance(done.get(phase), int) for phase in PHASES)
        and all(isinstance(marks.get(name), dict) for name in ("log", "eval"))
        and all(isinstance(folders.get(name), str) for name in ("log", "eval"))
        and all(isinstance(value, (int, float)) for value in last_evaluation.values())
    )


def _has_settings(args: dict[str, Any]) -> bool:
    return (
        all(isinstance(name, str) for name in args)
        and all(isinstance(args.get(name), str) for name in ("dataset", "preset"))
        and all(isinstance(args.get(name), int) for name in ("seed", "seq_len", "vocab_size", "batch_size"))
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


class SavedModels(NamedTuple):
    """What a run's folder or one of its files holds for drawing sequences.

    Attributes:
        path: the file.
        args: the run's settings.
        form: what `DataSet.form_of` needs.
        generator: the weights of G.
        discriminator: those of D, or None where it was never trained.
        about: which models these are, for the screen.
    """

    path: Path
    args: argparse.Namespace
    form: dict[str, Any]
    generator: dict[str, Any]
    discriminator: dict[str, Any] | None
    about: str


def load_models(run: Path, which: str | None) -> SavedModels:
    """The models of a run.

    Args:
        run: its folder, or one of its files.
        which: "best" or "last" of a folder; None is the best, where there are any, and for a file.

    Raises:
        UserError: there is no such file, or it is broken.
    """
    path = run
    if run.is_dir():
        path = run / {"best": BEST, "last": LAST, None: BEST if (run / BEST).is_file() else LAST}[which]
        if which == "best" and not path.is_file():
            raise UserError(f"no {BEST} in {run}: the run was never evaluated on validation sequences; --which last")
    elif which is not None:
        raise UserError(f"--which needs a run's folder: {run} is a file; leave --which out")
    payload = load_checkpoint(path)
    if payload.get("kind") == "best":
        if not _is_best(payload):
            raise UserError(f"{path} is not a checkpoint of a run")
        args = argparse.Namespace(**with_later_flags(payload["args"]))
        where, models = payload["where"], payload["models"]
        about = f"epoch {where['step']} of G ({where['phase']}), NLL_valid {payload['nll_valid']:.4f}; {LAST}: "
        about += f"{payload['latest'].get('nll_valid', math.nan):.4f}"
        return SavedModels(path, args, payload["data"], models["generator"], models.get("discriminator"), f"{path}: {about}")
    saved = _as_run(payload, path)
    done = saved["state"]["counts"]["epochs_done"]
    step = done["pretrain_g"] + done["adversarial"]
    with must_fit():
        generator, discriminator = saved["state"]["generator"], saved["state"]["discriminator"]
        trained = bool(saved["state"]["optimizer_discriminator"]["state"])
    about = f"{path}: epoch {step} of G"
    return SavedModels(
        path, argparse.Namespace(**saved["args"]), saved["data"], generator, discriminator if trained else None, about
    )


def saved_generator(saved: SavedModels) -> Generator:
    """The generator of saved models, on the CPU; raises UserError where it does not fit."""
    with must_fit():
        generator = make_generator(saved.args)
        generator.load_state_dict(saved.generator)
    return generator


def _is_best(payload: dict[str, Any]) -> bool:
    """Whether a file has the parts of best.pt, with the types that are relied on."""
    parts = [payload.get(name) for name in ("args", "data", "where", "models", "latest")]
    if not all(isinstance(part, dict) for part in parts):
        return False
    args, _, where, models, latest = parts
    return (
        _has_settings(args)
        and isinstance(where.get("phase"), str)
        and isinstance(where.get("step"), int)
        and isinstance(models.get("generator"), dict)
        and isinstance(models.get("discriminator", {}), dict)
        and isinstance(payload.get("nll_valid"), float)
        and isinstance(latest.get("nll_valid", 0.0), float)
    )
