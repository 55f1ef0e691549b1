"""Judges for a finished run: `python judges.py logs/train/RUN`, then `python sample.py logs/train/RUN --resample 8`.

Trains discriminators on the run's generator (residual/judges.py), chooses β on validation sequences, and writes both to judges.pt
in the run's folder. Prints, and writes to judges.json, what they know about real sequences beyond the generator: NLL_test of the
generator alone and of the residual model, in nats per token.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import support.thread_patience  # noqa: F401  before torch is loaded

# isort: split
from fast import native
from running.checkpoint import load_models
from running.judging import SAMPLES, Judging, judge
from running.moved_data import add_place_flags, data_of_run
from running.run_folder import JUDGES, must_be_writable
from support.command_line import LARGEST_SEED, Parser, whole
from support.device import choose_device
from support.errors import UserError, exit_with_one_line
from support.threads import set_up


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(description="Train judges on a run's generator, for sample.py --resample.", allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder (its --log_dir)")
    parser.add_argument(
        "--judges", type=whole(0, 64), default=2, metavar="M", help="how many; 0 takes the run's own D (default: %(default)s)"
    )
    parser.add_argument("--which", choices=("best", "last"), default=None, help="the run's models, as for sample.py")
    parser.add_argument(
        "--samples", type=whole(100), default=SAMPLES, metavar="S", help="sequences of G that estimate Z (default: %(default)s)"
    )
    parser.add_argument("--seed", type=whole(0, LARGEST_SEED), default=0, metavar="N", help="seed (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--threads", type=whole(0, 1024), default=0, help="CPU threads; 0 leaves the choice to torch")
    add_place_flags(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the judges that the run has")
    return parser


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    args = build_parser().parse_args(argv)
    device = choose_device(args.device)
    if not args.run.is_dir():
        raise UserError(f"no run at {args.run}: judges need its folder")
    path = args.run / JUDGES
    if path.exists() and not args.overwrite:
        raise UserError(f"{path} exists: --overwrite replaces it")
    must_be_writable(args.run)
    set_up(args.threads)
    saved = load_models(args.run, args.which)
    native.set_up_like(saved.args, device)
    data = data_of_run(args.run, saved.args, args, device)
    judge(args.run, saved, data, Judging(args.judges, args.seed, args.samples), print)
    return 0


if __name__ == "__main__":
    sys.exit(main())
