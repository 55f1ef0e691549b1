"""A table over runs, beside the paper's numbers: `python report.py "MLE=logs/table1/mle-*" "SeqGAN=logs/table1/seqgan-*"`.

Reads each run's config.json, metrics.jsonl and final.json. Plain folders without a NAME= are grouped: one row for runs whose
settings differ in nothing but seeds, names and folders. An evaluation is a line of metrics.jsonl; the one with the lowest
NLL_valid is where early stopping would have stopped (NLL_test for runs that were not measured on validation sequences).
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from running.adversarial_summary import adversarial_summary
from running.authors_log import write_authors_logs
from running.curves import draw_curves
from running.paper_tables import ORACLE, TABLES, Table
from running.run_folder import JUDGES_NUMBERS
from running.runs import MOST_EPOCHS, Record, Run, group_runs, is_count, number, read_object, read_text
from running.two_sample import with_aucs
from support.command_line import Parser, real
from support.errors import UserError, exit_with_one_line, must_have_output
from support.t_test import mean_interval, welch

PAPER_SIZES = {"vocab_size": 5000, "seq_len": 20}
UNSTABLE = ("g100d1k10",)  # rows that the paper describes as unstable


@dataclass(frozen=True)
class Row:
    """A row of the table: runs at their end, or where early stopping would have stopped them, or at another temperature."""

    name: str
    runs: list[Run]
    early_stopped: bool = False
    measured: list[Record] | None = None

    @property
    def original(self) -> bool:
        """Whether it is not derived from another row."""
        return not self.early_stopped and self.measured is None

    @property
    def nll_valid(self) -> float | None:
        """Mean NLL_valid of a row at another temperature, by which one may be chosen; None for other rows."""
        values = [value for record in self.measured or [] if (value := number(record, "nll_valid")) is not None]
        return math.fsum(values) / len(values) if values else None

    def records(self, final: bool) -> list[Record]:
        """One record a run: its last evaluation, final.json where asked for, or what the row is derived from."""
        if self.measured is not None:
            return self.measured
        if self.early_stopped:
            return [run.early_stopped for run in self.runs]
        return [run.final if final and run.final else run.evaluations[-1] for run in self.runs]


def plain(name: str) -> str:
    """A row's name for comparison: letters and digits in lower case."""
    return "".join(c for c in name.lower() if c.isalnum())


def find_row(rows: list[Row], name: str) -> Row:
    """The row of this name, written in any case and with any hyphens; raises UserError."""
    found = [row for row in rows if row.name == name] or [row for row in rows if plain(row.name) == plain(name)]
    if found:
        return found[0]
    raise UserError(f"no row {name!r}: there are {'; '.join(row.name for row in rows)}")


def add_early_stopped(rows: list[Row], names: list[str]) -> list[Row]:
    """The rows, each of those named followed by its early-stopped twin; raises UserError for a name without a row."""
    chosen = [find_row(rows, name) for name in names]
    twins = {id(row): [Row(f"{row.name}, early-stopped", row.runs, True)] for row in chosen}
    return [each for row in rows for each in (row, *twins.get(id(row), []))]


def add_temperatures(rows: list[Row], temperatures: list[float]) -> list[Row]:
    """The rows, each followed by one for its last generators at each temperature; raises UserError for a run without last.pt."""
    records_at = importlib.import_module("running.temperatures").records_at  # loads torch
    found = []
    for row in rows:
        found.append(row)
        if not row.original:
            continue
        by_run = [records_at(run.folder, temperatures) for run in row.runs]
        for value, measured in zip(temperatures, zip(*by_run, strict=True), strict=True):
            found.append(Row(f"{row.name}, temperature {value:g}", row.runs, measured=list(measured)))
    return found


