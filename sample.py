"""Sequences from a checkpoint: `python sample.py logs/train/RUN --num 1000 --out samples.txt`.

Writes one sequence a line as token numbers (.txt), or an int64 array (num, length) (.npy). A run on music also writes songs:
`--out songs/` a folder of MIDI files, `--out song.mid` a single one. Without --out, text goes to the screen.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_loader import token_lines, write_songs
from main import choose_device
from running.checkpoint import find_checkpoint, load_run, must_fit, write_atomically
from running.options import LARGEST_SEED, Parser, real, whole
from support.errors import UserError, exit_with_one_line
from support.random_streams import stream
from train import make_generator

AT_ONCE = 10_000  # sequences drawn at a time: bounds the memory of the LSTM's states
FORMATS = (".txt", ".npy", ".mid")
SONG = re.compile(r"song_(?=0*[1-9])[0-9]{2,}\.mid")  # 01, 02, ..., or 001, 002, ... where there are 100 and more


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(description="Write sequences drawn from a trained generator.", allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN_OR_CHECKPOINT", help="a run's folder (its --log_dir) or a checkpoint file")
    parser.add_argument("--num", type=whole(1), default=None, metavar="N", help="how many sequences (default: 10, for a .mid 1)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=".txt, .npy or .mid; for songs also a folder (default: text to the screen)"
    )
    parser.add_argument("--length", type=whole(1), metavar="T", help="tokens a sequence, --prime included (default: as trained)")
    parser.add_argument("--prime", type=Path, metavar="FILE.mid", help="a melody that every song goes on from")
    parser.add_argument(
        "--temperature",
        type=real(1e-6),  # below, the largest token only, until float32 has no room for the logits
        default=1.0,
        metavar="X",
        help="divides the logits: below 1 sharper, above 1 flatter than the model (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=whole(0, LARGEST_SEED), default=0, metavar="N", help="seed of the draws (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out")
    return parser


def check_out(args: argparse.Namespace, music: bool) -> None:
    """Refuse an --out that can't be written, before anything is drawn; raises UserError."""
    out = args.out
    folder = out.suffix == ""
    if out.suffix not in ("", *FORMATS) or (folder and not music):
        raise UserError(f"--out {out}: the file's name must end in {', '.join(FORMATS[:-1])}{' or .mid' if music else ''}")
    if out.suffix == ".mid" and not music:
        raise UserError(f"--out {out}: only a run on music makes songs")
    if out.suffix == ".mid" and args.num not in (None, 1):
        raise UserError(f"--out {out} holds one song: give --num {args.num} a folder")
    if (any(out.iterdir()) if folder and out.is_dir() else out.exists()) and not args.overwrite:
        raise UserError(f"{out} exists: choose another name, or --overwrite")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}")


def read_prime(path: Path, settings: argparse.Namespace) -> Tensor:
    """The tokens of a melody, (P,).

    Raises:
        UserError: the run is not on music, or the file gives no melody.
        OSError: it can't be read.
    """
    from music.midi import Grid, MidiError, read_tokens

    if settings.dataset != "Nottingham":
        raise UserError("--prime: only a run on music can go on from a melody")
    try:
        return torch.from_numpy(read_tokens(path, Grid(settings.grid, settings.frame_seconds)).astype(np.int64))
    except MidiError as error:
        raise UserError(f"--prime {path}: {error}") from error


def draw(args: argparse.Namespace, checkpoint: dict, settings: argparse.Namespace, device: torch.device) -> Tensor:
    """The sequences, int64 (num, length) on the CPU; raises UserError where the flags do not fit the run."""
    prime = read_prime(args.prime, settings) if args.prime else None
    primed = 0 if prime is None else len(prime)
    length = args.length or primed + settings.seq_len
    if primed >= length:
        raise UserError(f"--length {length} leaves nothing to add to a melody of {primed} frames")
    with must_fit():
        generator = make_generator(settings)
        generator.load_state_dict(checkpoint["state"]["generator"])
    generator.to(device)
    rng = stream(args.seed, "sample")
    sizes = [min(AT_ONCE, args.num - first) for first in range(0, args.num, AT_ONCE)]
    return torch.cat([generator.sample(size, length, rng, args.temperature, prime).cpu() for size in sizes])


def write(tokens: Tensor, out: Path, settings: argparse.Namespace) -> None:
    """Write sequences (num, length) in the form that the name asks for; raises OSError."""
    if out.suffix == ".npy":
        write_atomically(out, lambda file: np.save(file, tokens.numpy()))
    elif out.suffix == ".txt":
        write_atomically(out, lambda file: file.write(token_lines(tokens).encode()))
    else:
        from music.midi import Grid, midi_bytes

        grid = Grid(settings.grid, settings.frame_seconds)
        if out.suffix == ".mid":
            write_atomically(out, lambda file: file.write(midi_bytes(tokens[0].numpy(), grid)))
        else:
            remove_songs(out, keep=write_songs(tokens, grid, out))


def remove_songs(folder: Path, keep: list[Path]) -> None:
    """Remove the songs of an earlier, longer draw, which --overwrite replaces: only names that `write_songs` gives.

    After the new ones are written, so that a full disk does not cost the old ones that it has no place to replace.
    """
    for path in set(folder.glob("song_*.mid")) - set(keep):
        if SONG.fullmatch(path.name) and path.is_file():
            path.unlink()


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    args = build_parser().parse_args(argv)
    device = choose_device(args.device)
    checkpoint = load_run(find_checkpoint(args.run))
    settings = argparse.Namespace(**checkpoint["args"])
    if args.out is not None:
        check_out(args, settings.dataset == "Nottingham")
    if args.num is None:
        args.num = 1 if args.out is not None and args.out.suffix == ".mid" else 10
    tokens = draw(args, checkpoint, settings, device)
    if args.out is None:
        print(token_lines(tokens), end="", flush=True)
    else:
        write(tokens, args.out, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
