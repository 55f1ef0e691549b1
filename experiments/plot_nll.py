"""Learning curves of runs as a PNG: `python experiments/plot_nll.py RUN [RUN ...] --out curves.png`.

A RUN is a --log_dir; its metrics.jsonl is read. Needs matplotlib (requirements-dev.txt).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from running.curves import cut_off, import_pyplot
from running.runs import number, read_evaluations
from support.command_line import Parser
from support.errors import UserError, exit_with_one_line

SHOWN = 2.5  # times the range of the pre-training, from the lowest value up
PANELS = (("nll_oracle", "NLL_oracle: generated sequences under the oracle"), ("nll_test", "NLL_test: held-out sequences under G"))


def read_run(log_dir: Path) -> tuple[list[dict], float]:
    """The evaluations of a run and the oracle's entropy.

    Raises:
        UserError: the folder holds no evaluations against an oracle, or broken ones.
    """
    measured = ("nll_oracle", "nll_test", "oracle_entropy")
    rows = [row for row in read_evaluations(log_dir) if all(number(row, name) is not None for name in measured)]
    if not rows:
        raise UserError(f"{log_dir} is no run against the oracle")
    return rows, rows[-1]["oracle_entropy"]


def draw(runs: dict[str, tuple[list[dict], float]], out: Path) -> None:
    """Both NLLs of every run against the epochs of G, in two panels; raises UserError where matplotlib is missing."""
    figure, axes = import_pyplot().subplots(1, 2, figsize=(11, 4.2), sharex=True, layout="constrained")
    for axis, (key, title) in zip(axes, PANELS, strict=True):
        for name, (rows, _) in runs.items():
            axis.plot([row["step"] for row in rows], [row[key] for row in rows], label=name, linewidth=1.2)
            starts = [row["step"] for row in rows if row["phase"] == "adversarial"]
            if starts:
                axis.axvline(starts[0], color="grey", linewidth=0.6, linestyle=":")
        for floor in {entropy for _, entropy in runs.values()}:
            axis.axhline(floor, color="black", linewidth=0.8, linestyle="--", label="entropy of the oracle")
        # A policy that collapses would flatten all other curves: what lies far above the pre-training is cut off, says the title.
        shown = [row for rows, _ in runs.values() for row in rows]
        low = min(*(row[key] for row in shown), *(floor for _, floor in runs.values()))
        high = max(row[key] for row in shown)
        trained = max((row[key] for row in shown if row["phase"] == "pretrain_g"), default=high)
        axis.set_title(title + cut_off(axis, low, min(high, low + SHOWN * (trained - low)), high), fontsize=10)
        axis.set_xlabel("epochs of G")
        axis.set_ylabel("nats per token")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(out, dpi=130)


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = Parser(description="Draw the learning curves of runs.", allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder (its --log_dir)")
    parser.add_argument("--out", type=Path, default=Path("nll.png"), metavar="FILE", help="the picture (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.out.suffix != ".png":
        raise UserError(f"--out {args.out}: the picture's name must end in .png")
    names = [run.name for run in args.runs]
    draw({run.name if names.count(run.name) == 1 else str(run): read_run(run) for run in args.runs}, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
