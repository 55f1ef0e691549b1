"""The runs that a declaration of sweep.py means: rows times seeds, checked before anything is started. Does not load torch."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from running.flags import BY_NAME, build_parser, preset_settings
from running.run_folder import CONFIG, FINAL, JUDGES_NUMBERS, LAST, METRICS
from running.runs import read_object, read_text
from running.training_flags import filter_list
from support.command_line import LARGEST_SEED
from support.errors import UserError

MOST_RUNS = 10_000
SEED = "{seed}"  # stands for the seed in --start_from
ROW = "--row"
# Flags of main.py that sweep.py gives, with its own way to say the same.
OWN = {
    "seed": "--seeds says which",
    "log_dir": "--name or --folder says where",
    "eval_log_dir": "--name or --folder says where",
    "run_name": "--name or --folder says where",
    "resume": "it resumes what was interrupted",
    "overwrite": "choose another --name, or remove the folder",
    "is_train": "it trains",
}


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seeds only.

    Attributes:
        name: the start of their folders' names.
        title: its name in the table.
        flags: for main.py.
        given: the same, parsed.
    """

    name: str
    title: str
    flags: tuple[str, ...]
    given: dict[str, Any]

    @property
    def preset_threads(self) -> int:
        """The number of threads that its preset has; 0: the preset says nothing."""
        return preset_settings(self.given.get("preset", "default"))["threads"]


@dataclass(frozen=True)
class PlannedRun:
    """One run: its row and seed, the folders of the run and of its evaluations, and the folder of the run that it starts from."""

    row: Row
    seed: int
    folder: Path
    eval_folder: Path
    source: str | None

    @property
    def name(self) -> str:
        """Of the row, with the seed."""
        return self.folder.name

    @property
    def results(self) -> tuple[Path, ...]:
        """The files that it has when it is finished, in the order in which they are written."""
        judges = self.row.given.get("judges", preset_settings(self.row.given.get("preset", "default"))["judges"])
        return (self.folder / FINAL, *([self.folder / JUDGES_NUMBERS] if judges else []))

    @property
    def finished(self) -> bool:
        """Whether it has the numbers of its end."""
        return all(path.exists() for path in self.results)

    @property
    def interrupted(self) -> bool:
        """Whether it can go on."""
        return not self.finished and (self.folder / LAST).exists()

    def differs(self) -> str | None:
        """A flag that says something else than the run was made with, in words; None: there is none."""
        try:
            made = read_object(self.folder / CONFIG, read_text(self.folder / CONFIG)).get("args")
        except (UserError, OSError):  # report.py will say what is wrong
            return None
        for name, value in self.row.given.items():
            if isinstance(made, dict) and BY_NAME[name].compared and name != "start_from" and made.get(name, value) != value:
                return f"--{name} {made[name]}, not {value}"
        return None


def parse_seeds(text: str) -> list[int]:
    """The seeds of `1-3,7`; raises UserError."""
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,19})\s*(?:-\s*(\d{1,19})\s*)?", part, re.ASCII)
        if not found:
            raise UserError(f"--seeds {text!r}: {part!r} is neither a seed nor a range such as 1-20")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise UserError(f"--seeds {text!r}: {part.strip()} is an empty range")
        if last > LARGEST_SEED:
            raise UserError(f"--seeds {text!r}: seeds are at most {LARGEST_SEED}")
        if last - first >= MOST_RUNS:
            raise UserError(f"--seeds {text!r}: that is more than {MOST_RUNS} runs")
        seeds += range(first, last + 1)
    twice = [seed for count, seed in enumerate(seeds) if seed in seeds[:count]] if len(set(seeds)) < len(seeds) else []
    if twice:
        raise UserError(f"--seeds {text!r}: {twice[0]} is there twice")
    return seeds


def parse_setting(text: str) -> tuple[str, list[str]]:
    """`reward=bleu,constant` -> ("reward", ["bleu", "constant"]); values that hold commas are parted by semicolons.

    Raises:
        UserError: it is no flag of main.py with one or more different values.
    """
    name, equals, values = text.partition("=")
    name = name.strip().removeprefix("--")
    if not equals:
        raise UserError(f"--set {text}: write --set FLAG=VALUE,VALUE")
    if name not in BY_NAME:
        raise UserError(f"--set {text}: main.py has no flag --{name}")
    by_semicolons = ";" in values or BY_NAME[name].type is filter_list
    found = [value.strip() for value in values.split(";" if by_semicolons else ",")]
    if "" in found:
        raise UserError(f"--set {text}: a value is missing")
    if len(set(found)) < len(found):
        raise UserError(f"--set {text}: a value is there twice")
    return name, found


