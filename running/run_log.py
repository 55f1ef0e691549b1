"""The one place that writes what a run reports: TensorBoard, JSON lines, progress bars and lines on the screen.

`metrics.jsonl` gets one object per evaluation, `training.jsonl` one per training epoch. A checkpoint keeps the length of each log
file (`marks`); resuming truncates the files to that length, so that epochs done again leave no point twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.audio import metadata as audio_metadata
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from tqdm import tqdm

from data_set import Media
from data_sources import SOURCES
from running.run_folder import EVENTS, METRICS, TRAINING, Marks, cut_back
from support.errors import discard_output

SCREEN_LINES = 10  # lines a phase where the output is no terminal and has no progress bar
# TensorBoard sorts charts by the name of their group. NLL_oracle keeps the original's name, `nll`, and comes first.
CHARTS = {"nll_oracle": "nll", "nll_test": "nll_test", "nll_valid": "nll_valid"}
ORACLE_GROUP = {"oracle_entropy": "entropy", "kl_g_oracle": "kl_g_oracle", "kl_oracle_g": "kl_oracle_g", "jsd": "jsd"}


def chart(name: str) -> str:
    """The TensorBoard tag of a measured number: the NLLs first, then the groups `oracle/`, `real/` and `samples/`."""
    if name in CHARTS:
        return CHARTS[name]
    if name in ORACLE_GROUP:
        return f"oracle/{ORACLE_GROUP[name]}"
    if name.startswith("real_"):
        return f"real/{name.removeprefix('real_')}"
    return f"samples/{name}"


@contextlib.contextmanager
def naming(place: str | Path) -> Iterator[None]:
    """Inside, an OSError that names no file, as for a full disk, names this place."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(place)
        raise


