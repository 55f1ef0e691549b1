"""Where the runs of a sweep go: this machine or Slurm, both through submitit, which is optional. Does not load torch."""

from __future__ import annotations

import contextlib
import getpass
import importlib
import io
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from running import sweep_job
from running.sweep_job import SweepJob, Task, is_locked
from support.errors import UserError
from support.one_line import one_line

CLUSTERS = ("auto", "local", "slurm", "debug")
LONGEST_JOB = 60 * 24 * 365  # minutes; submitit ends local jobs after two minutes otherwise
MOST_REQUEUES = 100  # of a Slurm job that has timed out; after 3 submitit gives up otherwise
SLURM_TIME = 24 * 60  # minutes
ASK_EVERY = 15.0  # seconds from one question to Slurm to the next
Environment = dict[str, str | None]


def load_submitit() -> Any:
    """submitit, with what a job runs pickled by value; raises UserError where it is not installed."""
    try:
        submitit = importlib.import_module("submitit")
        cloudpickle = importlib.import_module("cloudpickle")
    except ImportError:
        raise UserError("sweep.py needs submitit: python -m pip install -r requirements-sweep.txt") from None
    cloudpickle.register_pickle_by_value(sweep_job)
    return submitit


def choose_cluster(name: str) -> str:
    """A value of --cluster without `auto`, which is slurm where its commands are installed."""
    return name if name != "auto" else "slurm" if shutil.which("srun") else "local"


def count_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_devices() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them; found without torch."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in visible.split(",")]
        hidden = [place for place, name in enumerate(names) if name in ("", "-1")]  # ends the list, as for CUDA
        return names[: hidden[0]] if hidden else names
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))] if listed.returncode == 0 else []


class Local:
    """This machine: one run in each slot.

    Args:
        submitit: the module.
        folder: for submitit's files; the sweep has locked it.
        slots: what each run's environment is changed by.
    """

    group = 1  # runs in a job

    def __init__(self, submitit: Any, folder: Path, slots: Sequence[Environment]) -> None:
        self._owner = folder if is_locked(folder) else None  # on a file system without locks the runs can't ask for their sweep
        # a folder of its own: submitit names files by the numbers of processes, which come again
        self._files = Path(tempfile.mkdtemp(prefix="submitit-", dir=folder))
        self._executor = submitit.LocalExecutor(self._files)
        self._executor.update_parameters(timeout_min=LONGEST_JOB)
        self._slots = list(slots)
        self._used: dict[Any, Environment] = {}

    def room(self) -> int:
        """How many jobs can be submitted now."""
        return len(self._slots)

    def submit(self, groups: Sequence[list[Task]]) -> list[Any]:
        """Start jobs."""
        jobs = []
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:  # jobs inherit the mask: Ctrl-C in the terminal is for the sweep, which tells them
            for tasks in groups:
                slot = self._slots.pop(0)
                job = self._executor.submit(SweepJob(tasks, slot, owner=self._owner, stop_signals=(signal.SIGTERM,)))
                self._used[job] = slot
                jobs.append(job)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return jobs

    def ended(self, job: Any, _runs_ended: bool) -> bool:
        """Whether a job has ended; its slot is free then."""
        if not job.done():
            return False
        if job in self._used:
            self._slots.append(self._used.pop(job))
        return True

    def stop(self, job: Any) -> None:
        """Ask a job to save its runs and end; may be called again."""
        if not job.done():
            os.kill(int(job.job_id), signal.SIGTERM)

    def close(self) -> None:
        """Remove submitit's files, once all jobs have ended."""
        if not self._used:
            shutil.rmtree(self._files, ignore_errors=True)


class Debug:
    """This process: one run after another."""

    group = 1

    def __init__(self, submitit: Any, folder: Path, slots: Sequence[Environment]) -> None:
        self._files = Path(tempfile.mkdtemp(prefix="submitit-", dir=folder))
        self._executor = submitit.DebugExecutor(self._files)
        self._slot = slots[0]
        self._current: SweepJob | None = None

    def room(self) -> int:
        """One job at a time."""
        return 1

    def submit(self, groups: Sequence[list[Task]]) -> list[Any]:
        """Prepare a job; `ended` runs it."""
        self._current = SweepJob(groups[0], self._slot)
        return [self._executor.submit(self._current)]

    def ended(self, job: Any, _runs_ended: bool) -> bool:
        """Run a job; it has ended then."""
        return job.done()

    def stop(self, _job: Any) -> None:
        """Ask the job that is running to save its run and end."""
        if self._current is not None:
            self._current.stop()

    def close(self) -> None:
        """Remove submitit's files."""
        shutil.rmtree(self._files, ignore_errors=True)