def add_resampled(rows: list[Row]) -> list[Row]:
    """The rows, each followed by one of the resampled sequences that judges.py measured, where all its runs have judges."""
    found = []
    for row in rows:
        found.append(row)
        files = [run.folder / JUDGES_NUMBERS for run in row.runs]
        if row.original and all(path.is_file() for path in files):
            measured = [read_object(path, read_text(path)).get("resampled") for path in files]
            for path, record in zip(files, measured, strict=True):
                if not isinstance(record, dict):
                    raise UserError(f"{path} holds no numbers of resampled sequences")
            found.append(Row(f"{row.name}: best.pt, resampled", row.runs, measured=measured))
    return found


def summary(row: Row, final: bool, table: Table) -> Record:
    """All numbers of a row: means over runs, half widths of their 95 % intervals (None for one run), and the runs' own."""

    def over_runs(records: list[Record], names: Iterable[str]) -> dict[str, Record | None]:
        means = {}
        for name in names:
            values = [value for record in records if (value := number(record, name)) is not None]
            mean, half = mean_interval(values) if values else (None, None)
            means[name] = {"mean": mean, "interval": half, "runs": len(values)} if values else None
        return means

    def one(record: Record) -> Record:
        keep = [name for column in table.columns for name in (column, f"{column}_error")]
        step = record.get("step")
        return {
            "step": step if is_count(step, MOST_EPOCHS) else None,
            **{name: number(record, name) for name in keep if name in record},
        }

    records = row.records(final)
    stopped = [run.early_stopped for run in row.runs]
    end = over_runs(records, table.columns)
    beside = []
    for name, values in table.paper.items():
        paper = values.get(plain(row.name)) if end[name] else None  # runs on other data may have the same names
        beside.append({"measure": name, "paper": paper, "difference": None if paper is None else end[name]["mean"] - paper})
    return {
        "name": row.name,
        "runs": [
            {"folder": str(run.folder), "seed": run.settings["seed"], "end": one(record), "early_stopped": one(stop)}
            for run, record, stop in zip(row.runs, records, stopped, strict=True)
        ],
        "end": end,
        "early_stopped": over_runs(stopped, table.stopped),
        "paper": beside[0]["paper"],
        "difference": beside[0]["difference"],
        "beside_paper": beside,
        "real": over_runs(records, [f"real_{name}" for name in table.columns]) if table.real else {},
    }


def fitting_table(rows: list[Row]) -> Table:
    """The table for what the runs measure."""
    for name in ("text", "music"):
        if all(TABLES[name].measured in run.evaluations[-1] for row in rows for run in row.runs):
            return TABLES[name]
    return ORACLE


def t_test(rows: list[Row], names: list[str], final: bool, table: Table, measure: str) -> Record:
    """Welch's two-sided test of a number between two rows; raises UserError where a row is missing or has too few runs."""
    chosen = [find_row(rows, name) for name in names]
    samples = [[v for record in row.records(final) if (v := number(record, measure)) is not None] for row in chosen]
    title = table.columns[measure]
    for row, sample in zip(chosen, samples, strict=True):
        if len(sample) < 2:
            raise UserError(f"--ttest needs two or more runs with {title} on each side: {row.name} has {len(sample)}")
    try:
        t, freedom, p = welch(*samples)
    except ValueError as error:
        raise UserError(f"--ttest {chosen[0].name} {chosen[1].name}: {error}") from error
    difference = math.fsum(samples[0]) / len(samples[0]) - math.fsum(samples[1]) / len(samples[1])
    return {"rows": [row.name for row in chosen], "measure": title, "difference": difference, "t": t, "freedom": freedom, "p": p}


