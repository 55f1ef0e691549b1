"""What a job of sweep.py does where submitit starts it: train runs side by side, each as a process of its own.

submitit gets this module by value, because the project need not be on the path of the job's Python: it imports only the standard
library. POSIX only.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

STOPPED = 130  # main.py's exit status where it was told to stop
POLL = 0.05  # seconds
LONGEST_STOP = 80.0  # seconds for a run to save itself: Slurm kills it 90 seconds after its signal


@dataclass(frozen=True)
class Task:
    """One run.

    Attributes:
        name: of its row, with its seed.
        results: the files that a finished run has.
        checkpoint: its last.pt, from which an interrupted one goes on.
        leftovers: files that are there where a run was killed before its first checkpoint.
        start: the command for a new run.
        resume: the command for an interrupted one.
        log: the file for what it prints.
        note: the file that says what became of it: {"resumed": ...}, and at its end {"status": ..., "seconds": ...}.
        token: which every note has: a job of an earlier call may still write its own.
    """

    name: str
    results: tuple[Path, ...]
    checkpoint: Path
    leftovers: tuple[Path, ...]
    start: tuple[str, ...]
    resume: tuple[str, ...]
    log: Path
    note: Path
    token: str

    def command(self) -> tuple[str, ...] | None:
        """What to do for it now; None where it is finished."""
        if all(path.exists() for path in self.results):
            return None
        if self.checkpoint.exists():
            return self.resume
        begun = any(path.exists() for path in self.leftovers)
        keeps = any(self.checkpoint.parent.glob("*.pt"))  # not ours to replace: main.py will refuse
        return (*self.start, "--overwrite") if begun and not keeps else self.start


def write_note(path: Path, **values: Any) -> None:
    """Write a run's note so that a reader finds the old one or the new one; raises OSError."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(values))
    os.replace(partial, path)


def take_lock(file: IO[bytes] | int, kind: int) -> bool:
    """Lock an open file or folder without waiting; returns whether that worked, or the file system has no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def is_locked(folder: Path) -> bool:
    """Whether another process (or another open file of this one) has locked a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        return not take_lock(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


class Attempt:
    """A run's process, from waiting for its log to its exit status.

    The process inherits the log, which is locked: another job of the same run waits until both have ended.
    """

    def __init__(self, task: Task, environment: dict[str, str | None], shielded: tuple[int, ...]) -> None:
        self.task = task
        self.status: int | None = None
        self._environment = environment
        self._shielded = shielded
        self._begun = time.monotonic()
        self._child: subprocess.Popen | None = None
        self._asked = False
        self._log = task.log.open("ab", buffering=0)

    def step(self, stopping: bool) -> None:
        """Go on with it."""
        if stopping:
            self.ask_to_stop()
        if self.status is None and self._child is not None:
            if (status := self._child.poll()) is not None:
                self._end(status)
        elif self.status is None and stopping:
            self._end(STOPPED)
        elif self.status is None and take_lock(self._log, fcntl.LOCK_EX):
            self._begin()

    def is_at_work(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.poll() is None

    def ask_to_stop(self) -> None:
        """Ask the process once to save and stop: the second time it would stop without saving."""
        if self._child is not None and not self._asked:
            self._asked = True
            self._child.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End the process, where there is one."""
        if self._child is not None:
            self._child.kill()

    def _begin(self) -> None:
        command = self.task.command()
        if command is None:
            self._end(0)
            return
        self._begun = time.monotonic()
        write_note(self.task.note, token=self.task.token, resumed=command is self.task.resume)
        self._log.write(f"== {shlex.join(command)}\n".encode())
        variables = {**os.environ, **self._environment}
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env={name: value for name, value in variables.items() if value is not None},
                start_new_session=True,  # signals to the job's group are not for the run: it is told once
                preexec_fn=self._set_signals,
            )
        except OSError as error:  # no such Python
            self._log.write(f"error: {error.strerror}: {command[0]}\n".encode())
            self._end(127)

    def _set_signals(self) -> None:
        """In the run's process: SIGINT works, though the job may have blocked or ignored it."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._shielded)

    def _end(self, status: int) -> None:
        self.status = status
        seconds = time.monotonic() - self._begun
        write_note(self.task.note, token=self.task.token, status=status, seconds=seconds)
        self._log.close()


class SweepJob:
    """The function that submitit calls.

    Args:
        tasks: the runs, trained at the same time.
        environment: variables for them; None removes one.
        owner: a folder that sweep.py has locked as long as it lives: the runs stop when it has ended. None: they go on.
        stop_signals: signals that ask the runs to save and stop.
        shielded: signals that the runs don't get, because this job acts on them.
    """

    def __init__(
        self,
        tasks: list[Task],
        environment: dict[str, str | None],
        owner: Path | None = None,
        stop_signals: tuple[int, ...] = (),
        shielded: tuple[int, ...] = (),
    ) -> None:
        self.tasks, self.environment, self.owner = tasks, environment, owner
        self.stop_signals, self.shielded = stop_signals, shielded
        self._stopping = self._told = False
        self._attempts: list[Attempt] = []

    def __call__(self) -> None:
        """Train the runs; their notes say what became of them."""
        handlers = {number: signal.signal(number, self._on_signal) for number in self.stop_signals}
        try:
            self._attempts = [Attempt(task, self.environment, self.shielded) for task in self.tasks]
            while not self._step():
                time.sleep(POLL)
                self._follow_owner()
        except BaseException:
            self._kill()
            raise
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Have each run saved and ended."""
        self._stopping = True

    def checkpoint(self) -> Any:
        """What submitit is to start again, at a time-out or a preemption: this job, once its runs are saved."""
        deadline = time.monotonic() + LONGEST_STOP
        for attempt in self._attempts:
            attempt.ask_to_stop()
        while any(attempt.is_at_work() for attempt in self._attempts) and time.monotonic() < deadline:
            time.sleep(POLL)
        again = SweepJob(self.tasks, self.environment, self.owner, self.stop_signals, self.shielded)
        return importlib.import_module("submitit").helpers.DelayedSubmission(again)

    def _step(self) -> bool:
        """Go on with all runs; returns whether all have ended."""
        for attempt in self._attempts:
            attempt.step(self._stopping)
        return all(attempt.status is not None for attempt in self._attempts)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._told = True
        self.stop()

    def _follow_owner(self) -> None:
        if self.owner is None or is_locked(self.owner):
            return
        if self._told:  # the sweep was told to stop twice: it has ended before its runs
            self._kill()
        self.stop()

    def _kill(self) -> None:
        for attempt in self._attempts:
            attempt.kill()
