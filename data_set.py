"""The interface of all data sets. The rest of the program uses only this, and never asks for a data set's name.

A data set gives training batches, real sequences for D, held-out sequences, what to measure on generated ones, and the form in
which tokens are shown, written and read.

In the life of a run: `read_files` reads what decides settings; the constructor draws or reads the data; training asks for
`batches`, for D also for `fresh_batches`, judges for `training_batch`; each evaluation calls `measure`; `state_dict` goes into
checkpoints. sample.py needs only `form_of`.

Every sequence is int64 tokens (B, T). Training and held-out sequences never mix.
"""

from __future__ import annotations

import abc
import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bleu import Bleu
from fast.cuda_graphs import PLAIN_RUNNER, Runner
from generator import Generator
from metrics import mean_and_error, sequence_nll, with_errors
from support import schema
from support.device import to_device
from support.errors import UserError
from support.files import write_atomically


class Files(NamedTuple):
    """What a data set reads before a new run's settings are complete.

    Attributes:
        settings: the settings that the files decide.
        content: what was read, for the data set's constructor.
    """

    settings: dict[str, Any]
    content: Any = None


class Media(NamedTuple):
    """What TensorBoard can show of sequences.

    Attributes:
        images: name -> grey image, uint8 (height, width).
        sounds: name -> WAV file.
    """

    images: dict[str, np.ndarray]
    sounds: dict[str, bytes]


class Judged(NamedTuple):
    """Real sequences for classifiers that tell generated ones from them (experiments/judge.py), in the order of the data.

    Windows of a tune stand one after the other. Tokens are integers of any size, (M, T) each.

    Attributes:
        valid: validation sequences.
        test: test sequences.
        train: training sequences.
    """

    valid: Tensor
    test: Tensor
    train: Tensor


class TokenForm:
    """How sequences are shown, written to files and read. This one: as token numbers.

    Attributes:
        suffixes: of the files that `write` can write.
        single: those of them that hold one sequence.
        folders: whether `write` can also fill a folder.
        prime_counts: whether the tokens of a prime are among the T of a sequence, or come before them.
    """

    suffixes: tuple[str, ...] = (".txt", ".npy")
    single: tuple[str, ...] = ()
    folders = False
    prime_counts = False

    def lines(self, tokens: Tensor) -> str:
        """Sequences (M, T) as the lines of a text file: token numbers separated by blanks."""
        return "".join(" ".join(map(str, row)) + "\n" for row in tokens.tolist())

    def text(self, tokens: Tensor) -> str:
        """Sequences (M, T) as a person reads them, one a line."""
        return self.lines(tokens)

    def write(self, tokens: Tensor, out: Path) -> None:
        """Write sequences (M, T), on the CPU, in the form that the name's suffix asks for; raises OSError."""
        if out.suffix == ".npy":
            write_atomically(out, lambda file: np.save(file, tokens.numpy()))
        else:
            write_atomically(out, lambda file: file.write(self.lines(tokens).encode()))

    def read_prime(self, prime: str) -> Tensor:
        """The tokens that every sequence goes on from, (P,), given a file or a text, as the form has it.

        Raises:
            UserError: sequences of this kind have no such beginning, or it can't be read as one.
            OSError: a file can't be read.
        """
        raise UserError("--prime: only a run on music or text can go on from a beginning")


