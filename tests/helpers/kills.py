"""Runs that are killed at random moments and file operations until they end, compared with unbroken ones."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from helpers.cli import ROOT, TINY, json_lines, same, scalars, trained_state
from helpers.processes import popen
from helpers.tunes import MUSIC, split_folder

TIMEOUT = 60.0  # seconds, after which a process hangs: one takes less than one
KINDS = ("oracle", "recipe", "music", "text")
MOST_OPERATIONS = 40  # that change files, in a process
LONGEST_DELAY = 0.8  # seconds, after which a process is killed that is not killed at an operation
NEVER = 10**9
MOST_KILLS = 60  # of one run: after so many it must go on undisturbed
PHASES = "--pretrain_g_epochs 6 --pretrain_d_epochs 3 --total_epochs 5 --eval_every 2 --save_every 2".split()
WORDS = [f"the {a} {b}" + " again" * (i % 3) for i, (a, b) in enumerate((a, b) for a in ("cat", "dog", "cow") for b in "abcdefgh")]

# `python -c`: the command that follows, killed at a file operation. It begins with what a test may change in the program.
KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
import main
{change}
from helpers.file_operations import killing_at
killing_at({operation}, Path({folder!r}))
sys.exit(main.main())
"""


@dataclass(frozen=True)
class Kind:
    """A kind of run: its name and the flags that begin it."""

    name: str
    flags: tuple[str, ...]


def kinds(folder: Path) -> list[Kind]:
    """A run on each data set, whose files are made below a folder."""
    tunes = split_folder(folder / "tunes")
    lines = folder / "lines.txt"
    lines.write_text("".join(f"{line}\n" for line in WORDS * 2))
    text = ["--dataset", "Text", "--data_path", str(lines), "--sample_every", "3"]
    tiny = [flag for flag in TINY if flag != "--vocab_size"]
    tiny.remove("20")  # a text has its own vocabulary
    return [
        Kind("oracle", (*TINY, *PHASES)),
        Kind("recipe", (*TINY, *PHASES, *"--kl_weight 0.1 --rollout_num 0 --baseline leave_one_out --patience 2".split())),
        Kind("music", (*TINY, *MUSIC, *PHASES, "--data_dir", str(tunes))),
        Kind("text", (*tiny, *text, *PHASES)),
    ]


def finish(arguments: list[str], cwd: Path, delay: float | None = None) -> tuple[int | None, str]:
    """Run Python to its end, or kill it after some seconds: its exit status, None where it hangs, and its stderr."""
    process = popen(*arguments, cwd=cwd)
    if delay is not None:
        try:
            process.communicate(timeout=delay)
        except subprocess.TimeoutExpired:
            process.kill()
    try:
        _, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None, ""
    return process.returncode, err


def comparable(folder: Path) -> dict:
    """All that a run leaves, without the clock."""
    log_dir = folder / "train"
    lines = {name: json_lines(log_dir / name) for name in ("metrics.jsonl", "training.jsonl")}
    files = {str(p.relative_to(log_dir)): p.read_bytes() for p in sorted(log_dir.glob("samples/**/*")) if p.is_file()}
    final = json.loads((log_dir / "final.json").read_text())
    return {**lines, "final": final, "samples": files, **{name: scalars(folder / name) for name in ("train", "eval")}}


def equal(one: Path, two: Path) -> bool:
    """Whether two runs ended with the same weights, random streams, log points, samples and numbers."""
    return same(trained_state(one / "train"), trained_state(two / "train")) and comparable(one) == comparable(two)


def killed_to_the_end(kind: Kind, folder: Path, rng: random.Random, change: str = "") -> tuple[str, int]:
    """Begin a run, kill it, and resume it until it ends; returns what became of it and the number of kills."""
    kills = 0
    places = ["--log_dir", str(folder / "train"), "--eval_log_dir", str(folder / "eval")]
    while True:
        resumed = (folder / "train/last.pt").is_file()
        flags = ["--resume", "--log_dir", str(folder / "train")] if resumed else [*kind.flags, *places, "--overwrite"]
        delay, operation = None, NEVER
        if kills < MOST_KILLS and rng.random() < 0.7:
            operation = rng.randint(1, MOST_OPERATIONS)
        elif kills < MOST_KILLS:
            delay = rng.uniform(0.05, LONGEST_DELAY)
        program = KILLED.format(root=str(ROOT), folder=str(folder), operation=operation, change=change)
        status, err = finish(["-c", program, *flags], folder, delay)
        if status is None:
            return "hung", kills
        if status == -signal.SIGKILL:
            kills += 1
        elif status != 0:
            return ("refused" if err.count("\n") == 1 and status == 2 else "wrong") + f" ({status}): {err[-300:]}", kills
        else:
            return "ended", kills


def kill_runs(
    kills: int, seed: int, folder: Path, show: Callable[[str], None], change: str = "", names: Collection[str] = KINDS
) -> Counter[str]:
    """Kill runs of every kind until there were so many kills.

    Args:
        kills: how many.
        seed: of the moments.
        folder: an empty one for the runs; those that end differently stay there.
        show: prints a line.
        change: Python that changes the program in the processes that are killed, to see whether it is noticed.
        names: which kinds of run.

    Returns:
        How many runs ended equal, different, refused, wrong or hung, and the kills.
    """
    rng, counts = random.Random(seed), Counter()
    chosen = [kind for kind in kinds(folder) if kind.name in names]
    for kind in chosen:
        status, err = unbroken(kind, folder)
        assert status == 0, err
    for number, kind in enumerate(itertools.cycle(chosen)):
        run = folder / f"run_{number}"
        run.mkdir()
        end, killed = killed_to_the_end(kind, run, rng, change)
        if end == "ended":
            end = "equal" if equal(folder / kind.name, run) else "different"
        counts[end.split(" (")[0]] += 1
        counts["kills"] += killed
        show(f"{kind.name}, run {number}: {end} after {killed} kills; {dict(counts)}")
        if end == "equal":
            shutil.rmtree(run)
        if counts["kills"] >= kills:
            return counts


def unbroken(kind: Kind, folder: Path) -> tuple[int | None, str]:
    """The run of a kind that nothing disturbs, in a folder of its name."""
    whole = folder / kind.name
    whole.mkdir()
    places = ["--log_dir", str(whole / "train"), "--eval_log_dir", str(whole / "eval")]
    return finish([str(ROOT / "main.py"), *kind.flags, *places], whole)
