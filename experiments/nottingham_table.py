"""A table over runs on music: `python experiments/nottingham_table.py "MLE=logs/train/mle-*" "SeqGAN=logs/train/seqgan-*"`.

Reads each run's final.json and prints the mean over runs and half the distance between the largest and the smallest.
"""

from __future__ import annotations

import glob
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from running.runs import number, read_object, read_text
from support.command_line import Parser
from support.errors import UserError, exit_with_one_line, must_have_output

COLUMNS = {
    "bleu4": "BLEU-4",
    "mse": "MSE",
    "nll_test": "NLL_test",
    "pitch_class_distance": "pitch classes",
    "interval_distance": "intervals",
    "copied": "copies",
    "self_bleu4": "self-BLEU-4",
}


def read_runs(pattern: str) -> list[dict]:
    """The final numbers of all runs that a pattern names; raises UserError where there are none, or a file is broken."""
    paths = [Path(name) / "final.json" for name in sorted(glob.glob(pattern))]
    finished = [read_object(path, read_text(path)) for path in paths if path.is_file()]
    if not finished:
        raise UserError(f"{pattern}: no finished run")
    return finished


def cell(runs: list[dict], name: str) -> str:
    """Mean and half range of one number over runs, or a dash."""
    values = [value for run in runs if (value := number(run, name)) is not None]
    if not values:
        return "–"
    mean, spread = statistics.mean(values), (max(values) - min(values)) / 2
    digits = 2 if abs(mean) >= 10 else 3
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = Parser(description="Print a Markdown table over runs on music.", allow_abbrev=False)
    parser.add_argument("rows", nargs="+", metavar="NAME=PATTERN", help="a row's name and the run folders it stands for")
    rows = [row.partition("=") for row in parser.parse_args(argv).rows]
    must_have_output()
    for name, _, pattern in rows:
        if not (name and pattern):
            raise UserError(f"{name or pattern!r}: a row is NAME=PATTERN")
    found = {name: read_runs(pattern) for name, _, pattern in rows}
    print("| | runs | " + " | ".join(COLUMNS.values()) + " |\n|---|---|" + "---|" * len(COLUMNS))
    for name, runs in found.items():
        print(f"| {name} | {len(runs)} | " + " | ".join(cell(runs, column) for column in COLUMNS) + " |")
    everything = [run for runs in found.values() for run in runs]
    print("| real training windows | | " + " | ".join(cell(everything, f"real_{column}") for column in COLUMNS) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
