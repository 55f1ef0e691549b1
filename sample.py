"""Sequences from a checkpoint: `python sample.py logs/train/RUN --num 1000 --out samples.txt`.

Writes one sequence a line (.txt), as text where the run is on text and else as token numbers, or an int64 array (num, length)
(.npy). A run on music also writes songs: `--out songs/` a folder of MIDI files, `--out song.mid` a single one. Without --out, lines
go to the screen. They are drawn from the models with the lowest NLL_valid, best.pt, unless --which says last.

With --resample K, K candidates are drawn for each sequence, and one is kept with probability proportional to (D/(1 − D))^β, where
D is what the judges of judges.py say. As K grows, this draws from the residual model (residual/). Sequences that begin with
--prime are weighed with it; a sequence longer than the judges know is weighed in windows beside each other.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import support.thread_patience  # noqa: F401  before torch is loaded

# isort: split
from torch import Tensor

from data_loader import data_set_class
from data_set import TokenForm
from fast import native
from generator import Generator
from residual.judges import Judges
from residual.model import AT_ONCE, draw_in_parts
from running.checkpoint import load_models, saved_generator
from running.judges_file import find_judges
from support.command_line import LARGEST_SEED, Parser, real, whole
from support.device import choose_device
from support.errors import UserError, exit_with_one_line, must_have_output
from support.random_streams import stream
from support.threads import set_up

LOWEST_EFFECTIVE = 1.5  # effective candidates: with fewer, there is a warning


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(description="Write sequences drawn from a trained generator.", allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN_OR_CHECKPOINT", help="a run's folder (its --log_dir) or a checkpoint file")
    parser.add_argument("--num", type=whole(1), default=None, metavar="N", help="how many sequences (default: 10, for a .mid 1)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=".txt, .npy or .mid; for songs also a folder (default: text to the screen)"
    )
    parser.add_argument(
        "--length",
        type=whole(1),
        metavar="T",
        help="tokens a sequence, --prime included (default: as trained; after a song, or a --prime of that many, as many more)",
    )
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
        "--which",
        choices=("best", "last"),
        default=None,
        help="the models with the lowest NLL_valid, or the last ones (default: best, where the run has them)",
    )
    parser.add_argument(
        "--resample",
        type=whole(1, AT_ONCE),
        default=None,
        metavar="K",
        help="candidates for each sequence, of which the judges keep one",
    )
    parser.add_argument(
        "--resample_beta",
        type=real(0, 100),
        default=None,
        metavar="β",
        help="exponent of the judges' odds (default: chosen by judges.py); needed where the run's own D is the judge",
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


def sequence_length(args: argparse.Namespace, settings: argparse.Namespace, form: TokenForm) -> int:
    """How many tokens each sequence gets, --prime included; raises UserError where nothing is left to draw."""
    primed = 0 if args.prime is None else len(args.prime)
    longer = settings.seq_len if form.prime_counts and primed < settings.seq_len else primed + settings.seq_len
    length = args.length or longer
    if primed >= length:
        raise UserError(f"--length {length} leaves nothing to add to a --prime of {primed} tokens")
    if args.resample is not None and length < settings.seq_len:
        raise UserError(f"--resample: the judges weigh sequences of {settings.seq_len} tokens or more, --length is {length}")
    return length


def draw(args: argparse.Namespace, generator: Generator, judges: Judges | None, length: int) -> Tensor:
    """The sequences, int64 (num, length) on the CPU; with judges, chosen among --resample candidates each."""
    rngs = (stream(args.seed, "sample"), stream(args.seed, "resampling"))
    copies = args.resample or 1
    tokens, effective = draw_in_parts(generator, judges, args.num, length, copies, rngs, args.temperature, args.prime)
    if judges is not None:
        print(f"effective candidates: {effective:.1f} of {copies}, at β {judges.beta:g}", file=sys.stderr)
        if copies > 1 and effective < max(LOWEST_EFFECTIVE, copies / 20):
            print("warning: few candidates decide: a lower --resample_beta chooses less sharply", file=sys.stderr)
    return tokens


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    args = build_parser().parse_args(argv)
    if args.out is None:
        must_have_output(": give --out")
    device = choose_device(args.device)
    set_up(num_threads=0)
    if args.resample is None and args.resample_beta is not None:
        raise UserError("--resample_beta has no effect without --resample")
    saved = load_models(args.run, args.which)
    native.set_up_like(saved.args, device)
    form = data_set_class(saved.args.dataset).form_of(saved.args, saved.form)
    if args.prime is not None:
        args.prime = form.read_prime(args.prime)
    length = sequence_length(args, saved.args, form)
    if args.ids:
        form = TokenForm()
    if args.out is not None:
        check_out(args, form)
    if args.num is None:
        args.num = 1 if args.out is not None and args.out.suffix in form.single else 10
    generator = saved_generator(saved).to(device)
    judges = None if args.resample is None else find_judges(saved, generator, args.resample_beta)
    if judges is not None and args.temperature != 1:
        print(
            "warning: the judges know the generator at temperature 1, and weigh other sequences as if they came from it",
            file=sys.stderr,
        )
    print(f"drawn from {saved.about}", file=sys.stderr)
    tokens = draw(args, generator, judges, length)
    if args.out is None:
        print(form.lines(tokens), end="", flush=True)
    else:
        form.write(tokens, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
