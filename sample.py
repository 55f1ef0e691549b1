"""Sequences from a checkpoint: `python sample.py logs/train/RUN --num 1000 --out samples.txt`.

Writes one sequence a line as token numbers (.txt), or an int64 array (num, T) (.npy); without --out, text to the screen.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from checkpoint import find_checkpoint, load_checkpoint, write_atomically
from data_loader import token_lines
from errors import UserError, exit_with_one_line
from main import choose_device
from options import Parser, real, whole
from streams import stream
from train import make_generator

AT_ONCE = 10_000  # sequences drawn at a time: bounds the memory of the LSTM's states
FORMATS = (".txt", ".npy")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(description="Write sequences drawn from a trained generator.", allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN_OR_CHECKPOINT", help="a run's folder (its --log_dir) or a checkpoint file")
    parser.add_argument("--num", type=whole(1), default=10, metavar="N", help="how many sequences (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a .txt or .npy file (default: text to the screen)")
    parser.add_argument(
        "--temperature",
        type=real(0, low_open=True),
        default=1.0,
        metavar="X",
        help="divides the logits: below 1 sharper, above 1 flatter than the model (default: %(default)s)",
    )
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N", help="seed of the draws (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    return parser


def draw(args: argparse.Namespace) -> Tensor:
    """The sequences, int64 (num, T) on the CPU; raises UserError where the checkpoint can't be used."""
    device = choose_device(args.device)
    checkpoint = load_checkpoint(find_checkpoint(args.run))
    settings = argparse.Namespace(**checkpoint["args"])
    generator = make_generator(settings)
    generator.load_state_dict(checkpoint["state"]["generator"])
    generator.to(device)
    rng = stream(args.seed, "sample")
    sizes = [min(AT_ONCE, args.num - first) for first in range(0, args.num, AT_ONCE)]
    return torch.cat([generator.sample(size, settings.seq_len, rng, args.temperature).cpu() for size in sizes])


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    args = build_parser().parse_args(argv)
    if args.out is not None:
        if args.out.suffix not in FORMATS:
            raise UserError(f"--out {args.out}: the file's name must end in {' or '.join(FORMATS)}")
        if args.out.exists() and not args.overwrite:
            raise UserError(f"{args.out} exists: choose another name, or --overwrite")
        if not args.out.parent.is_dir():
            raise UserError(f"--out {args.out}: there is no folder {args.out.parent}")
    tokens = draw(args)
    if args.out is None:
        print(token_lines(tokens), end="")
    elif args.out.suffix == ".npy":
        write_atomically(args.out, lambda file: np.save(file, tokens.numpy()))
    else:
        write_atomically(args.out, lambda file: file.write(token_lines(tokens).encode()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
