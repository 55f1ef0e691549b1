"""The files of a run's two folders, and the lock on them. Does not load torch."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.errors import UserError
from support.files import read_regular

try:
    import fcntl
except ImportError:  # only POSIX systems have it
    fcntl = None

CONFIG, FINAL, LAST, BEST, JUDGES = "config.json", "final.json", "last.pt", "best.pt", "judges.pt"
PREVIOUS = "previous.pt"  # the checkpoint before last.pt
JUDGES_NUMBERS = "judges.json"
METRICS, TRAINING = "metrics.jsonl", "training.jsonl"
TWO_SAMPLE = "two_sample.json"  # of experiments/judge.py
BEGINNING = ".beginning"  # in the folder of evaluations until a new run has all its logs: the token of its first checkpoint
OF_THE_END = (FINAL, JUDGES_NUMBERS, TWO_SAMPLE)  # results on the generator that a training ended with
RUN_FILES = (
    CONFIG,
    LAST,
    PREVIOUS,
    BEST,
    JUDGES,
    *(f".{name}.partial" for name in (LAST, PREVIOUS, BEST, JUDGES)),
    JUDGES_NUMBERS,
    TWO_SAMPLE,
    FINAL,
    METRICS,
    TRAINING,
    "vocabulary.txt",
)
SAMPLES = "samples"  # folder of the samples that are kept during training
SAMPLE_FILES = tuple(f"{SAMPLES}/{name}{form}" for name in ("epoch_*", "best", "last") for form in ("/song_*.mid", ".txt"))
EVENTS = "events.out.tfevents.*"

Marks = dict[str, dict[str, int]]  # "log" and "eval" -> file name -> length in bytes


def run_files(log_dir: Path, eval_log_dir: Path) -> list[Path]:
    """The files of a run that are in these folders already."""
    found = [log_dir / name for name in RUN_FILES if (log_dir / name).exists()]
    for pattern in SAMPLE_FILES:
        found += sorted(log_dir.glob(pattern))
    for folder in dict.fromkeys((log_dir, eval_log_dir)):
        found += sorted(folder.glob(EVENTS))
    return found


def must_be_free(log_dir: Path, eval_log_dir: Path) -> None:
    """Raises UserError where a folder holds a run, or a part of one."""
    if found := run_files(log_dir, eval_log_dir):
        ways = "go on with it (--resume), replace it (--overwrite), or choose another folder"
        raise UserError(f"{found[0].parent} already holds a run: {ways}")


def must_be_writable(*folders: Path) -> list[Path]:
    """Make folders and check that they can be written: TensorBoard's writer fails later, with a traceback.

    Returns:
        Those that were not there, with the folders that they are in.

    Raises:
        OSError: one can't be made or written.
    """
    new = [path for folder in folders for path in (folder, *folder.parents) if not path.exists()]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable."):
            pass
    return new


@contextlib.contextmanager
def no_empty_folder(*new: Path) -> Iterator[None]:
    """Removes folders that this process has made, where nothing is in them at the end: no run began there."""
    try:
        yield
    finally:
        for folder in sorted(new, key=lambda path: len(path.parts), reverse=True):  # the inner ones first
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


class FolderLocks:
    """Locks on folders: no other process can train a run in them. The system releases them when the process ends.

    A context manager: they are released where it ends.
    """

    def __init__(self) -> None:
        self._handles: dict[tuple[int, int], int] = {}  # by device and number of the folder: a name can be written in many ways

    def __enter__(self) -> FolderLocks:
        return self

    def __exit__(self, *_error: object) -> None:
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()

    def take(self, *folders: Path) -> None:
        """Lock folders that are there; those that are locked already stay so.

        Raises:
            UserError: another process has locked one.
            OSError: one can't be opened.
        """
        if fcntl is None:
            return
        for folder in folders:
            handle = os.open(folder, os.O_RDONLY)
            status = os.fstat(handle)
            if (status.st_dev, status.st_ino) in self._handles:
                os.close(handle)
                continue
            self._handles[status.st_dev, status.st_ino] = handle
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{folder}: another process is at work on this run") from error
            except OSError:
                pass  # a file system without locks


def must_be_files(log_dir: Path, eval_log_dir: Path) -> None:
    """Refuse what has the name of a run's file and is none: a pipe, a folder, or a second name of a file elsewhere.

    Raises:
        UserError: there is one.
    """
    for path in run_files(log_dir, eval_log_dir):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is no regular file")
        if status.st_nlink > 1 and (path.suffix == ".jsonl" or path.match(EVENTS)):  # others are replaced, and not written into
            raise UserError(f"{path} has another name elsewhere, and would change there too")


def remove_run(log_dir: Path, eval_log_dir: Path, token: str) -> None:
    """Remove the files of an earlier run, once last.pt is the new one's first checkpoint.

    Args:
        log_dir: the run's folder.
        eval_log_dir: the folder of its evaluations.
        token: what that checkpoint says that the process which wrote it has left in `eval_log_dir`.

    Raises:
        UserError: there are events in `eval_log_dir`, and no such process held that folder.
    """
    mark = eval_log_dir / BEGINNING
    held = bool(token) and mark.is_file() and read_regular(mark, 1000) == token.encode()
    if log_dir.resolve() != eval_log_dir.resolve() and not held:
        must_be_free_of_events(eval_log_dir)
    for path in run_files(log_dir, eval_log_dir):
        if path != log_dir / LAST:
            path.unlink()


def must_be_free_of_events(folder: Path) -> None:
    """Raises UserError where a folder holds a run's events."""
    if any(folder.glob(EVENTS)):
        raise UserError(f"{folder} holds another run's events: name this run's folder, or one without a run")


def cut_back(log_dir: Path, eval_log_dir: Path, marks: Marks, moved: bool) -> list[Path]:
    """Truncate the log files to the lengths in `marks`, and remove event files that were begun later.

    Args:
        log_dir: the run's folder.
        eval_log_dir: the folder of its evaluation events.
        marks: the lengths of the log files when the checkpoint was written.
        moved: the folder was moved or copied, so that event files which the run does not know may be another run's.

    Returns:
        The files that are shorter: something is missing in them. JSON lines of which a part is left are removed.

    Raises:
        UserError: a folder holds the events of another run; nothing is changed then.
    """
    folders = {"log": log_dir, "eval": eval_log_dir}
    for key, folder in folders.items():
        present = {path.name for path in folder.glob(EVENTS)}
        if not present & marks[key].keys() or (moved and present - marks[key].keys()):
            must_be_free_of_events(folder)
    shorter = []
    for key, folder in folders.items():
        lines = [folder / METRICS, folder / TRAINING] if key == "log" else []
        for path in [*folder.glob(EVENTS), *lines]:
            if not _cut(path, marks[key].get(path.name, 0)):
                shorter.append(path)
    return shorter


def _cut(path: Path, length: int) -> bool:
    """Truncate a file to its first `length` bytes, or remove it; returns whether it has so many."""
    size = path.stat().st_size if path.exists() else 0
    enough = size >= length
    if not enough and size and path.suffix == ".jsonl":
        length = path.read_bytes().rfind(b"\n") + 1
    if size > length:
        if length:
            os.truncate(path, length)
        else:
            path.unlink()
    return enough