def in_a_name(value: str) -> str:
    """A value as a part of a folder's name."""
    return re.sub(r"[^\w.+-]+", "_", value)


def parse_rows(name: str, settings: Sequence[str], words: Sequence[str]) -> list[Row]:
    """The rows of a declaration.

    Args:
        name: of the sweep, and of a row without settings.
        settings: the values of --set.
        words: flags for all runs, then, for rows with flags of their own, --row NAME FLAGS... each.

    Raises:
        UserError: a name or a flag is not possible.
    """
    common = tuple(itertools.takewhile(lambda word: word != ROW, words))
    own = _own_rows(words[len(common) :])
    parsed = [parse_setting(text) for text in settings]
    names = [flag for flag, _ in parsed]
    if len(set(names)) < len(names):
        raise UserError(f"--set {max(names, key=names.count)} is there twice")
    rows = []
    for (row, flags), values in itertools.product(own or [("", ())], itertools.product(*(found for _, found in parsed))):
        chosen = list(zip(names, values, strict=True))
        titles = [*([row] if row else []), *(f"{flag} {value}" for flag, value in chosen)]
        parts = [*([row] if row else []), *(f"{flag}-{in_a_name(value)}" for flag, value in chosen)]
        every = (*common, *flags, *(f"--{flag}={value}" for flag, value in chosen))
        rows.append(Row("-".join(parts) or name, ", ".join(titles) or name, every, _parse(every)))
    folders = [row.name for row in rows]
    if len(set(folders)) < len(folders):
        raise UserError(f"two rows would have the name {max(folders, key=folders.count)}")
    return rows


def _own_rows(words: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """The names and flags of `--row NAME FLAGS... --row NAME FLAGS...`; raises UserError."""
    starts = [place for place, word in enumerate(words) if word == ROW]
    rows = []
    for start, end in zip(starts, [*starts, len(words)][1:], strict=True):
        name = words[start + 1] if start + 1 < end else ""
        if not re.fullmatch(r"[\w.+-]+", name) or name.startswith(("-", ".")):
            raise UserError(f"{ROW} {name!r} is no name for a row: {ROW} NAME FLAGS...")
        rows.append((name, tuple(words[start + 2 : end])))
    return rows


def _parse(flags: Sequence[str]) -> dict[str, Any]:
    """The flags as main.py reads them; raises UserError for those that it refuses, or that are sweep.py's own."""

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message} (see python main.py --help)")

    parser = build_parser()
    parser.error = refuse
    if {"-h", "--help"} & set(flags):
        refuse("--help is no flag of a run")
    given = vars(parser.parse_args(list(flags)))
    for name in given:
        if name in OWN:
            raise UserError(f"sweep.py gives --{name} to the runs: {OWN[name]}")
    if not given.get("evaluate", True):
        raise UserError("--evaluate False: without an evaluation at the end, sweep.py can't tell which runs are finished")
    device = given.get("device", "auto")
    if device not in ("auto", "cpu", "cuda", "cuda:0"):
        raise UserError(
            f"--device {device}: sweep.py gives each run one device: --device cuda, and CUDA_VISIBLE_DEVICES for a choice"
        )
    return given


def plan_runs(rows: Sequence[Row], seeds: Sequence[int], folder: Path) -> list[PlannedRun]:
    """All runs, those of the first seed first; raises UserError where a run that one starts from is missing."""
    if len(rows) * len(seeds) > MOST_RUNS:
        raise UserError(f"{len(rows)} rows of {len(seeds)} seeds are more than {MOST_RUNS} runs")
    runs = []
    for seed, row in itertools.product(seeds, rows):
        name = f"{row.name}-{seed}"
        source = row.given.get("start_from")
        own = source.replace(SEED, str(seed)) if source is not None else None
        runs.append(PlannedRun(row, seed, folder / name, folder / "eval" / name, own))
    planned = {run.folder.resolve() for run in runs}
    for run in runs:
        new = not run.finished and not run.interrupted
        if new and run.source is not None and not Path(run.source).exists() and Path(run.source).resolve() not in planned:
            raise UserError(f"{run.name}: --start_from {run.source}: no such run")
    return runs


def find_runs_of(row: Row, folder: Path) -> list[Path]:
    """The evaluated runs of a row in the folder of a sweep, those of other seeds included, in the order of their seeds."""
    pattern = re.compile(rf"{re.escape(row.name)}-\d+")
    found = [path for path in folder.iterdir() if pattern.fullmatch(path.name) and _is_evaluated(path)]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def _is_evaluated(folder: Path) -> bool:
    """Whether a run has evaluations: one that was killed before its first left an empty file."""
    metrics = folder / METRICS
    return metrics.is_file() and metrics.stat().st_size > 0 and (folder / CONFIG).is_file()
