"""Sequences from a checkpoint: `python sample.py logs/train/RUN --num 1000 --out samples.txt`.

Writes one sequence a line (.txt), as text where the run is on text and else as token numbers, or an int64 array (num, length)
(.npy). A run on music also writes songs: `--out songs/` a folder of MIDI files, `--out song.mid` a single one. Without --out, lines
go to the screen.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import support.thread_patience  # noqa: F401  before torch is loaded

# isort: split
import torch
from torch import Tensor

from data_loader import data_set_class
from data_set import TokenForm
from running.checkpoint import find_checkpoint, load_run, must_fit
from support.command_line import LARGEST_SEED, Parser, real, whole
from support.device import choose_device
from support.errors import UserError, exit_with_one_line
from support.random_streams import stream
from support.threads import set_up
from train_state import make_generator

AT_ONCE = 10_000  # sequences drawn at a time: bounds the memory of the LSTM's states


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(description="Write sequences drawn from a trained generator.", allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN_OR_CHECKPOINT", help="a run's folder (its --log_dir) or a checkpoint file")
    parser.add_argument("--num", type=whole(1), default=None, metavar="N", help="how many sequences (default: 10, for a .mid 1)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=".txt, .npy or .mid; for songs also a folder (default: text to the screen)"
    )
    parser.add_argument("--length", type=whole(1), metavar="T", help="tokens a sequence, --prime included (default: as trained)")
    parser.add_argument(
        "--prime",
        metavar="FILE.mid|TEXT",
        help="what every sequence goes on from: a melody's MIDI file, or the beginning of a line",
    )
    parser.add_argument("--ids", action="store_true", help="write token numbers instead of text")
    parser.add_argument(
        "--temperature",
        type=real(1e-6),  # below, the logits overflow float32
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


def check_out(args: argparse.Namespace, form: TokenForm) -> None:
    """Refuse an --out that can't be written, before anything is drawn; raises UserError."""
    out = args.out
    folder = out.suffix == "" and form.folders
    if out.suffix not in form.suffixes and not folder:
        raise UserError(f"--out {out}: for this run the file's name must end in {', '.join(form.suffixes)}")
    if out.suffix in form.single and args.num not in (None, 1):
        raise UserError(f"--out {out} holds one sequence: for --num {args.num} give a folder")
    if (any(out.iterdir()) if folder and out.is_dir() else out.exists()) and not args.overwrite:
        raise UserError(f"{out} exists: choose another name, or --overwrite")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}")


def draw(args: argparse.Namespace, checkpoint: dict, settings: argparse.Namespace, form: TokenForm, device: torch.device) -> Tensor:
    """The sequences, int64 (num, length) on the CPU; raises UserError where the flags do not fit the run."""
    primed = 0 if args.prime is None else len(args.prime)
    longer = settings.seq_len if form.prime_counts and primed < settings.seq_len else primed + settings.seq_len
    length = args.length or longer
    if primed >= length:
        raise UserError(f"--length {length} leaves nothing to add to a --prime of {primed} tokens")
    with must_fit():
        generator = make_generator(settings)
        generator.load_state_dict(checkpoint["state"]["generator"])
    generator.to(device)
    rng = stream(args.seed, "sample")
    sizes = [min(AT_ONCE, args.num - first) for first in range(0, args.num, AT_ONCE)]
    return torch.cat([generator.sample(size, length, rng, args.temperature, args.prime).cpu() for size in sizes])


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    args = build_parser().parse_args(argv)
    device = choose_device(args.device)
    set_up(num_threads=0)
    checkpoint = load_run(find_checkpoint(args.run))
    settings = argparse.Namespace(**checkpoint["args"])
    form = data_set_class(settings.dataset).form_of(settings, checkpoint["data"])
    if args.prime is not None:
        args.prime = form.read_prime(args.prime)
    if args.ids:
        form = TokenForm()
    if args.out is not None:
        check_out(args, form)
    if args.num is None:
        args.num = 1 if args.out is not None and args.out.suffix in form.single else 10
    tokens = draw(args, checkpoint, settings, form, device)
    if args.out is None:
        print(form.lines(tokens), end="", flush=True)
    else:
        form.write(tokens, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
