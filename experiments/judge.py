"""How well classifiers tell a run's sequences from real ones: `python experiments/judge.py logs/train/RUN [RUN ...]`.

A classifier two-sample test (Lopez-Paz and Oquab, 2017): a classifier learns from validation sequences and as many generated ones,
and its AUC is measured on test sequences and other generated ones. At 0.5 it can't tell them apart; the lower, the better the
generator. There are two classifiers (classifiers.py), and a floor: the AUC with training sequences in place of generated ones.

Writes the numbers to two_sample.json in each run's folder, which `report.py --final` shows. Needs scikit-learn
(requirements-dev.txt). judges.py, in contrast, trains the judges that sample.py resamples with.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

import support.thread_patience  # noqa: F401  before torch is loaded

# isort: split
import torch
from classifiers import CLASSIFIERS, Kind, Sequences, grouped, import_sklearn, split
from tqdm import tqdm

from data_set import DataSet
from fast import native
from generator import Generator
from metrics import auc
from residual.judges import Judges
from residual.model import AT_ONCE, draw_in_parts
from running.checkpoint import SavedModels, load_models, saved_generator
from running.judges_file import end_token, find_judges
from running.moved_data import add_place_flags, data_of_run
from running.run_folder import TWO_SAMPLE, must_be_writable
from running.runs import read_object, read_text
from support.command_line import Parser, real, whole
from support.errors import UserError, exit_with_one_line
from support.files import write_json
from support.random_streams import stream
from support.threads import set_up

FEWEST = 20  # sequences of a split: with fewer, nothing can be learnt or measured


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(description="Test how well classifiers tell runs' sequences from real ones.", allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders (--log_dir)")
    parser.add_argument("--which", choices=("best", "last"), default=None, help="the run's models, as for sample.py")
    parser.add_argument("--temperature", type=real(1e-6), default=1.0, metavar="X", help="as for sample.py (default: %(default)s)")
    parser.add_argument(
        "--resample", type=whole(1, AT_ONCE), default=None, metavar="K", help="test resampled sequences, as for sample.py"
    )
    parser.add_argument(
        "--resample_beta", type=real(0, 100), default=None, metavar="β", help="exponent of their odds, as for sample.py"
    )
    parser.add_argument(
        "--seeds", type=whole(1), default=3, metavar="N", help="samples and classifiers drawn anew so often (default: %(default)s)"
    )
    parser.add_argument(
        "--num", type=whole(FEWEST), default=5000, metavar="N", help="real sequences of each split, at most (default: %(default)s)"
    )
    parser.add_argument("--threads", type=whole(0, 1024), default=0, help="CPU threads; 0 leaves the choice to torch")
    add_place_flags(parser)
    parser.add_argument(
        "--floor", action=argparse.BooleanOptionalAction, default=True, help="also test training sequences (default: %(default)s)"
    )
    return parser


class Reals(NamedTuple):
    """The real sequences of a run by split, as `DataSet.judged` has them."""

    valid: Sequences
    test: Sequences
    train: Sequences


class Source(NamedTuple):
    """What generated sequences are drawn from.

    Attributes:
        generator: G.
        judges: of `sample.py --resample`, or None.
        seq_len: T.
        temperature: divides the logits.
        candidates: K, among which judges choose.
    """

    generator: Generator
    judges: Judges | None
    seq_len: int
    temperature: float
    candidates: int

    def draw(self, num: int, seed: int) -> Sequences:
        """Generated sequences, none of which belong together."""
        rngs = (stream(seed, "two-sample test"), stream(seed, "two-sample test: resampling"))
        tokens, _ = draw_in_parts(self.generator, self.judges, num, self.seq_len, self.candidates, rngs, self.temperature)
        return Sequences(tokens, torch.arange(num))


def read_reals(folder: Path, data: DataSet) -> Reals:
    """The real sequences of a run's data; raises UserError where there are too few."""
    if data.valid is None:
        raise UserError(f"{folder}: there are no validation sequences for classifiers to learn from")
    judged = data.judged()
    for name, tokens in zip(judged._fields, judged, strict=True):
        if len(tokens) < FEWEST:
            raise UserError(f"{folder}: {len(tokens)} sequences of the {name} split are too few: classifiers need {FEWEST}")
    return Reals(*map(grouped, judged))


def choose(sequences: Sequences, num: int, rng: torch.Generator) -> Sequences:
    """At most so many at random, in their order."""
    chosen = sequences.at(torch.randperm(len(sequences.tokens), generator=rng)[:num].sort().values)
    return Sequences(chosen.tokens.long(), chosen.groups)


