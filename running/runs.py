"""Reading the folders of finished and unfinished runs, and grouping those that differ only in their seeds. Does not load torch."""

from __future__ import annotations

import glob
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_sources import SOURCES
from running.flags import BY_NAME, PRESETS, preset_settings
from running.run_folder import CONFIG, FINAL, LAST, METRICS, TWO_SAMPLE
from running.two_sample import table_numbers
from support.command_line import LARGEST_SEED
from support.errors import UserError

MOST_EPOCHS = 2**31
# Whole numbers among the settings that readers compute with, each with its largest value.
COUNTS = {"seed": LARGEST_SEED, "pretrain_g_epochs": MOST_EPOCHS, "total_epochs": MOST_EPOCHS}
LARGEST_NUMBER = 1e150  # squares of larger ones overflow, as in intervals and tests
LARGEST_FILE = 2**28  # bytes; an evaluation takes some 500 of them

Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run, as its files describe it.

    Attributes:
        folder: its --log_dir.
        settings: every flag's value; a flag that an older run does not have gets its preset's.
        evaluations: the objects of metrics.jsonl, at least one.
        final: final.json and the numbers of two_sample.json, or None where the run is unfinished.
    """

    folder: Path
    settings: Record
    evaluations: list[Record]
    final: Record | None

    @property
    def early_stopped(self) -> Record:
        """The best of all evaluations."""
        return best_evaluation(self.evaluations)

    @property
    def oracle(self) -> object:
        """Which oracle it is measured with: the file or the seed of its weights; None for data without an oracle."""
        if not SOURCES[self.settings["dataset"]].has_oracle:
            return None
        seeds = [self.settings[name] for name in ("oracle_seed", "seed")]
        return self.settings.get("oracle_params") or next(seed for seed in seeds if seed is not None)

    @property
    def planned(self) -> int:
        """The number of epochs of G that it was started with."""
        return self.settings["pretrain_g_epochs"] + self.settings["total_epochs"]


def number(record: Record, name: str) -> float | None:
    """A number of a record, or None where it is none, is not finite or is too large to compute with."""
    value = record.get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) <= LARGEST_NUMBER else None


def best_evaluation(evaluations: list[Record]) -> Record:
    """The evaluation with the lowest NLL_valid, or NLL_test where some have none; the last one where none is a number."""
    name = "nll_valid" if all("nll_valid" in row for row in evaluations) else "nll_test"
    numbers = [row for row in evaluations if number(row, name) is not None]
    return min(numbers, key=lambda row: row[name]) if numbers else evaluations[-1]


def is_count(value: object, largest: int) -> bool:
    """Whether it is a whole number from 0 to `largest`."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest


def read_object(path: Path, text: str, line: int | None = None) -> Record:
    """A JSON object; raises UserError, which names the line of the file where one is given."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{path}{f', line {line}' if line else ''} is not a JSON object: broken, or not written by this program")
    return value


def read_text(path: Path) -> str:
    """The text of a run's file.

    Raises:
        UserError: the run lacks it, or it is no text, or too large for a file of a run.
        OSError: it can't be read.
    """
    if not path.exists():
        raise UserError(f"{path.parent} holds no run: there is no {path.name}")
    if not path.is_file():  # reading a pipe or a device may never end
        raise UserError(f"{path} is no regular file")
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise UserError(f"{path} is larger than {LARGEST_FILE // 2**20} MiB: not written by this program")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is broken: it is no text") from None


def read_evaluations(folder: Path) -> list[Record]:
    """The evaluations of a run, at least one, each with its phase, epoch and step.

    Raises:
        UserError: there are none, or the file is missing or broken.
        OSError: it can't be read.
    """
    path = folder / METRICS
    # a process may be writing the last line just now
    lines = [line for line in read_text(path).splitlines(keepends=True) if line.endswith("\n")]
    rows = [read_object(path, line, count) for count, line in enumerate(lines, start=1)]
    for count, row in enumerate(rows, start=1):
        counted = all(is_count(row.get(name), MOST_EPOCHS) for name in ("epoch", "step"))
        if not counted or not isinstance(row.get("phase"), str):
            raise UserError(f"{path}, line {count} is no evaluation: it lacks its phase, epoch or step, or they make no sense")
    if not rows:
        raise UserError(f"{path} holds no evaluation")
    return rows


def check_settings(config: Path, settings: Record) -> None:
    """Refuse settings with which readers can't compute, as no run of this program or of an earlier one has them.

    Raises:
        UserError: one of them is.
    """
    for name, value in settings.items():
        if not _is_setting(value):
            raise UserError(f"{config} is broken: the value of {name[:40]} is neither a number, a text nor a list of these")
    if not all(is_count(settings[name], largest) for name, largest in COUNTS.items()):
        raise UserError(f"{config} is broken: {', '.join(COUNTS)} must be whole numbers")
    if settings["dataset"] not in list(SOURCES):  # a list, unlike the table, can be asked for what has no hash
        raise UserError(f"{config}: this version knows no dataset {str(settings['dataset'])[:40]!r}")
    if not (settings["oracle_seed"] is None or is_count(settings["oracle_seed"], LARGEST_SEED)):
        raise UserError(f"{config} is broken: oracle_seed must be a whole number")
    if not isinstance(settings["oracle_params"], (str, type(None))):
        raise UserError(f"{config} is broken: oracle_params must be a file's name")


def _is_setting(value: object, depth: int = 2) -> bool:
    """Whether a flag's value can be it: d_filters is a list of pairs."""
    if isinstance(value, list):
        return depth > 0 and all(_is_setting(item, depth - 1) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        UserError: a file is missing or broken.
        OSError: one can't be read.
    """
    config = folder / CONFIG
    args = read_object(config, read_text(config)).get("args")
    if not isinstance(args, dict):
        raise UserError(f"{config} holds no settings")
    preset = args.get("preset")
    settings = {**preset_settings(preset if preset in PRESETS else "default"), **args}
    check_settings(config, settings)
    return Run(folder, settings, read_evaluations(folder), read_final(folder) if (folder / FINAL).exists() else None)


def read_final(folder: Path) -> Record:
    """The object of final.json with the numbers of two_sample.json, where the run has it; raises UserError, OSError."""
    numbers = read_object(folder / FINAL, read_text(folder / FINAL))
    path = folder / TWO_SAMPLE
    return {**numbers, **table_numbers(read_object(path, read_text(path)))} if path.exists() else numbers


def find_runs(pattern: str) -> list[Path]:
    """The run folders that a path or a glob names; of a glob's matches, only folders that hold a file of a run.

    Raises:
        UserError: there are none.
    """
    if Path(pattern).exists():
        return [Path(pattern)]
    files = (CONFIG, METRICS, LAST, FINAL)
    found = [path for path in map(Path, sorted(glob.glob(pattern))) if any((path / name).is_file() for name in files)]
    if not found:
        raise UserError(f"{pattern}: no such run")
    return found


def compared(run: Run) -> dict[str, str]:
    """The settings by which runs are grouped, as text."""
    started = {"start_from": run.settings.get("start_from") is not None}  # the folder differs from seed to seed
    names = [name for name in run.settings if name not in BY_NAME or BY_NAME[name].compared]
    return {name: json.dumps({**run.settings, **started}[name]) for name in names}


def stem(run: Run) -> str:
    """The name of a run's folder without the number of its seed and the time: `mle-3`, `mle-seed3-20261121-034730` -> `mle`."""
    return re.sub(rf"[-_.]?(seed)?[-_.]?0*{run.settings['seed']}(-\d{{8}}-\d{{6}})?$", "", run.folder.resolve().name)


def group_names(groups: list[list[Run]]) -> list[str]:
    """Names for groups of runs: the common stem of their folders, and where that is not enough the settings that differ."""
    if len(groups) == 1 and len(groups[0]) == 1:
        return [groups[0][0].folder.resolve().name]
    stems = [{stem(run) for run in runs} for runs in groups]
    common = [found.pop() if len(found) == 1 else "" for found in stems]
    settings = [compared(runs[0]) for runs in groups]
    every_key = dict.fromkeys(key for each in settings for key in each)
    differing = [key for key in every_key if len({each.get(key) for each in settings}) > 1]
    names = []
    for name, values in zip(common, settings, strict=True):
        if not name or common.count(name) > 1:
            told = ", ".join(f"{key} {values[key]}" for key in differing if key in values).replace('"', "")
            name = f"{name} ({told})".strip() if told else name or "all runs"
        names.append(name)
    return names


def group_runs(arguments: list[str]) -> list[tuple[str, list[Run]]]:
    """Named groups from RUN and NAME=RUNS arguments, RUN and RUNS being folders or globs; a run counts once in a group.

    Runs without a NAME are one group where their settings are equal, whatever their seeds, names and folders.

    Raises:
        UserError: a name or a run is missing, or a file is broken.
        OSError: a file can't be read.
    """
    read: dict[Path, Run] = {}
    groups: dict[tuple, dict[Path, Run]] = {}
    for argument in arguments:
        name, equals, pattern = argument.partition("=")
        named = bool(equals) and not Path(argument).exists()
        if named and not (name.strip() and pattern):
            raise UserError(f"{argument!r}: a row is NAME=RUNS")
        for folder in find_runs(pattern if named else argument):
            place = folder.resolve()
            if place not in read:
                read[place] = read_run(folder)
            key = (name.strip(),) if named else (None, *sorted(compared(read[place]).items()))
            groups.setdefault(key, {})[place] = read[place]
    runs = {key: list(group.values()) for key, group in groups.items()}
    unnamed = [key for key in runs if key[0] is None]
    names = dict(zip(unnamed, group_names([runs[key] for key in unnamed]), strict=True)) if unnamed else {}
    return [(names.get(key, key[0]), group) for key, group in runs.items()]