def run_notes(row: Row, final: bool) -> list[str]:
    """Notes on a row's runs: which are unfinished, and why they are not equal or not independent."""
    found = []
    for run in row.runs:
        if run.final is None:
            instead = "; its last evaluation stands for final.json" if final else ""
            reached = run.evaluations[-1]["step"]
            found.append(f"{run.folder} is unfinished, evaluated up to epoch {reached} of {run.planned}{instead}")
    ends = sorted({run.evaluations[-1]["step"] for run in row.runs if run.final is not None})
    if len(ends) > 1:
        found.append(f"the runs end at different epochs: {', '.join(map(str, ends))}")
    if len({(run.settings["seed"], run.oracle) for run in row.runs}) < len(row.runs):
        found.append("several runs have the same seed, so that they are not independent")
    if len({run.oracle for run in row.runs}) > 1:
        found.append("the runs have different oracles (--oracle_seed), whose differences the intervals hold as well")
    return [f"{row.name}: {text}" for text in found]


def notes(rows: list[Row], final: bool, table: Table) -> list[str]:
    """Notes below the table: on the runs, and where the paper's number is for another experiment."""
    found = [f"{row.name}: NLL_valid {row.nll_valid:.4f}" for row in rows if row.nll_valid is not None]
    rows = [row for row in rows if row.original]
    found += [text for row in rows for text in run_notes(row, final)]
    if table.paper is not ORACLE.paper:
        return found
    beside_paper = [row for row in rows if summary(row, final, table)["paper"] is not None]
    other_sizes = [row for row in beside_paper if not all(run.settings[k] == v for run in row.runs for k, v in PAPER_SIZES.items())]
    other_oracle = [
        row for row in beside_paper if row not in other_sizes and any(run.settings.get("oracle_params") is None for run in row.runs)
    ]
    for some, text in (
        (other_sizes, "the paper's number is for V = 5000 and T = 20, these runs have other sizes"),
        (other_oracle, "the paper's number is for its authors' oracle (--oracle_params), these runs have another"),
        ([row for row in beside_paper if plain(row.name) in UNSTABLE], "unstable in the paper"),
    ):
        if some:
            found.append(f"{'; '.join(row.name for row in some)}: {text}")
    return found


def markdown(table: Table, summaries: list[Record], tests: list[Record], remarks: list[str], final: bool) -> str:
    """The table as Markdown, with explanations and notes below it."""

    def cell(mean: Record | None, runs: int) -> str:
        if mean is None:
            return "–"
        interval = "" if mean["interval"] is None else f" ± {mean['interval']:.3f}"
        fewer = "" if mean["runs"] == runs else f" (of {mean['runs']})"
        return f"{mean['mean']:.3f}{interval}{fewer}"

    several = len(table.paper) > 1
    beside = [f"{word}{f', {table.columns[name]}' if several else ''}" for name in table.paper for word in ("paper", "difference")]
    titles = ["", "runs", *table.columns.values(), *table.stopped.values(), *beside]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in summaries:
        runs = len(row["runs"])
        means = [cell(row["end"][name], runs) for name in table.columns]
        means += [cell(row["early_stopped"][name], runs) for name in table.stopped]
        for each in row["beside_paper"]:
            means.append("–" if each["paper"] is None else f"{each['paper']:.3f}")
            means.append("–" if each["difference"] is None else f"{each['difference']:+.3f}")
        name = " ".join(row["name"].split()).replace("|", "\\|")
        lines.append(f"| {' | '.join([name, str(runs), *means])} |")
    if table.real:
        runs = len(summaries[0]["runs"])
        means = [cell(summaries[0]["real"][f"real_{name}"], runs) for name in table.columns]
        lines.append(f"| {' | '.join(['real training data', '', *means, *['–'] * len(beside)])} |")
    where = "at the end (final.json)" if final else "at the last evaluation"
    stopped = ", and at the evaluation with the lowest NLL_valid (early-stopped)" if table.stopped else ""
    difference = (
        f" Difference: our {table.columns[table.tested]} − the paper's." if not several else " Difference: ours − the paper's."
    )
    lines += ["", f"{table.caption} {where}{stopped}."]
    lines += [f"Means over runs ± half a 95 % interval (Student's t; none for one run).{difference}"]
    for test in tests:
        one, two = test["rows"]
        p = "p < 1e-6" if test["p"] < 1e-6 else f"p = {test['p']:.2g}"
        told = f"difference {test['difference']:+.3f}, t = {test['t']:.3f}, {test['freedom']:.1f} degrees of freedom, {p}"
        lines.append(f"- Welch's t-test (two-sided) of {test['measure']}, {one} against {two}: {told}")
    return "\n".join([*lines, *(f"- {remark}" for remark in remarks)])