def areas(reals: Reals, source: Source, kind: Kind, args: argparse.Namespace, bar: tqdm) -> dict[str, dict[str, list[float]]]:
    """The AUC of each classifier with each seed, of generated sequences and of training sequences ("floor").

    Classifiers learn from validation sequences only, and are measured on test sequences only.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(args.seeds):
        rng = stream(seed, "two-sample test: real sequences")
        valid, test = (choose(part, args.num, rng) for part in (reals.valid, reals.test))
        sizes = [len(valid.tokens), len(test.tokens)]
        drawn = source.draw(sum(sizes), seed)
        sides = {"generated": tuple(Sequences(*part) for part in zip(*(each.split(sizes) for each in drawn), strict=True))}
        if args.floor:
            halves = split(reals.train, sizes[0] / sum(sizes), rng)
            sides["floor"] = tuple(choose(half, size, rng) for half, size in zip(halves, sizes, strict=True))
        for name, (to_learn, to_measure) in sides.items():
            for classifier, fit in CLASSIFIERS.items():
                scores = fit(valid, to_learn, kind, seed)
                value = auc(scores(test.tokens), scores(to_measure.tokens))
                found.setdefault(name, {}).setdefault(classifier, []).append(value)
                bar.update()
    return found


def summary(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation (None for a single seed) and the seeds' own values."""
    return {"auc": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else None, "seeds": values}


def setting(saved: SavedModels, args: argparse.Namespace) -> str:
    """What the numbers are of, as two_sample.json names it: the models, and how sequences are drawn from them."""
    words = [saved.path.stem]
    if args.temperature != 1:
        words.append(f"temperature {args.temperature:g}")
    if args.resample is not None:
        words.append(f"resample {args.resample}")
    if args.resample_beta is not None:
        words.append(f"β {args.resample_beta:g}")
    return " ".join(words)


def read_entries(folder: Path) -> dict[str, Any]:
    """What two_sample.json holds of other settings; raises UserError where it is broken."""
    path = folder / TWO_SAMPLE
    return read_object(path, read_text(path)) if path.exists() else {}


def measure_run(folder: Path, args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Measure one run and write two_sample.json.

    Returns:
        The setting and its numbers.

    Raises:
        UserError: a file is missing or broken, or there are too few real sequences.
        OSError: a file can't be read or written.
    """
    saved = load_models(folder, args.which)
    native.set_up_like(saved.args, torch.device("cpu"))
    data = data_of_run(folder, saved.args, args, torch.device("cpu"))
    generator = saved_generator(saved)
    judges = None if args.resample is None else find_judges(saved, generator, args.resample_beta)
    reals = read_reals(folder, data)
    source = Source(generator, judges, data.seq_len, args.temperature, args.resample or 1)
    total = args.seeds * len(CLASSIFIERS) * (2 if args.floor else 1)
    with tqdm(total=total, desc=str(folder), unit="fit", leave=False, disable=not sys.stderr.isatty()) as bar:
        found = areas(reals, source, Kind(data.vocab_size, end_token(saved.args)), args, bar)
    numbers = {
        "models": saved.about.removeprefix(f"{saved.path}: "),
        "train": min(args.num, len(reals.valid.tokens)),
        "test": min(args.num, len(reals.test.tokens)),
        **{name: summary(values) for name, values in found["generated"].items()},
        "floor": {name: summary(values) for name, values in found["floor"].items()} if args.floor else None,
    }
    name = setting(saved, args)
    write_json(folder / TWO_SAMPLE, {**read_entries(folder), name: numbers})
    return name, numbers


def cell(value: dict[str, Any]) -> str:
    """An AUC for the screen."""
    spread = value["sd"]
    return f"{value['auc']:.3f}" + (f" ± {spread:.3f}" if spread is not None and math.isfinite(spread) else "")


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    args = build_parser().parse_args(argv)
    import_sklearn()
    if args.resample is None and args.resample_beta is not None:
        raise UserError("--resample_beta has no effect without --resample")
    for folder in args.runs:
        if not folder.is_dir():
            raise UserError(f"no run at {folder}: the test needs its folder")
        must_be_writable(folder)
        read_entries(folder)
    set_up(args.threads)
    width = max(len("training sequences") + 2, *(len(str(folder)) for folder in args.runs))
    print(f"{'AUC':<{width}}  {'models':<24}" + "".join(f"  {name:>15}" for name in CLASSIFIERS), flush=True)
    for folder in args.runs:
        name, numbers = measure_run(folder, args)
        rows = [(str(folder), name, numbers)]
        if args.floor:
            rows.append(("  training sequences", "", numbers["floor"]))
        for title, models, values in rows:
            print(f"{title:<{width}}  {models:<24}" + "".join(f"  {cell(values[key]):>15}" for key in CLASSIFIERS), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