class Slurm:
    """A cluster: a job for one run, or for as many as share a GPU.

    Args:
        submitit: the module.
        folder: for submitit's files, on a disk that all nodes share.
        parameters: of submitit's SlurmExecutor.
        group: runs in a job.
        jobs: jobs in the queue at a time; None: no limit.

    Raises:
        UserError: this is no machine of a Slurm cluster, or it has no such parameter.
    """

    def __init__(self, submitit: Any, folder: Path, parameters: dict[str, Any], group: int, jobs: int | None) -> None:
        self.group, self._jobs = group, jobs
        self._absent: dict[str, int] = {}  # job -> how often it was not in the queue, one time after another
        self._asked = -math.inf
        try:
            self._executor = submitit.SlurmExecutor(folder / "submitit", max_num_timeout=MOST_REQUEUES)
            self._executor.update_parameters(**parameters)
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(f"--cluster slurm: {str(error).splitlines()[0]}") from None

    def room(self) -> int:
        """How many jobs can be submitted now."""
        return 10_000 if self._jobs is None else self._jobs - len(self._absent)

    def submit(self, groups: Sequence[list[Task]]) -> list[str]:
        """Queue jobs, several as an array; returns their ids, by which they are known; raises UserError."""
        jobs = []
        try:
            with contextlib.redirect_stderr(io.StringIO()), self._executor.batch():  # submitit repeats there what sbatch says
                for tasks in groups:
                    shielded = (signal.SIGTERM, signal.SIGUSR2)  # of which Slurm sends some to all processes of a job
                    job = SweepJob(tasks, {}, stop_signals=(signal.SIGINT,), shielded=shielded)
                    jobs.append(self._executor.submit(job))
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            raise UserError(f"Slurm refuses the jobs: {one_line(str(error))}") from None
        self._absent |= {job.job_id: 0 for job in jobs}
        return [job.job_id for job in jobs]

    def adopt(self, jobs: set[str]) -> set[str]:
        """Those jobs of an earlier call that are still in the queue."""
        found = jobs & in_queue() if jobs else set()
        self._absent |= dict.fromkeys(found, 0)
        return found

    def ended(self, job: str, runs_ended: bool) -> bool:
        """Whether a job's runs have ended, or it has left the queue: seen twice, since its files may come later than that."""
        if time.monotonic() - self._asked > ASK_EVERY:
            self._asked = time.monotonic()
            with contextlib.suppress(UserError):  # a controller that is busy answers the next time
                queue = in_queue()
                self._absent = {each: 0 if each in queue else count + 1 for each, count in self._absent.items()}
        over = runs_ended or self._absent[job] >= 2
        if over:
            del self._absent[job]
        return over

    def stop(self, job: str) -> None:
        """Ask a job to save its runs and end, or take it from the queue."""
        subprocess.run(["scancel", "--state=PENDING", job], check=False, capture_output=True)
        subprocess.run(["scancel", "--signal=INT", job], check=False, capture_output=True)

    def close(self) -> None:
        """Leave submitit's files: they tell why Slurm ended a job."""


def in_queue() -> set[str]:
    """The ids of this user's jobs in Slurm's queue; raises UserError where it can't be asked."""
    command = ["squeue", "--noheader", "--array", "--format=%i", "--user", getpass.getuser()]
    try:
        asked = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"squeue: {error.strerror}") from None
    if asked.returncode:
        raise UserError(f"squeue: {one_line(asked.stderr)}")
    return set(asked.stdout.split())


def slurm_parameters(given: Sequence[str], name: str, group: int) -> dict[str, Any]:
    """The parameters of submitit's SlurmExecutor; raises UserError.

    Args:
        given: KEY=VALUE of --slurm.
        name: of the sweep.
        group: runs in a job; several share a GPU.
    """
    parameters: dict[str, Any] = {"job_name": name, "time": SLURM_TIME}
    if group > 1:
        parameters["gpus_per_node"] = 1
    for text in given:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise UserError(f"--slurm {text}: write --slurm KEY=VALUE")
        parameters[key] = int(value) if value.isdecimal() else value
    for key in ("time", "cpus_per_task"):
        if not isinstance(parameters.get(key, 1), int):
            raise UserError(f"--slurm {key}={parameters[key]}: give a whole number{' of minutes' if key == 'time' else ''}")
    if isinstance(parameters.get("gpus_per_node"), int) and parameters["gpus_per_node"] > 1:
        raise UserError("--slurm gpus_per_node: a run uses one GPU; --per_device N puts N runs on it")
    return parameters


def batch_file(folder: Path, parameters: dict[str, Any], jobs: int) -> str:
    """The file that submitit gives to sbatch for so many jobs, also where there is no Slurm; raises UserError."""
    load_submitit()
    make = importlib.import_module("submitit.slurm.slurm")._make_sbatch_string  # SlurmExecutor does the same, with a Slurm
    files = (folder / "submitit").absolute()
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(files))}"
    try:
        return make(command=command, folder=files, map_count=jobs if jobs > 1 else None, **parameters)
    except TypeError as error:
        raise UserError(f"--slurm: {error}") from None
