"""The one place that writes what a run reports: TensorBoard, JSON lines, progress bars and lines on the screen.

`metrics.jsonl` gets one object per evaluation, `training.jsonl` one per training epoch. A checkpoint keeps how long each log
file was (`marks`); resuming cuts the files back to that length, so that epochs done again leave no point twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.audio import metadata as audio_metadata
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from tqdm import tqdm

from support.errors import UserError, discard_output

try:
    import fcntl
except ImportError:  # only POSIX has it
    fcntl = None

if TYPE_CHECKING:
    from music.midi import Grid

METRICS, TRAINING = "metrics.jsonl", "training.jsonl"
RUN_FILES = ("config.json", "last.pt", ".last.pt.partial", "final.json", METRICS, TRAINING)
SONG_FILES = "samples/epoch_*/song_*.mid"
EVENTS = "events.out.tfevents.*"
SCREEN_LINES = 10  # lines a phase when the output is no terminal and has no progress bar

SONGS_HEARD = 2  # 12.8 s of sound make half a megabyte

Marks = dict[str, dict[str, int]]  # "log" and "eval" -> file name -> length in bytes


def run_files(log_dir: Path, eval_log_dir: Path) -> list[Path]:
    """The files of a run that are in these folders already."""
    found = [log_dir / name for name in RUN_FILES if (log_dir / name).exists()]
    found += sorted(log_dir.glob(SONG_FILES))
    for folder in dict.fromkeys((log_dir, eval_log_dir)):
        found += sorted(folder.glob(EVENTS))
    return found


def prepare_folders(log_dir: Path, eval_log_dir: Path, overwrite: bool) -> None:
    """Make the folders of a new run and see that they can be written.

    Raises:
        UserError: a folder holds a run and `overwrite` is false.
        OSError: a folder can't be made or written.
    """
    found = run_files(log_dir, eval_log_dir)
    if found and not overwrite:
        ways = "go on with it (--resume), replace it (--overwrite), or choose another folder"
        raise UserError(f"{found[0].parent} already holds a run: {ways}")
    must_be_writable(log_dir, eval_log_dir)


def must_be_writable(*folders: Path) -> None:
    """Make folders and see that they can be written: TensorBoard's writer says it late, and in a page of text. Raises OSError."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Inside, no other process may write the run in this folder. The system lets go of it with the process, however that ends.

    Raises:
        UserError: another process is at work on it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder}: another process is at work on this run") from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def remove_run(log_dir: Path, eval_log_dir: Path) -> None:
    """Remove the files of an earlier run, once nothing else stands in the way of the new one."""
    for path in run_files(log_dir, eval_log_dir):
        path.unlink()


def cut_back(log_dir: Path, eval_log_dir: Path, marks: Marks, moved: bool) -> None:
    """Cut the log files back to the lengths in `marks`, and remove event files that were begun later.

    A run whose folder was moved or copied may share events with another one, so then there must be none that it does not know.

    Raises:
        UserError: a folder holds the events of another run; nothing is changed then.
    """
    folders = {"log": log_dir, "eval": eval_log_dir}
    for key, folder in folders.items():
        present = {path.name for path in folder.glob(EVENTS)}
        if present and (not present & marks[key].keys() or (moved and present - marks[key].keys())):
            raise UserError(f"{folder} holds another run's events: name this run's folder, or one without a run")
    for key, folder in folders.items():
        lines = [folder / METRICS, folder / TRAINING] if key == "log" else []
        for path in [*folder.glob(EVENTS), *lines]:
            length = marks[key].get(path.name, 0)
            if not path.exists() or path.stat().st_size <= length:
                continue
            if length:
                os.truncate(path, length)
            else:
                path.unlink()


