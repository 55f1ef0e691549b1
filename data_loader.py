"""Token sources. A data set gives training batches, real sequences for the discriminator, held-out sequences, what to measure
on generated ones, and a rendering of them.

Every source gives int64 tokens (B, T). Training and held-out sequences never mix: the oracle draws them from different
random streams, tunes are split by file.
"""

from __future__ import annotations

import abc
import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fast.cuda_graphs import PLAIN_STEPS, Steps, to_device
from generator import sample_in_steps
from metrics import Bleu, Likelihoods, divergences, entropy, mean_and_error, self_bleu, sequence_nll, with_errors
from oracle import load_oracle, make_oracle
from running.checkpoint import write_atomically
from support.errors import UserError
from support.random_streams import stream

if TYPE_CHECKING:
    from generator import Generator
    from music.midi import Grid

ENTROPY_SEQUENCES = 10_000  # for the oracle's entropy
BLEU_REFERENCES = 10_000
NAMES_SHOWN = 5  # of skipped files


class TrainingSet(abc.ABC):
    """Training sequences: a fixed set that is passed over, or a source of fresh batches.

    Args:
        rng: the random stream of the batches and their order.
        fixed: the fixed set, (M, T), or None.
        shuffle: whether each pass over it has an order of its own.

    Attributes:
        runner: runs the drawing of fresh sequences by a model.
    """

    runner: Steps = PLAIN_STEPS

    def __init__(self, rng: torch.Generator, fixed: Tensor | None, shuffle: bool):
        self.train_rng = rng
        self.train = fixed
        self.shuffle = shuffle

    @abc.abstractmethod
    def fresh(self, num: int) -> Tensor:
        """Sequences drawn anew, (num, T)."""

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """The (B, T) batches of one generator epoch: one fresh batch, or a pass over the fixed set without the partial batch."""
        if self.train is None:
            yield self.fresh(batch_size)
            return
        order = torch.arange(len(self.train))
        if self.shuffle:
            order = torch.randperm(len(self.train), generator=self.train_rng)
        for index in to_device(order, self.train.device).split(batch_size)[: len(order) // batch_size]:
            yield self.train[index]

    def real(self, batch_size: int) -> Tensor:
        """Real sequences for a round of discriminator training: the whole training set, or one fresh batch."""
        return self.fresh(batch_size) if self.train is None else self.train


class OracleData(TrainingSet):
    """Sequences from the oracle: the synthetic experiment of the paper.

    Args:
        args: the run's settings.
        device: where tokens and oracle go.
        saved: what `state_dict` gave in an earlier part of the run.
    """

    songs = False  # its tokens have no other form than numbers

    def __init__(self, args: argparse.Namespace, device: torch.device, saved: dict[str, Any] | None = None):
        seed = args.seed if args.oracle_seed is None else args.oracle_seed
        sizes = (args.vocab_size, args.oracle_emb_dim, args.oracle_hidden_dim, args.oracle_init)
        if saved is None and args.oracle_params is not None:
            self.oracle = load_oracle(Path(args.oracle_params)).to(device)
        else:
            self.oracle = make_oracle(*sizes, stream(seed, "oracle weights")).to(device)
        self.vocab_size, self.seq_len, self.seed = args.vocab_size, args.seq_len, args.seed
        rng = stream(args.seed, "training data")
        if saved is None:
            self.held_out = self.oracle.sample(args.eval_samples, args.seq_len, stream(args.seed, "held-out data"))
            fixed = self.oracle.sample(args.train_size, args.seq_len, rng) if args.train_size else None
            floor, error = entropy(self.oracle, ENTROPY_SEQUENCES, args.seq_len, stream(args.seed, "entropy"))
            self.reference = with_errors({"oracle_entropy": (floor, error)})
        else:
            self.oracle.load_state_dict(saved["oracle"])
            self.held_out = saved["held_out"].to(device)
            fixed = None if saved["train"] is None else saved["train"].to(device)
            self.reference = saved["reference"]
            rng.set_state(saved["train_rng"])
        self.known: Tensor | None = None
        self.training_scores: Bleu | None = None
        super().__init__(rng, fixed, args.shuffle)

    def fresh(self, num: int) -> Tensor:
        """Sequences from the oracle, (num, T)."""
        return sample_in_steps(self.oracle, num, self.seq_len, self.train_rng, self.runner, "samples of the oracle")

    def training_bleu(self) -> Bleu:
        """BLEU against the training set; where batches are drawn fresh, against as many sequences as the paper trains on."""
        if self.training_scores is None:
            references = self.train
            if references is None:
                references = self.oracle.sample(BLEU_REFERENCES, self.seq_len, stream(self.seed, "bleu references"))
            self.training_scores = Bleu(references.cpu().numpy())
        return self.training_scores

    def final_held_out(self, num: int) -> Tensor:
        """Held-out sequences for the evaluation at the end, (num, T), not those of the curves."""
        return self.oracle.sample(num, self.seq_len, stream(self.seed, "final held-out data"))

    def final_reference(self, _num: int) -> dict[str, float]:
        """What the numbers at the end stand beside: the oracle's entropy."""
        return self.reference

    def measure(self, generator: Generator, samples: Tensor, held_out: Tensor, nll_held_out: Tensor) -> dict[str, float]:
        """NLL_oracle, and the entropy and the divergences of `metrics.divergences`, each with its standard error.

        Args:
            generator: G.
            samples: drawn from G, (M, T).
            held_out: drawn from the oracle, (R, T).
            nll_held_out: −log G of each of them, (R,) in nats.
        """
        if self.known is not held_out:  # the curves ask for the same sequences each time
            self.known, self.nll_known = held_out, sequence_nll(self.oracle, held_out)
        of_g = sequence_nll(self.oracle, samples)
        nll = Likelihoods(sequence_nll(generator, samples), of_g, nll_held_out, self.nll_known)
        return {
            **with_errors({"nll_oracle": mean_and_error(of_g / self.seq_len)}),
            **divergences(nll, self.seq_len),
        }

    def summary(self) -> str:
        """One line on the data for the start of a run."""
        floor, error = self.reference["oracle_entropy"], self.reference["oracle_entropy_error"]
        return f"oracle entropy {floor:.4f} ± {error:.4f} nats per token: the floor of NLL_test"

    def text(self, tokens: Tensor) -> str:
        """Sequences for the eye."""
        return token_lines(tokens)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must not draw anew."""
        tensors = {"oracle": self.oracle.state_dict(), "held_out": self.held_out, "train": self.train}
        return {**tensors, "reference": self.reference, "train_rng": self.train_rng.get_state()}


class TuneData(TrainingSet):
    """Windows of T frames from a collection of MIDI tunes (paper, "Music Generation").

    Training windows begin at every frame of every training tune. The held-out windows of NLL_test are the disjoint ones of the
    test tunes; BLEU's references are all windows of the test tunes.

    Args:
        args: the run's settings.
        device: where tokens go.
        saved: what `state_dict` gave in an earlier part of the run.

    Raises:
        UserError: there are no usable files, or they are not those that the run began with.
        OSError: a folder can't be read.
    """

    songs = True

    def __init__(self, args: argparse.Namespace, device: torch.device, saved: dict[str, Any] | None = None):
        from music import corpus  # here, so that the synthetic experiment runs without the music packages
        from music.midi import Grid

        self.vocab_size, self.seq_len, self.seed = args.vocab_size, args.seq_len, args.seed
        self.grid = Grid(args.grid, args.frame_seconds)
        try:
            tunes = corpus.load_corpus(Path(args.data_dir), self.grid, args.seed, _parsing_bar)
        except corpus.CorpusError as error:
            hint = "; ./train_nottingham.sh fetches the Nottingham tunes" if not Path(args.data_dir).exists() else ""
            raise UserError(f"--data_dir: {error}{hint}") from error
        _report_skipped(tunes.skipped, "not read")
        for split in ("train", "test"):
            short = [name for name, t in zip(tunes.names[split], tunes.tunes[split], strict=True) if len(t) < args.seq_len]
            if len(short) == len(tunes.tunes[split]):
                raise UserError(f"--data_dir {args.data_dir}: no {split} tune has --seq_len {args.seq_len} frames")
            _report_skipped([(name, f"shorter than {args.seq_len} frames") for name in short], "left out")
        self.windows = corpus.windows(tunes.tunes["train"], args.seq_len)  # (W, T) uint8
        self.references = corpus.windows(tunes.tunes["test"], args.seq_len)
        disjoint = corpus.windows(tunes.tunes["test"], args.seq_len, stride=args.seq_len)
        self.counts = {split: len(tunes.tunes[split]) for split in corpus.SPLITS}
        self.fingerprint = hashlib.sha256(self.windows.tobytes() + self.references.tobytes()).hexdigest()
        if saved is not None and saved["fingerprint"] != self.fingerprint:
            raise UserError(f"--data_dir {args.data_dir}: the tunes are not those that this run began with")
        self.held_out = torch.from_numpy(disjoint.astype(np.int64)).to(device)
        self.train_windows = torch.from_numpy(self.windows)  # uint8 on the CPU: a batch is gathered, then moved
        self.device = device
        self.bleu = Bleu(self.references)
        self.training_scores: Bleu | None = None
        rng = stream(args.seed, "training data")
        super().__init__(rng, None, args.shuffle)
        if args.train_size:
            self.train = self.fresh(args.train_size)
        if saved is None:
            self.reference = self.final_reference(args.eval_samples)
        else:
            rng.set_state(saved["train_rng"])
            self.reference = saved["reference"]

    def fresh(self, num: int) -> Tensor:
        """Training windows at random, (num, T)."""
        return self.fresh_with(num, self.train_rng)

    def fresh_with(self, num: int, rng: torch.Generator) -> Tensor:
        """Training windows at random from a given stream, (num, T)."""
        index = torch.randint(len(self.train_windows), (num,), generator=rng)
        return to_device(self.train_windows[index].long(), self.device)

    def training_bleu(self) -> Bleu:
        """BLEU against the training windows."""
        if self.training_scores is None:
            self.training_scores = Bleu(self.windows)
        return self.training_scores

    def final_held_out(self, _num: int) -> Tensor:
        """The held-out windows: there are no others."""
        return self.held_out

    def final_reference(self, num: int) -> dict[str, float]:
        """The same measures of as many training windows: what generated ones can hope for. Self-BLEU grows with their number."""
        real = self.fresh_with(num, stream(self.seed, "real tunes"))
        return {f"real_{name}": value for name, value in self._likeness(real.cpu().numpy()).items()}

    def measure(self, _generator: Generator, samples: Tensor, _held_out: Tensor, _nll_held_out: Tensor) -> dict[str, float]:
        """Likeness of generated windows (M, T) to the test tunes, and the share that are copies of training windows."""
        from music.measures import copied_share

        tokens = samples.cpu().numpy()
        return {**self._likeness(tokens), "copied": copied_share(tokens, self.windows)}

    def _likeness(self, tokens: np.ndarray) -> dict[str, float]:
        from music import measures

        classes, steps = measures.pitch_class_histogram, measures.interval_histogram
        return {
            "bleu4": float(self.bleu.score(tokens).mean()),
            "self_bleu4": self_bleu(tokens) if len(tokens) > 1 else 0.0,
            "mse": measures.framewise_mse(tokens, self.references),
            "pitch_class_distance": measures.total_variation(classes(tokens), classes(self.references)),
            "interval_distance": measures.total_variation(steps(tokens), steps(self.references)),
        }

    def summary(self) -> str:
        """One line on the data for the start of a run."""
        counts = ", ".join(f"{number} {split}" for split, number in self.counts.items())
        windows = f"{len(self.windows)} training windows, {len(self.held_out)} disjoint test windows"
        return f"{counts} tunes; {windows} of {self.seq_len} frames; real windows: BLEU-4 {self.reference['real_bleu4']:.4f}"

    def text(self, tokens: Tensor) -> str:
        """Windows as note names, a dot for a rest."""
        from music.show import note_names

        return "".join(note_names(row) + "\n" for row in tokens.cpu().numpy())

    def write_songs(self, tokens: Tensor, folder: Path) -> None:
        """Write windows (M, T) as folder/song_01.mid, song_02.mid, ...; raises OSError."""
        write_songs(tokens, self.grid, folder)

    def state_dict(self) -> dict[str, Any]:
        """What tells a resumed run that the tunes are the same, and where the batches were."""
        return {"fingerprint": self.fingerprint, "reference": self.reference, "train_rng": self.train_rng.get_state()}


def make_data(args: argparse.Namespace, device: torch.device, saved: dict[str, Any] | None = None) -> OracleData | TuneData:
    """The data set of the settings: drawn or read anew, or as an earlier part of the run saved it. Raises as its class does."""
    return {"LSTM": OracleData, "Nottingham": TuneData}[args.dataset](args, device, saved)


def token_lines(tokens: Tensor) -> str:
    """Sequences as text, one a line, token numbers separated by blanks."""
    return "".join(" ".join(map(str, row)) + "\n" for row in tokens.tolist())


def write_songs(tokens: Tensor, grid: Grid, folder: Path) -> list[Path]:
    """Write sequences of frames (M, T) as folder/song_01.mid, song_02.mid, ...; returns the files, raises OSError."""
    from music.midi import midi_bytes

    folder.mkdir(parents=True, exist_ok=True)
    digits = max(2, len(str(len(tokens))))
    paths = [folder / f"song_{number:0{digits}d}.mid" for number in range(1, len(tokens) + 1)]
    for path, row in zip(paths, tokens.cpu().numpy(), strict=True):
        data = midi_bytes(row, grid)
        write_atomically(path, lambda file, data=data: file.write(data))
    return paths


def _parsing_bar(members: list) -> tqdm:
    return tqdm(members, desc="reading MIDI", unit="file", disable=not sys.stderr.isatty())


def _report_skipped(skipped: list[tuple[str, str]], what: str) -> None:
    """Name the files that are left out, and count them."""
    if skipped:
        shown = ", ".join(f"{name} ({reason})" for name, reason in skipped[:NAMES_SHOWN])
        more = f", and {len(skipped) - NAMES_SHOWN} more" if len(skipped) > NAMES_SHOWN else ""
        print(f"{len(skipped)} MIDI files {what}: {shown}{more}", file=sys.stderr)
