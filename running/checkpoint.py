"""The checkpoint: everything that a run is, in one file.

It holds tensors, numbers and strings only, so that `torch.load(weights_only=True)` reads it and no file can execute code.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from generator import Generator
from running.checkpoint_schema import check_best, check_run
from running.run_folder import BEST, LAST, PREVIOUS
from support import schema
from support.errors import UserError
from support.files import keep_as, regular_size, write_atomically
from support.torch_zip import DamagedError, verify
from train_state import unset_generator

FORMAT = 2  # increased when checkpoints of older versions can no longer be read


def save_checkpoint(path: Path, payload: dict[str, Any], previous: Path | None = None) -> None:
    """Write a checkpoint atomically. The payload holds tensors, numbers, strings and containers of them.

    Args:
        path: the file.
        payload: what it is to hold.
        previous: where the checkpoint that `path` holds so far is kept, if it is.

    Raises:
        OSError: the file can't be written; an earlier checkpoint of this name is left as it was.
    """
    # Into memory first: on a full disk torch.save raises a RuntimeError that names no file.
    data = io.BytesIO()
    torch.save({"format": FORMAT, **payload}, data)
    data.seek(0)
    # What can't be read back, such as a numpy number, must fail now and not on --resume.
    torch.load(data, map_location="cpu", weights_only=True)
    if previous is not None:
        keep_as(path, previous)
    write_atomically(path, lambda file: file.write(data.getbuffer()))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, without executing code from it.

    Raises:
        UserError: there is none, it is broken or damaged, or another version of this program wrote it.
        OSError: it is no regular file, or can't be read.
    """
    if not path.exists():
        raise UserError(f"no checkpoint at {path}")
    regular_size(path)
    with path.open("rb") as file:
        try:
            verify(file)
            file.seek(0)
            payload = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a broken file can make the readers raise anything
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a seek to before the file
                raise
            reason = str(error) if isinstance(error, DamagedError) else "truncated or not written by this program"
            raise UserError(f"{path} is not a readable checkpoint ({reason}){_other_way(path)}") from error
    if not isinstance(payload, dict) or "format" not in payload:
        raise UserError(f"{path} is not a checkpoint of this program")
    found = payload["format"] if type(payload["format"]) is int else "of no number"
    if found != FORMAT:
        raise UserError(f"{path} has checkpoint format {found}, this program reads format {FORMAT}")
    return payload


def _other_way(path: Path) -> str:
    """How to go on where last.pt can't be read."""
    previous = path.with_name(PREVIOUS)
    if path.name != LAST or not previous.is_file():
        return ""
    folder = path.parent
    command = (
        f"mv {shlex.quote(str(previous))} {shlex.quote(str(path))} && python main.py --resume --log_dir {shlex.quote(str(folder))}"
    )
    return f"; to go on from the checkpoint before it: {command}"


def load_run(path: Path) -> dict[str, Any]:
    """Read the checkpoint of a run; raises UserError as `load_checkpoint` does, and where it holds anything else than a run."""
    return _as_run(load_checkpoint(path), path)


def _as_run(payload: dict[str, Any], path: Path) -> dict[str, Any]:
    """The checkpoint of a run, given what its file holds; raises UserError where it is none."""
    if payload.get("kind") == "best":
        raise UserError(f"{path} holds models to draw from, no run to go on with: take {LAST}")
    return _checked(payload, path, check_run)


def _checked(payload: dict[str, Any], path: Path, check: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """What a run's file holds; raises UserError where it is not what it must be."""
    try:
        check(payload)
    except schema.UnfitError as error:
        raise UserError(f"{path} is not a checkpoint of a run: {error}") from error
    return payload


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
        payload = _checked(payload, path, check_best)
        args = argparse.Namespace(**payload["args"])
        where, models = payload["where"], payload["models"]
        about = f"epoch {where['step']} of G ({where['phase']}), NLL_valid {payload['nll_valid']:.4f}; {LAST}: "
        about += f"{payload['latest']['nll_valid']:.4f}"
        return SavedModels(path, args, payload["data"], models["generator"], models.get("discriminator"), f"{path}: {about}")
    saved = _as_run(payload, path)
    done = saved["state"]["counts"]["epochs_done"]
    step = done["pretrain_g"] + done["adversarial"]
    generator, discriminator = saved["state"]["generator"], saved["state"]["discriminator"]
    trained = bool(saved["state"]["optimizer_discriminator"]["state"])
    about = f"{path}: epoch {step} of G"
    return SavedModels(
        path, argparse.Namespace(**saved["args"]), saved["data"], generator, discriminator if trained else None, about
    )


def saved_generator(saved: SavedModels) -> Generator:
    """The generator of saved models, on the CPU; raises UserError where it does not fit."""
    generator = unset_generator(saved.args)
    with must_fit():
        generator.load_state_dict(saved.generator)
    return generator
