"""Folk tunes as a data set: windows of a collection of MIDI files (paper, "Music Generation"), and songs written back as MIDI."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bleu import Bleu, self_bleu
from data_set import DataSet, Judged, Media, TokenForm
from generator import Generator
from metrics import mean_and_error, sequence_nll, with_errors
from music import corpus, measures
from music.midi import Grid, MidiError, midi_bytes, read_tokens
from music.show import note_names, piano_rolls, sound, wav_bytes
from support import schema
from support.device import to_device
from support.errors import UserError
from support.files import write_atomically
from support.one_line import one_line
from support.random_streams import stream
from support.torchrun import is_first

NAMES_SHOWN = 5  # of skipped files
LONGEST_PRIME = 10_000  # frames, over an hour: each is a step of the generator
SOUNDS = 2  # clips in each evaluation: 12.8 s of sound are half a megabyte
SONG = re.compile(r"song_(?=0*[1-9])[0-9]{2,}\.mid")  # 01, 02, ..., or 001, 002, ... where there are 100 and more


class Songs(TokenForm):
    """Sequences of frames as songs: note names to read, MIDI files to keep.

    Args:
        grid: how long a frame is.
    """

    suffixes = (*TokenForm.suffixes, ".mid")
    single = (".mid",)
    folders = True

    def __init__(self, grid: Grid):
        self.grid = grid

    def text(self, tokens: Tensor) -> str:
        """Note names, a dot for a rest."""
        return "".join(note_names(row) + "\n" for row in tokens.cpu().numpy())

    def write(self, tokens: Tensor, out: Path) -> None:
        """As `TokenForm.write`; a `.mid` is the first song, a folder gets one file a song: song_01.mid, song_02.mid, ..."""
        if out.suffix == ".mid":
            data = midi_bytes(tokens[0].numpy(), self.grid)
            write_atomically(out, lambda file: file.write(data))
        elif out.suffix == "":
            remove_songs(out, keep=self.write_songs(tokens, out))
        else:
            super().write(tokens, out)

    def write_songs(self, tokens: Tensor, folder: Path) -> list[Path]:
        """Write sequences of frames (M, T) as folder/song_01.mid, song_02.mid, ...; returns the files, raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        digits = max(2, len(str(len(tokens))))
        paths = [folder / f"song_{number:0{digits}d}.mid" for number in range(1, len(tokens) + 1)]
        for path, row in zip(paths, tokens.cpu().numpy(), strict=True):
            data = midi_bytes(row, self.grid)
            write_atomically(path, lambda file, data=data: file.write(data))
        return paths

    def read_prime(self, prime: str) -> Tensor:
        """The tokens of a MIDI file's melody, (P,)."""
        try:
            tokens = read_tokens(Path(prime), self.grid)
        except MidiError as error:
            raise UserError(f"--prime {prime}: {error}") from error
        except FileNotFoundError as error:
            raise UserError(f"--prime {prime}: {error.strerror}; of a run on music it names a MIDI file") from error
        if len(tokens) > LONGEST_PRIME:
            raise UserError(f"--prime {prime}: longer than {LONGEST_PRIME:,} frames")
        return torch.from_numpy(tokens.astype(np.int64))


def remove_songs(folder: Path, keep: list[Path]) -> None:
    """Remove the songs of an earlier, longer draw from a folder: only names that `Songs.write_songs` gives.

    Called after the new songs are written: if the disk is full, the old songs are still there.
    """
    for path in set(folder.glob("song_*.mid")) - set(keep):
        if SONG.fullmatch(path.name) and path.is_file():
            path.unlink()