class RunLog:
    """The logs of one run. Only lines for the screen can be written before they are opened.

    Args:
        log_dir: gets training events and the JSON lines.
        eval_log_dir: gets evaluation events.

    Attributes:
        reader_gone: the program that reads the output, such as `head` or `tee`, has ended.
    """

    def __init__(self, log_dir: Path, eval_log_dir: Path):
        self.folders = {"log": log_dir, "eval": eval_log_dir}
        self.opened = False
        self.bar: tqdm | None = None
        self.interactive = sys.stderr.isatty()
        self.reader_gone = False

    def open(self, marks: Marks | None = None, moved: bool = False, next_step: int | None = None) -> None:
        """Open the log files.

        Args:
            marks: lengths of the log files in the checkpoint that the run goes on from; None for a new run.
            moved: the run's folder is not where the checkpoint was written.
            next_step: the first evaluation step that this process may write, so that an open TensorBoard drops later ones.

        Raises:
            UserError: a folder holds another run.
            OSError: a file can't be written.
        """
        log_dir, eval_log_dir = self.folders["log"], self.folders["eval"]
        if marks is not None:
            for path in cut_back(log_dir, eval_log_dir, marks, moved):
                self.line(f"warning: {path} is shorter than the checkpoint says: something is missing in it")
        self.hook_before, threading.excepthook = threading.excepthook, _ignore_os_errors
        with contextlib.ExitStack() as undo:
            undo.callback(setattr, threading, "excepthook", self.hook_before)
            # Line buffering: a reader sees each epoch at once.
            self.metrics_file = (log_dir / METRICS).open("a", buffering=1, encoding="utf-8")
            self.training_file = (log_dir / TRAINING).open("a", buffering=1, encoding="utf-8")
            with naming(log_dir):
                self.train_events = SummaryWriter(str(log_dir))
            with naming(eval_log_dir):
                self.eval_events = SummaryWriter(str(eval_log_dir), purge_step=None if marks is None else next_step)
            undo.pop_all()
        self.opened = True

    def training(self, phase: str, epoch: int, step: int, values: Mapping[str, float | list[float | None]]) -> None:
        """One training epoch of a phase: scalars `phase/name`, a list as `phase/name/01`, `phase/name/02`, ..."""
        axis = epoch if phase == "pretrain_d" else step
        with naming(self.folders["log"] / TRAINING):
            self.training_file.write(json.dumps({"phase": phase, "epoch": epoch, "step": step, **values}) + "\n")
        with naming(self.folders["log"]):
            for name, value in values.items():
                if isinstance(value, list):
                    known = [(position, item) for position, item in enumerate(value, start=1) if item is not None]
                    for position, item in known:
                        self.train_events.add_scalar(f"{phase}/{name}/{position:02d}", item, axis)
                else:
                    self.train_events.add_scalar(f"{phase}/{name}", value, axis)

    def evaluation(
        self, where: Mapping[str, str | int], measured: Mapping[str, float], of_d: Mapping[str, float], sample: str
    ) -> None:
        """One evaluation: a JSON line with everything, TensorBoard charts of what was measured on G, and a text sample.

        Args:
            where: phase, epoch and step.
            measured: numbers of G and of the data; standard errors (`..._error`) go to the JSON line only.
            of_d: D's numbers, which belong to the training charts.
            sample: sequences to read.
        """
        with naming(self.folders["log"] / METRICS):
            self.metrics_file.write(json.dumps({**where, **measured, **of_d}) + "\n")
        step = where["step"]
        with naming(self.folders["eval"]):
            for name, value in measured.items():
                if not name.endswith("_error"):
                    self.eval_events.add_scalar(chart(name), value, step)
            self.eval_events.add_text("sample", "\n".join("    " + line for line in sample.splitlines()), step)

    def token_image(self, tokens: Tensor, vocab_size: int, step: int) -> None:
        """Sequences (B, T) as a grey image, a pixel a token: black is token 0, white token V − 1."""
        grey = tokens.float() / max(1, vocab_size - 1)  # (B, T)
        with naming(self.folders["eval"]):
            self.eval_events.add_image("generation", grey, step, dataformats="HW")

    def media(self, media: Media, step: int) -> None:
        """Images and sounds of samples."""
        with naming(self.folders["eval"]):
            for name, wav in media.sounds.items():
                self.eval_events.file_writer.add_summary(_wav_summary(name, wav), step)
            for name, image in media.images.items():
                self.eval_events.add_image(name, image, step, dataformats="HW")

    def hyper_parameters(self, settings: Mapping[str, object]) -> None:
        """The run's settings for TensorBoard's HPARAMS and TEXT pages, and the chart of its CUSTOM SCALARS page."""
        values = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in settings.items()}
        together = [chart(name) for name in ("nll_oracle", "nll_test", "oracle_entropy")]
        with naming(self.folders["eval"]):
            for summary in hparams(values, {"nll": 0.0, "nll_test": 0.0}):  # only names the metrics: their values are the curves'
                self.eval_events.file_writer.add_summary(summary)
            if SOURCES[settings["dataset"]].has_oracle:
                charts = {"NLL_oracle, NLL_test and the oracle's entropy": ["Multiline", together]}
                self.eval_events.add_custom_scalars({"NLL": charts})
        table = "\n".join(["| flag | value |", "|---|---|", *(f"| {k} | {v} |" for k, v in values.items())])
        with naming(self.folders["log"]):
            self.train_events.add_text("settings", table, 0)

    def marks(self) -> Marks:
        """Flush everything, sync the JSON lines to the disk, and return the length of each log file."""
        if not self.opened:
            return {key: {} for key in self.folders}
        for place, stream in self.streams():
            with naming(place):
                stream.flush()
        for name, stream in ((METRICS, self.metrics_file), (TRAINING, self.training_file)):
            with naming(self.folders["log"] / name):
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
        """One line on the screen, above the progress bar. A reader that has ended must not end an epoch half-way."""
        try:
            with naming("standard output"):
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
        """Flush and close every file, also where one of them fails; raises OSError."""
        if self.bar is not None:
            self.bar.close()
        if not self.opened:
            return
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, threading, "excepthook", self.hook_before)
            for place, stream in self.streams():
                stack.enter_context(naming(place))
                stack.callback(stream.close)

    def streams(self) -> tuple[tuple[Path, IO[str] | SummaryWriter], ...]:
        """What is written to, each with the place that its errors name."""
        log_dir, eval_log_dir = self.folders.values()
        files = ((log_dir / METRICS, self.metrics_file), (log_dir / TRAINING, self.training_file))
        return *files, (log_dir, self.train_events), (eval_log_dir, self.eval_events)


class SilentLog(RunLog):
    """The log of the processes of a run that write nothing, as another one does."""

    def __init__(self, log_dir: Path, eval_log_dir: Path):
        super().__init__(log_dir, eval_log_dir)
        self.interactive = False

    def open(self, *_: object, **__: object) -> None:
        """Nothing; so for all others."""

    training = evaluation = token_image = media = hyper_parameters = line = open


def _ignore_os_errors(args: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer threads pass an OSError on to the next call that writes: no traceback of the thread as well."""
    if not issubclass(args.exc_type, OSError):
        threading.__excepthook__(args)


def _wav_summary(tag: str, wav: bytes) -> Summary:
    """A clip that says it is WAV: SummaryWriter.add_audio leaves that out, and it is then served as an unknown type."""
    about = audio_metadata.create_summary_metadata(tag, "", encoding=audio_metadata.Encoding.Value("WAV"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1), TensorShapeProto.Dim(size=2)])
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=[wav, b""])  # the clip and its label
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=tensor)])
