"""The runs of a sweep from the first to the last: submit what is ready, tell what happens, stop when asked. Does not load torch.

A run that starts from another one of the sweep waits for it. What became of a run is in its note, a file which its job writes, so
that this machine and a cluster are read in the same way.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from running.run_folder import LAST, METRICS
from running.sweep_job import POLL, STOPPED, Task
from running.sweep_plan import PlannedRun
from support.errors import SAME_REQUEST, TERMINATED_STATUS
from support.files import write_text
from support.one_line import one_line

OUT = "out"  # the folder of the runs' logs, in that of the sweep
TELL_EVERY = 60.0  # seconds from one line of a run that is at work to the next
LONGEST_LINE = 160  # characters of a log's line that are shown
ASK_AGAIN = 1.0  # seconds: a job that has just begun may miss the first request to stop
ENDS = ("finished", "failed", "stopped")
TAIL = 2**14  # bytes of a log in which its last line is looked for


@dataclass
class Progress:
    """A run and what is known of it.

    Attributes:
        planned: the run.
        task: what its job gets.
        state: waiting, submitted, at work, finished, failed or stopped.
        told: when a line about it was printed last, in seconds.
        token: of its notes.
    """

    planned: PlannedRun
    task: Task
    state: str = "waiting"
    told: float = 0.0
    token: str = ""

    def __post_init__(self) -> None:
        self.token = self.task.token

    @property
    def job_file(self) -> Path:
        """Where the id of its job is kept, for a later call: a job on a cluster outlives the sweep."""
        return self.task.note.with_suffix(".job")


def make_task(run: PlannedRun, out: Path, python: Sequence[str], threads: int) -> Task:
    """What the job of a run gets."""
    flags = [*run.row.flags, *(() if run.source is None else ("--start_from", run.source)), "--threads", str(threads)]
    new = ["--seed", str(run.seed), "--log_dir", str(run.folder), "--eval_log_dir", str(run.eval_folder)]
    return Task(
        name=run.name,
        results=run.results,
        checkpoint=run.folder / LAST,
        leftovers=(run.folder / METRICS, run.folder / f".{LAST}.partial"),
        start=(*python, *flags, *new),
        resume=(*python, "--resume", *flags, "--log_dir", str(run.folder)),
        log=out / f"{run.name}.txt",
        note=out / f"{run.name}.json",
        token=secrets.token_hex(8),
    )


def last_line(path: Path) -> str:
    """The last line of a log that is not empty, short enough for the screen."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    said = [line for line in map(one_line, lines) if line and not line.startswith("== ")]  # the others are the job's
    text = said[-1] if said else "no output"
    return text if len(text) <= LONGEST_LINE else f"{text[: LONGEST_LINE - 1]}…"


def read_note(path: Path, token: str) -> dict[str, Any]:
    """A run's note; empty where there is none with this token."""
    try:
        note = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and note.get("token") == token else {}