class TuneData(DataSet):
    """Windows of T frames from a collection of MIDI tunes.

    Training windows begin at every frame of every training tune. The held-out windows of NLL_test are the disjoint ones of the
    test tunes, those of NLL_valid the disjoint ones of the validation tunes; BLEU's references are all windows of the test tunes.

    Args:
        args: the run's settings.
        device: where tokens go.
        saved: what `state_dict` gave in an earlier part of the run.
        _content: unused; no file decides a setting.

    Raises:
        UserError: there are no usable files, or they are not those that the run began with.
        OSError: a folder can't be read.
    """

    writes_samples = True

    def __init__(
        self, args: argparse.Namespace, device: torch.device, saved: dict[str, Any] | None = None, _content: object = None
    ):
        form = self.form_of(args, {})
        tunes = _load_tunes(args, form.grid)
        self.windows = corpus.windows(tunes.tunes["train"], args.seq_len)  # (W, T) uint8
        self.references = corpus.windows(tunes.tunes["test"], args.seq_len)
        disjoint, valid = (corpus.windows(tunes.tunes[split], args.seq_len, stride=args.seq_len) for split in ("test", "valid"))
        self.valid_windows = corpus.windows(tunes.tunes["valid"], args.seq_len)
        self.counts = {split: len(tunes.tunes[split]) for split in corpus.SPLITS}
        self.fingerprint = hashlib.sha256(self.windows.tobytes() + self.references.tobytes()).hexdigest()
        if saved is not None and saved["fingerprint"] != self.fingerprint:
            raise UserError(f"--data_dir {args.data_dir}: not the tunes that this run began with")
        self.valid_fingerprint = hashlib.sha256(valid.tobytes()).hexdigest()
        if saved is not None and saved["valid_fingerprint"] != self.valid_fingerprint:
            raise UserError(f"--data_dir {args.data_dir}: the validation tunes are not those that this run began with")
        self.held_out = torch.from_numpy(disjoint.astype(np.int64)).to(device)
        self.valid = torch.from_numpy(valid.astype(np.int64)).to(device) if len(valid) else None
        self.train_windows = torch.from_numpy(self.windows)  # uint8 on the CPU: a batch is gathered, then moved
        self.device = device
        self.bleu = Bleu(self.references)
        self.bleu_of_training: Bleu | None = None
        super().__init__(args, stream(args.seed, "training data"), None, form)
        if args.train_size:
            self.train = self.fresh(args.train_size)
        if saved is None:
            self.reference = self.final_reference(args.eval_samples)
        else:
            self.train_rng.set_state(saved["train_rng"])
            self.reference = saved["reference"]

    @classmethod
    def form_of(cls, settings: argparse.Namespace, _saved: dict[str, Any]) -> Songs:
        """Songs on the run's grid."""
        return Songs(Grid(settings.grid, settings.frame_seconds))

    @classmethod
    def saved_schema(cls, _settings: argparse.Namespace) -> schema.Check:
        """What tells whether the tunes are the same, the measures of real ones, and the random stream of the batches."""
        parts = {"fingerprint": schema.text, "reference": schema.mapping(schema.number()), "train_rng": schema.random_stream}
        return schema.record(parts, {"valid_fingerprint": schema.text}, closed=True)

    def fresh(self, num: int) -> Tensor:
        """Training windows at random, (num, T)."""
        return self.fresh_with(num, self.train_rng)

    def fresh_with(self, num: int, rng: torch.Generator) -> Tensor:
        """Training windows at random from a given stream, (num, T)."""
        index = torch.randint(len(self.train_windows), (num,), generator=rng)
        return to_device(self.train_windows[index].long(), self.device)

    def training_bleu(self) -> Bleu:
        """BLEU against the training windows."""
        if self.bleu_of_training is None:
            self.bleu_of_training = Bleu(self.windows)
        return self.bleu_of_training

    def measure(self, generator: Generator, samples: Tensor, held_out: Tensor) -> dict[str, float]:
        """Likeness of the samples to the test tunes, the share that are copies of training windows, and the common measures."""
        tokens = samples.cpu().numpy()
        return {
            **self._likeness(tokens),
            "copied": measures.copied_share(tokens, self.windows),
            **self.common_measures(samples, sequence_nll(generator, held_out)),
            **with_errors({"entropy_g": mean_and_error(sequence_nll(generator, samples) / self.seq_len)}),
        }

    def _likeness(self, tokens: np.ndarray) -> dict[str, float]:
        classes, intervals = measures.pitch_class_histogram, measures.interval_histogram
        return {
            "bleu4": float(self.bleu.score(tokens).mean()),
            "self_bleu4": self_bleu(tokens) if len(tokens) > 1 else 0.0,
            "mse": measures.framewise_mse(tokens, self.references),
            "pitch_class_distance": measures.total_variation(classes(tokens), classes(self.references)),
            "interval_distance": measures.total_variation(intervals(tokens), intervals(self.references)),
        }

    def final_held_out(self, _num: int) -> Tensor:
        """The held-out windows: there are no others."""
        return self.held_out

    def judged(self) -> Judged:
        """The windows at every frame: disjoint ones are few, and begin at other places of a tune than those that G learns."""
        return Judged(*(torch.from_numpy(part) for part in (self.valid_windows, self.references, self.windows)))

    def final_reference(self, num: int) -> dict[str, float]:
        """The measures of as many training windows, for comparison. Self-BLEU grows with their number."""
        real = self.fresh_with(num, stream(self.seed, "real tunes"))
        return {f"real_{name}": value for name, value in self._likeness(real.cpu().numpy()).items()}

    def summary(self) -> str:
        """How many tunes and windows there are."""
        counts = ", ".join(f"{number} {split}" for split, number in self.counts.items())
        windows = f"{len(self.windows)} training windows, {len(self.held_out)} disjoint test windows"
        return f"{counts} tunes; {windows} of {self.seq_len} frames; real windows: BLEU-4 {self.reference['real_bleu4']:.4f}"

    def media(self, samples: Tensor, rng: torch.Generator) -> Media:
        """The first generated songs as sound, and piano rolls of all, beside real tunes."""
        real = self.fresh_with(len(samples), rng)
        songs = samples.cpu().numpy()
        sounds = {f"song_{number}": wav_bytes(sound(song, self.form.grid)) for number, song in enumerate(songs[:SOUNDS], start=1)}
        rolls = {"piano_roll/generated": piano_rolls(songs), "piano_roll/real": piano_rolls(real.cpu().numpy())}
        return Media(rolls, sounds)

    def state_dict(self) -> dict[str, Any]:
        """What shows a resumed run that the tunes are the same, and the random stream of the batches."""
        prints = {"fingerprint": self.fingerprint, "valid_fingerprint": self.valid_fingerprint}
        return {**prints, "reference": self.reference, "train_rng": self.train_rng.get_state()}