class RunLog:
    """Open logs of one run.

    Args:
        log_dir: gets training events and the JSON lines.
        eval_log_dir: gets evaluation events.
        marks: lengths of the log files in the checkpoint that the run goes on from; None for a new run.
        moved: the run's folder is not where the checkpoint was written.
        next_step: the first evaluation step that this process may write, so that an open TensorBoard drops later ones.

    Attributes:
        reader_gone: the program that read the lines, `head` or `tee` say, has ended.

    Raises:
        UserError: a folder holds another run.
        OSError: a file can't be written.
    """

    def __init__(
        self, log_dir: Path, eval_log_dir: Path, marks: Marks | None = None, moved: bool = False, next_step: int | None = None
    ):
        if marks is not None:
            cut_back(log_dir, eval_log_dir, marks, moved)
        self.folders = {"log": log_dir, "eval": eval_log_dir}
        threading.excepthook = _leave_to_the_next_call
        # Line buffering: a reader sees each epoch at once.
        self.metrics_file = (log_dir / METRICS).open("a", buffering=1, encoding="utf-8")
        self.training_file = (log_dir / TRAINING).open("a", buffering=1, encoding="utf-8")
        self.train_events = SummaryWriter(str(log_dir))
        self.eval_events = SummaryWriter(str(eval_log_dir), purge_step=None if marks is None else next_step)
        self.bar: tqdm | None = None
        self.interactive = sys.stderr.isatty()
        self.reader_gone = False

    def training(self, phase: str, epoch: int, step: int, values: Mapping[str, float | list[float]]) -> None:
        """One training epoch of a phase: scalars `phase/name`, a list as `phase/name/01`, `phase/name/02`, ..."""
        axis = epoch if phase == "pretrain_d" else step
        self.training_file.write(json.dumps({"phase": phase, "epoch": epoch, "step": step, **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, list):
                for position, item in enumerate(value, start=1):
                    self.train_events.add_scalar(f"{phase}/{name}/{position:02d}", item, axis)
            else:
                self.train_events.add_scalar(f"{phase}/{name}", value, axis)

    def evaluation(self, record: Mapping[str, float | str], scalars: Mapping[str, float], sample: str) -> None:
        """One evaluation: its JSON line, its scalars and a text sample at the record's step."""
        self.metrics_file.write(json.dumps(dict(record)) + "\n")
        step = record["step"]
        for name, value in scalars.items():
            self.eval_events.add_scalar(name, value, step)
        self.eval_events.add_text("sample", "\n".join("    " + line for line in sample.splitlines()), step)

    def token_image(self, tokens: Tensor, vocab_size: int, step: int) -> None:
        """Sequences (B, T) as a grey image, a pixel a token: black is token 0, white token V − 1."""
        grey = tokens.float() / max(1, vocab_size - 1)  # (B, T)
        self.eval_events.add_image("generation", grey, step, dataformats="HW")

    def songs(self, grid: Grid, songs: np.ndarray, real: np.ndarray, step: int) -> None:
        """Generated and real tunes, (M, T) each: sound of the first generated ones, piano rolls of all."""
        from music.show import piano_rolls, sound, wav_bytes

        for number, song in enumerate(songs[:SONGS_HEARD], start=1):
            self.eval_events.file_writer.add_summary(_wav_summary(f"song_{number}", wav_bytes(sound(song, grid))), step)
        for name, tunes in (("piano_roll/generated", songs), ("piano_roll/real", real)):
            self.eval_events.add_image(name, piano_rolls(tunes), step, dataformats="HW")

    def hyper_parameters(self, settings: Mapping[str, object]) -> None:
        """The run's settings, for TensorBoard's HPARAMS and TEXT pages."""
        values = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in settings.items()}
        for summary in hparams(values, {"nll": 0.0, "nll_test": 0.0}):  # only names the metrics: their values are the curves'
            self.eval_events.file_writer.add_summary(summary)
        table = "\n".join(["| flag | value |", "|---|---|", *(f"| {k} | {v} |" for k, v in values.items())])
        self.train_events.add_text("settings", table, 0)

    def marks(self) -> Marks:
        """Flush everything, the JSON lines to the disk itself, and tell how long each log file is now."""
        for stream in (self.metrics_file, self.training_file, self.train_events, self.eval_events):
            stream.flush()
        for stream in (self.metrics_file, self.training_file):
            os.fsync(stream.fileno())
        names = {key: [p.name for p in folder.glob(EVENTS)] for key, folder in self.folders.items()}
        names["log"] += [METRICS, TRAINING]
        return {key: {name: (self.folders[key] / name).stat().st_size for name in sorted(names[key])} for key in names}

    def epochs(self, phase: str, done: int, total: int) -> Iterable[int]:
        """Epoch numbers done + 1 ... total of a phase, under a progress bar where there is a terminal."""
        numbers = range(done + 1, total + 1)
        self.bar = tqdm(numbers, desc=phase, initial=done, total=total, unit="epoch", disable=not self.interactive)
        return self.bar

    def show(self, values: Mapping[str, float]) -> None:
        """Current numbers at the end of the progress bar."""
        if self.bar is not None:
            self.bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()}, refresh=False)

    def line(self, text: str) -> None:
        """One line on the screen, above the progress bar. That nobody reads it any more must not end an epoch half-way."""
        try:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
        except BrokenPipeError:
            self.reader_gone = True
            discard_output()

    def line_now_and_then(self, epoch: int, total: int, text: str) -> None:
        """A line for those without a progress bar, about SCREEN_LINES times a phase."""
        if not self.interactive and (epoch == total or epoch % max(1, total // SCREEN_LINES) == 0):
            self.line(text)

    def close(self) -> None:
        """Flush and close every file."""
        if self.bar is not None:
            self.bar.close()
        for stream in (self.metrics_file, self.training_file, self.train_events, self.eval_events):
            stream.close()


def _leave_to_the_next_call(args: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer threads hand an OSError on to whoever writes next: no traceback of the thread's besides."""
    if not issubclass(args.exc_type, OSError):
        threading.__excepthook__(args)


def _wav_summary(tag: str, wav: bytes) -> Summary:
    """A clip that says it is WAV: SummaryWriter.add_audio leaves that out, and it is then served as an unknown type."""
    about = audio_metadata.create_summary_metadata(tag, "", encoding=audio_metadata.Encoding.Value("WAV"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1), TensorShapeProto.Dim(size=2)])
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=[wav, b""])  # the clip and its label
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=tensor)])


def describe_device(device: torch.device) -> str:
    """The device in words, for the first line of a run."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"