class Sweep:
    """Runs on their way.

    Args:
        runs: with their tasks.
        cluster: where they go.
        tell: prints a line.
    """

    def __init__(self, runs: Sequence[tuple[PlannedRun, Task]], cluster: Any, tell: Callable[[str], None]) -> None:
        self.runs = [Progress(planned, task) for planned, task in runs]
        self.cluster, self._tell = cluster, tell
        self._jobs: dict[Any, list[Progress]] = {}  # those that have not ended
        self._stopping = False
        self._first = self._asked = 0.0  # when it was told to stop, and when it last told the jobs
        self._by_folder = {run.planned.folder.resolve(): run for run in self.runs}

    def run(self) -> int:
        """Train what is not finished; returns the exit status: 0, 1 where a run failed, 130 where the sweep was stopped."""
        self._skip_finished()
        self._adopt()
        with self._clean_stop():
            while self._jobs or (not self._stopping and self._ready()):
                if not self._stopping:
                    self._submit()
                self._follow()
                time.sleep(POLL)
        self.cluster.close()
        for run in self.runs:
            if run.state == "waiting" and not self._stopping:
                self._change(run, "failed", f"not started: {run.planned.source}, from which it begins, is not finished")
        done = sum(run.state == "finished" for run in self.runs)
        self._tell(f"{done} of {len(self.runs)} runs are finished{'; the same command goes on' if self._stopping else ''}")
        return STOPPED if self._stopping else int(done < len(self.runs))

    def _skip_finished(self) -> None:
        for run in self.runs:
            if run.planned.finished:
                other = run.planned.differs()
                self._change(run, "finished", f"finished before{f', with {other}' if other else ''}")

    def _adopt(self) -> None:
        """Take over the jobs of an earlier call that are still in a cluster's queue."""
        if not hasattr(self.cluster, "adopt"):
            return
        earlier: dict[str, list[Progress]] = {}
        tokens: dict[str, str] = {}
        for run in self._waiting():
            job, _, token = run.job_file.read_text().partition(" ") if run.job_file.exists() else ("", "", "")
            if job and "status" not in read_note(run.task.note, token):
                earlier.setdefault(job, []).append(run)
                tokens[run.planned.name] = token
        for job in self.cluster.adopt(set(earlier)):
            self._jobs[job] = earlier[job]
            for run in earlier[job]:
                run.token = tokens[run.planned.name]
                self._change(run, "submitted", f"in the queue since an earlier call, as job {job}")

    def _waiting(self) -> list[Progress]:
        return [run for run in self.runs if run.state == "waiting"]

    def _ready(self) -> list[Progress]:
        """The runs that can be submitted: what they start from is finished, or no run of this sweep."""
        found = []
        for run in self._waiting():
            source = None if run.planned.source is None else self._by_folder.get(Path(run.planned.source).resolve())
            if source is None or source.state == "finished" or run.planned.interrupted:
                found.append(run)
        return found

    def _submit(self) -> None:
        """Submit as many of the runs that are ready as there is room for."""
        size = self.cluster.group
        ready = self._ready()
        groups = [ready[start : start + size] for start in range(0, len(ready), size)][: max(0, self.cluster.room())]
        if not groups:
            return
        for run in (run for group in groups for run in group):
            run.task.note.unlink(missing_ok=True)  # of an earlier attempt
            run.job_file.unlink(missing_ok=True)
            run.state, run.told = "submitted", time.monotonic()
        jobs = self.cluster.submit([[run.task for run in group] for group in groups])
        for job, group in zip(jobs, groups, strict=True):
            self._jobs[job] = group
            if isinstance(job, str):
                for run in group:
                    write_text(run.job_file, f"{job} {run.token}")
                    self._tell(f"{run.planned.name}: submitted as job {job}")

    def _follow(self) -> None:
        """Tell what has changed since the last call."""
        if self._stopping and time.monotonic() - self._asked > ASK_AGAIN:
            self._ask_to_stop()
        for job, group in list(self._jobs.items()):
            for run in group:
                self._read(run)
            over = self.cluster.ended(job, all(run.state in ENDS for run in group))
            if not over:
                continue
            for run in group:
                self._read(run)  # it may have ended since
                if run.state not in ENDS:
                    text = (
                        "its job was stopped"
                        if self._stopping
                        else f"failed: its job ended without a result: {last_line(run.task.log)}"
                    )
                    self._change(run, "stopped" if self._stopping else "failed", text)
            del self._jobs[job]

    def _read(self, run: Progress) -> None:
        """Tell what a run's note and log say that is new."""
        if run.state in ENDS:
            return
        note = read_note(run.task.note, run.token)
        if run.state == "submitted" and "resumed" in note:
            self._change(run, "at work", "resumed" if note["resumed"] else "started")
        if "status" in note:
            status, seconds = note["status"], f"{note['seconds']:.0f} s"
            if status == 0 and run.planned.finished:
                self._change(run, "finished", f"finished in {seconds}")
            elif status in (STOPPED, TERMINATED_STATUS, -signal.SIGINT):
                self._change(run, "stopped" if self._stopping else "failed", f"stopped after {seconds}: {last_line(run.task.log)}")
            else:
                how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit {status}"
                self._change(run, "failed", f"failed ({how}): {last_line(run.task.log)}")
        elif run.state == "at work" and time.monotonic() - run.told > TELL_EVERY:
            self._change(run, "at work", last_line(run.task.log))

    def _change(self, run: Progress, state: str, text: str) -> None:
        run.state, run.told = state, time.monotonic()
        self._tell(f"{run.planned.name}: {text}")

    @contextlib.contextmanager
    def _clean_stop(self) -> Iterator[None]:
        """Inside, the first Ctrl-C (or SIGTERM) has the runs saved and ended, and the second one ends the sweep at once."""

        def on_signal(_number: int, _frame: object) -> None:
            if self._stopping and time.monotonic() - self._first > SAME_REQUEST:
                raise KeyboardInterrupt
            if not self._stopping:
                self._stopping, self._first = True, time.monotonic()
                self._tell("stopping: each run ends after its epoch and is saved (again: end all at once)")
                self._ask_to_stop()

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask_to_stop(self) -> None:
        self._asked = time.monotonic()
        for job in list(self._jobs):
            self.cluster.stop(job)