class DataSet(abc.ABC):
    """A source of token sequences: a fixed training set that epochs pass over, or fresh batches.

    Args:
        args: the run's settings.
        rng: the random stream of the batches and their order.
        fixed: the fixed training set, (M, T), or None.
        form: how sequences are shown, written and read.

    Attributes:
        writes_samples: whether samples are kept as files during the training.
        num_samples: how many each time.
        train: the fixed training set or None.
        held_out: test sequences, never trained on and never used to choose anything, (R, T), on the run's device.
        valid: other sequences that are never trained on, (R', T), to choose epochs and settings by; None where there are none.
        reference: the same measures of real data, logged for comparison.
        runner: runs sampling from a model, directly or as a CUDA graph.
    """

    writes_samples = False
    num_samples = 5
    held_out: Tensor
    valid: Tensor | None = None
    reference: dict[str, float]
    runner: Runner = PLAIN_RUNNER

    def __init__(self, args: argparse.Namespace, rng: torch.Generator, fixed: Tensor | None, form: TokenForm):
        self.vocab_size, self.seq_len, self.seed, self.shuffle = args.vocab_size, args.seq_len, args.seed, args.shuffle
        self.train_rng = rng
        self.train = fixed
        self.form = form

    @classmethod
    def read_files(cls, settings: Mapping[str, Any], given: Mapping[str, Any]) -> Files:
        """Read the files that decide some of a new run's settings, such as its vocabulary size.

        Args:
            settings: all settings as far as they are known.
            given: those of them that the user has given.

        Raises:
            UserError: a file is missing or broken, or contradicts a flag that was given.
        """
        return Files({})

    @classmethod
    def form_of(cls, settings: argparse.Namespace, saved: dict[str, Any]) -> TokenForm:
        """The form of a run's tokens, from its settings and what `state_dict` saved, without its data."""
        return TokenForm()

    @classmethod
    @abc.abstractmethod
    def saved_schema(cls, settings: argparse.Namespace) -> schema.Check:
        """What `state_dict` gives in a run with these settings; `make_data` checks a file's with it."""

    @abc.abstractmethod
    def fresh(self, num: int) -> Tensor:
        """Training sequences drawn anew, (num, T)."""

    def fresh_batches(self, num: int, batches: int) -> Tensor:
        """What `batches` calls of `fresh` give, (batches · num, T)."""
        return torch.cat([self.fresh(num) for _ in range(batches)])

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """The (B, T) batches of one epoch of G: one fresh batch, or a pass over the fixed set without the partial batch."""
        if self.train is None:
            yield self.fresh(batch_size)
            return
        order = torch.arange(len(self.train))
        if self.shuffle:
            order = torch.randperm(len(self.train), generator=self.train_rng)
        for index in to_device(order, self.train.device).split(batch_size)[: len(order) // batch_size]:
            yield self.train[index]

    def real(self, num: int) -> Tensor:
        """Real sequences: the whole training set, or as many drawn anew, (num, T)."""
        return self.fresh(num) if self.train is None else self.train

    def training_batch(self, num: int) -> Tensor:
        """Training sequences at random, (num, T): of the fixed set with replacement, or drawn fresh."""
        if self.train is None:
            return self.fresh(num)
        return self.train[to_device(torch.randint(len(self.train), (num,), generator=self.train_rng), self.train.device)]

    @abc.abstractmethod
    def training_bleu(self) -> Bleu:
        """BLEU against the training sequences."""

    @abc.abstractmethod
    def measure(self, generator: Generator, samples: Tensor, held_out: Tensor) -> dict[str, float]:
        """The numbers of an evaluation, NLLs in nats per token, with standard errors where they are known.

        Args:
            generator: G.
            samples: drawn from G, (M, T).
            held_out: real sequences, (R, T).
        """

    def nll_valid(self, generator: Generator) -> float:
        """−log G of the validation sequences, in nats per token that counts."""
        return (sequence_nll(generator, self.valid).sum() / generator.counted(self.valid).sum()).item()

    def common_measures(self, samples: Tensor, nll_held_out: Tensor) -> dict[str, float]:
        """NLL_test from the −log-likelihoods (R,) of held-out sequences, and how many tokens the samples (M, T) use."""
        return {
            **with_errors({"nll_test": mean_and_error(nll_held_out / self.seq_len)}),
            "distinct_tokens": samples.unique().numel(),
        }

    @abc.abstractmethod
    def final_held_out(self, num: int) -> Tensor:
        """Held-out sequences for the evaluation at the end: `num` others than `held_out`, where there can be others."""

    def judged(self) -> Judged:
        """Real sequences for classifiers; there must be validation sequences."""
        return Judged(self.valid, self.held_out, self.real(len(self.valid) + len(self.held_out)))

    def final_reference(self, _num: int) -> dict[str, float]:
        """`reference` for an evaluation of `num` sequences."""
        return self.reference

    def final_measures(self, generator: Generator, samples: Tensor, held_out: Tensor) -> dict[str, float]:
        """More numbers for the evaluation at the end, which are too slow for the curves; arguments as for `measure`."""
        return {}

    @abc.abstractmethod
    def summary(self) -> str:
        """One line on the data for the start of a run."""

    def keep_samples(self, samples: Tensor, folder: Path, name: str) -> None:
        """Write generated sequences (M, T) below a folder of samples under a name; raises OSError."""
        self.form.write(samples.cpu(), folder / name)

    def texts(self) -> dict[str, str]:
        """Text files that the run's folder keeps of the data: name -> content."""
        return {}

    def media(self, samples: Tensor, rng: torch.Generator) -> Media:
        """Generated sequences (M, T) as images and sounds, beside as many real ones drawn from `rng`."""
        return Media({}, {})

    def form_state(self) -> dict[str, Any]:
        """What `form_of` needs besides the settings, as tensors, numbers and strings."""
        return {}

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the same data, as tensors, numbers and strings."""