def _load_tunes(args: argparse.Namespace, grid: Grid) -> corpus.Corpus:
    """The collection of --data_dir, with a note on stderr of what was left out; raises UserError where it is of no use."""
    try:
        tunes = corpus.load_corpus(Path(args.data_dir), grid, args.seed, _parsing_bar)
    except corpus.CorpusError as error:
        hint = "; ./train_nottingham.sh fetches the Nottingham tunes" if not Path(args.data_dir).exists() else ""
        raise UserError(f"--data_dir: {error}{hint}") from error
    _report_skipped(tunes.skipped, "not read")
    for split in ("train", "test"):
        short = [name for name, t in zip(tunes.names[split], tunes.tunes[split], strict=True) if len(t) < args.seq_len]
        if len(short) == len(tunes.tunes[split]):
            raise UserError(f"--data_dir {args.data_dir}: no {split} tune has --seq_len {args.seq_len} frames")
        _report_skipped([(name, f"shorter than {args.seq_len} frames") for name in short], "left out")
    return tunes


def _parsing_bar(members: list) -> tqdm:
    return tqdm(members, desc="reading MIDI", unit="file", disable=not (is_first() and sys.stderr.isatty()))


def _report_skipped(skipped: list[tuple[str, str]], what: str) -> None:
    """Name the files that are left out, and count them."""
    if skipped and is_first():
        shown = ", ".join(f"{name} ({reason})" for name, reason in skipped[:NAMES_SHOWN])
        more = f", and {len(skipped) - NAMES_SHOWN} more" if len(skipped) > NAMES_SHOWN else ""
        print(one_line(f"{len(skipped)} MIDI files {what}: {shown}{more}"), file=sys.stderr)
