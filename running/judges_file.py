"""judges.pt: the judges of a run's generator, as judges.py writes them and sample.py reads them."""

from __future__ import annotations

import argparse
import hashlib
import shlex
from pathlib import Path

import torch

from discriminator import Discriminator
from generator import Generator
from residual.judges import Judges
from running.checkpoint import SavedModels, load_checkpoint, must_fit, save_checkpoint
from running.run_folder import JUDGES
from support.errors import UserError
from train_state import END_TOKEN


def fingerprint(generator: Generator) -> str:
    """Identifies a generator by its weights."""
    digest = hashlib.sha256()
    for value in generator.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_judges(path: Path, judges: Judges, generator: Generator, about: str) -> None:
    """Write judges atomically, with the identity of the generator that they were trained on; raises OSError."""
    own = {"generator": fingerprint(generator), "about": about}
    save_checkpoint(path, {"kind": "judges", "judges": judges.state_dict(), **own})


def own_discriminator(saved: SavedModels, device: torch.device) -> Judges | None:
    """The run's own D as a judge, or None where it was never trained; raises UserError where it does not fit."""
    if saved.discriminator is None:
        return None
    args = saved.args
    with must_fit():
        model = Discriminator(args.vocab_size, args.d_emb_dim, args.d_filters)
        model.load_state_dict(saved.discriminator)
    return Judges([model.to(device)], args.seq_len, end_token(args))


def end_token(args: argparse.Namespace) -> int | None:
    """The end token of the run's sequences, or None."""
    return END_TOKEN if args.variable_length else None


def judges_fit(path: Path, generator: Generator) -> bool:
    """Whether a file of judges is there and its judges were trained on this generator; raises UserError for a broken file."""
    return path.is_file() and load_checkpoint(path).get("generator") == fingerprint(generator)


def find_judges(saved: SavedModels, generator: Generator, beta: float | None) -> Judges:
    """The judges beside a run's models, or its own D where there are none and β is given.

    Args:
        saved: the models.
        generator: the generator of these models, where judges are to go.
        beta: replaces the β of the file.

    Raises:
        UserError: there is nothing to judge with, or it belongs to another generator, or the file is broken.
    """
    path, train = saved.path.parent / JUDGES, f"python judges.py {shlex.quote(str(saved.path.parent))}"
    if path.is_file():
        payload = load_checkpoint(path)
        if payload.get("kind") != "judges" or not isinstance(payload.get("judges"), dict):
            raise UserError(f"{path} holds no judges")
        if payload.get("generator") != fingerprint(generator):
            about = payload.get("about")
            other = f"train new ones with {train} --which {saved.path.stem} --overwrite"
            raise UserError(f"{path}: its judges were trained on {about}, not on {saved.path}: draw from that one, or {other}")
        with must_fit():
            judges = Judges.from_state_dict(payload["judges"], saved.args.vocab_size, generator.device)
        if judges.seq_len != saved.args.seq_len:
            raise UserError(
                f"{path}: its judges know sequences of {judges.seq_len} tokens, {saved.path} draws {saved.args.seq_len}"
            )
    else:
        judges = own_discriminator(saved, generator.device)
        if judges is None:
            raise UserError(f"--resample needs judges: {train} trains them")
        if beta is None:
            raise UserError(f"--resample: {train} trains judges and chooses β; without them, the run's own D needs --resample_beta")
    if beta is not None:
        judges.beta = beta
    return judges