def temperature_list(text: str) -> list[float]:
    """An argparse type: `0.8,0.9` -> [0.8, 0.9]."""
    return [real(0.01, 100)(part) for part in text.split(",")]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(description="Print a Markdown table over runs, beside the paper's numbers.", allow_abbrev=False)
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN|NAME=RUNS",
        help="run folders (--log_dir), also as a quoted glob; with NAME= a row of that name, else a row for equal settings",
    )
    parser.add_argument("--final", action="store_true", help="take final.json (and two_sample.json), not the last evaluation")
    parser.add_argument(
        "--early_stopped", action="append", default=[], metavar="NAME", help="a further row: NAME as early stopping would leave it"
    )
    parser.add_argument(
        "--ttest",
        nargs=2,
        action="append",
        default=[],
        metavar=("A", "B"),
        help="Welch's t-test between two rows, of the number that the paper compares",
    )
    parser.add_argument(
        "--adversarial",
        action="store_true",
        help="below the table, what the adversarial phase of each run did, as its last lines say",
    )
    parser.add_argument("--resampled", action="store_true", help="further rows: the resampled sequences of runs with judges")
    parser.add_argument(
        "--temperatures",
        type=temperature_list,
        default=[],
        metavar="X,...",
        help="further rows: the last generators with their logits divided by X, measured as final.json is (slow)",
    )
    parser.add_argument("--curves", type=Path, metavar="FILE.png", help="draw the learning curves: median, and smallest to largest")
    parser.add_argument("--authors_log", type=Path, metavar="DIR", help="write each run's NLL_oracle in the authors' log format")
    parser.add_argument(
        "--table",
        choices=list(TABLES),
        help="which table of the paper: 1 oracle, 2 poems, 3 speeches; text, music: their measures without the paper's numbers "
        "(default: 1, or text or music for runs on such data)",
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON instead of the table")
    return parser


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    args = build_parser().parse_args(argv)
    must_have_output()
    if args.curves is not None and args.curves.suffix != ".png":
        raise UserError(f"--curves {args.curves}: the picture's name must end in .png")
    rows = [Row(name, runs) for name, runs in group_runs(args.runs)]
    rows = add_early_stopped(rows, args.early_stopped)
    if args.resampled:
        rows = add_resampled(rows)
    if args.temperatures:
        rows = add_temperatures(rows, args.temperatures)
    table = TABLES[args.table] if args.table else fitting_table(rows)
    if args.final:
        table = with_aucs(table, [run.final for row in rows for run in row.runs])
    summaries = [summary(row, args.final, table) for row in rows]
    tests = [t_test(rows, names, args.final, table, measure) for names in args.ttest for measure in table.paper]
    remarks = notes(rows, args.final, table)
    if args.curves is not None:
        draw_curves([(row.name, row.runs) for row in rows if row.original], args.curves)
    if args.authors_log is not None:
        write_authors_logs([run for row in rows for run in row.runs], args.authors_log)
    phases = [(str(run.folder), adversarial_summary(run.evaluations)) for row in rows for run in row.runs if args.adversarial]
    if args.json:
        phases = [{"folder": folder, "lines": lines} for folder, lines in phases]
        print(
            json.dumps({"rows": summaries, "ttests": tests, "notes": remarks, "adversarial": phases}, indent=2, ensure_ascii=False)
        )
        return 0
    print(markdown(table, summaries, tests, remarks, args.final))
    for folder, lines in phases:
        print("\n".join(["", folder, *(lines or ["no adversarial phase, or no evaluation before it"])]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
