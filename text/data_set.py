"""Lines of text as a data set: quatrains, sentences, any file with a sequence a line (paper, "Chinese Poem" and "Obama Speech")."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bleu import Bleu, self_bleus
from data_set import DataSet, Files, TokenForm
from generator import Generator
from metrics import ratio_and_error, sequence_nll, with_errors
from support import schema
from support.device import to_device
from support.errors import UserError
from support.random_streams import stream
from support.torchrun import is_first
from text import END, measures
from text.corpus import Corpus, CorpusError, Reading, load_corpus
from text.vocabulary import Vocabulary

BLEU_ORDERS = (2, 3, 4, 5)
DISTINCT_ORDERS = (1, 2, 3, 4)
HELD_OUT_LINES = 10_000  # at most so many test lines give NLL_test in the curves
VALIDATION_LINES = 2000  # at most so many validation lines give NLL_valid
BLEU_REFERENCES = 50_000  # at most so many test lines are BLEU's references
VOCABULARY_FILE = "vocabulary.txt"


class Lines(TokenForm):
    """Sequences as lines of text.

    Args:
        vocabulary: the tokens by number.
    """

    prime_counts = True

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary

    def lines(self, tokens: Tensor) -> str:
        """The lines, up to their end."""
        return "".join(self.vocabulary.decode(row) + "\n" for row in tokens.tolist())

    def read_prime(self, text: str) -> Tensor:
        """The tokens of a text that every line goes on from, (P,); unknown ones are named on stderr."""
        try:
            numbers, unknown = self.vocabulary.encode(text)
        except ValueError as error:
            raise UserError(f"--prime: {error}") from error
        if not len(numbers):
            raise UserError("--prime: there is nothing to go on from")
        if unknown:
            print(f"--prime: not in the vocabulary, so <unk>: {', '.join(unknown)}", file=sys.stderr)
        return torch.from_numpy(numbers)


class TextData(DataSet):
    """Lines of a corpus.

    NLL_test is over lines of the test split, NLL_valid over lines of the validation split; BLEU's references are all test lines.
    Where lines have different lengths, NLLs are per token that counts, which are a line's tokens and the end token behind them.

    Args:
        args: the run's settings.
        device: where tokens go.
        saved: what `state_dict` gave in an earlier part of the run.
        content: the corpus that `read_files` read.

    Raises:
        UserError: there is no usable text, or it is not the one that the run began with.
        OSError: it can't be read.
    """

    writes_samples = True
    num_samples = 20

    def __init__(
        self,
        args: argparse.Namespace,
        device: torch.device,
        saved: dict[str, Any] | None = None,
        content: Corpus | None = None,
    ):
        corpus = _load(vars(args)) if content is None else content
        self.corpus, self.device = corpus, device
        self.end_token = END if args.variable_length else None
        self.fingerprint = corpus.fingerprint()
        if saved is not None and saved["fingerprint"] != self.fingerprint:
            raise UserError(f"--data_path {args.data_path}: not the text that this run began with")
        self.train_lines = torch.from_numpy(corpus.lines["train"])  # small integers on the CPU: a batch is gathered, then moved
        test = corpus.lines["test"]
        self.test = test[np.random.default_rng(args.seed).permutation(len(test))]
        self.held_out = self._as_tokens(torch.from_numpy(self.test[:HELD_OUT_LINES]))
        valid = corpus.lines["valid"]
        valid = valid[np.random.default_rng(args.seed).permutation(len(valid))[:VALIDATION_LINES]]
        self.valid = self._as_tokens(torch.from_numpy(valid))
        self.references = self.test[:BLEU_REFERENCES].astype(np.int64)
        self.bleu = Bleu(self.references, self.end_token, max(BLEU_ORDERS))
        self.bleu_of_training: Bleu | None = None
        self.training_hashes = np.sort(measures.line_hashes(corpus.lines["train"]))
        rng = stream(args.seed, "training data")
        fixed = None
        self.notes = list(corpus.notes)
        if args.train_size:
            if len(self.train_lines) < args.batch_size:
                number = f"{len(self.train_lines)} training lines"
                raise UserError(f"--data_path {args.data_path}: {number} do not fill one batch of --batch_size {args.batch_size}")
            chosen = torch.randperm(len(self.train_lines), generator=rng)[: args.train_size]
            fixed = self._as_tokens(self.train_lines[chosen])
            if len(fixed) < args.train_size:
                self.notes.append(f"the training set has {len(fixed):,} lines, fewer than --train_size {args.train_size:,}")
        super().__init__(args, rng, fixed, Lines(corpus.vocabulary))
        if saved is None:
            self.reference = self.final_reference(args.eval_samples)
        else:
            rng.set_state(saved["train_rng"])
            self.reference = saved["reference"]

    @classmethod
    def read_files(cls, settings: Mapping[str, Any], given: Mapping[str, Any]) -> Files:
        """The corpus, which decides the size of the vocabulary and whether lines have different lengths."""
        corpus = _load(settings)
        size = len(corpus.vocabulary)
        if given.get("vocab_size", size) != size:
            raise UserError(f"--vocab_size {given['vocab_size']}: the text has {size} tokens; --max_vocab limits them")
        variable = corpus.variable_length
        if given.get("variable_length") is False and variable:
            raise UserError(f"--variable_length False: there are lines of fewer than --seq_len {settings['seq_len']} tokens")
        fixed = {"vocab_size": size, "variable_length": bool(given.get("variable_length") or variable)}
        return Files(fixed, corpus)

    @classmethod
    def form_of(cls, settings: argparse.Namespace, saved: dict[str, Any]) -> Lines:
        """Lines in the vocabulary that the run keeps."""
        try:
            vocabulary = Vocabulary.from_text(settings.tokens, saved["vocabulary"])
        except (KeyError, ValueError) as error:
            raise UserError("the checkpoint has no vocabulary") from error
        if len(vocabulary) != settings.vocab_size:
            raise UserError(f"the checkpoint has a vocabulary of {len(vocabulary)} tokens, its models one of {settings.vocab_size}")
        return Lines(vocabulary)

    @classmethod
    def saved_schema(cls, _settings: argparse.Namespace) -> schema.Check:
        """The vocabulary, what tells whether the text is the same, and the random stream of the batches."""
        shown = schema.record(dict.fromkeys(("real_bleu2", "real_bleu4"), schema.number()))
        reference = schema.both(shown, schema.mapping(schema.number()))
        parts = {"fingerprint": schema.text, "vocabulary": schema.text, "reference": reference, "train_rng": schema.random_stream}
        return schema.record(parts, closed=True)

    def _as_tokens(self, lines: Tensor) -> Tensor:
        return to_device(lines.to(torch.int64), self.device)

    def fresh(self, num: int) -> Tensor:
        """Training lines at random, (num, T)."""
        return self._as_tokens(self.train_lines[torch.randint(len(self.train_lines), (num,), generator=self.train_rng)])

    def training_bleu(self) -> Bleu:
        """BLEU against the training lines; at most BLEU_REFERENCES of them."""
        if self.bleu_of_training is None:
            references = self.corpus.lines["train"][:BLEU_REFERENCES].astype(np.int64)
            self.bleu_of_training = Bleu(references, self.end_token)
        return self.bleu_of_training

    def measure(self, generator: Generator, samples: Tensor, held_out: Tensor) -> dict[str, float]:
        """NLL_test and entropy per token that counts, NLL_test per line, perplexity, and the likeness of the samples."""
        test, own = sequence_nll(generator, held_out), sequence_nll(generator, samples)
        nll_test = ratio_and_error(test, generator.counted(held_out).sum(dim=1))
        tokens = samples.cpu().numpy()
        return {
            **with_errors({"nll_test": nll_test, "entropy_g": ratio_and_error(own, generator.counted(samples).sum(dim=1))}),
            "nll_test_line": test.mean().item(),
            "perplexity": float(np.exp(min(700.0, nll_test[0]))),
            **self._likeness(tokens),
            "copied": measures.copied_share(tokens, self.training_hashes),
        }

    def _likeness(self, tokens: np.ndarray) -> dict[str, float]:
        scores = self.bleu.scores(tokens, BLEU_ORDERS)
        own = self_bleus(tokens, BLEU_ORDERS, self.end_token) if len(tokens) > 1 else dict.fromkeys(BLEU_ORDERS, 0.0)
        histogram = measures.length_histogram
        return {
            **{f"bleu{order}": float(scores[order].mean()) for order in BLEU_ORDERS},
            **{f"self_bleu{order}": own[order] for order in BLEU_ORDERS},
            **{f"distinct{order}": measures.distinct(tokens, order) for order in DISTINCT_ORDERS},
            "distinct_tokens": len(np.unique(tokens)),
            "length": float(measures.lengths_of(tokens).mean()),
            "length_distance": measures.total_variation(histogram(tokens), histogram(self.references)),
        }

    def final_held_out(self, num: int) -> Tensor:
        """Test lines: as many as in the curves, or up to `num` of them."""
        return self._as_tokens(torch.from_numpy(self.test[: max(num, len(self.held_out))]))

    def final_reference(self, num: int) -> dict[str, float]:
        """The measures of as many training lines, or of all: what generated ones can reach.

        Self-BLEU and distinct-n depend on the number, and a line drawn twice would have a self-BLEU of 1.
        """
        chosen = torch.randperm(len(self.train_lines), generator=stream(self.seed, "real lines"))[:num]
        real = self.train_lines[chosen].numpy().astype(np.int64)
        return {f"real_{name}": value for name, value in self._likeness(real).items()}

    def summary(self) -> str:
        """Vocabulary, split, and what was done to lines."""
        counts = ", ".join(f"{len(lines):,} {split}" for split, lines in self.corpus.lines.items())
        kind = "of at most" if self.end_token is not None else "of"
        about = f"{counts} lines {kind} {self.seq_len} {self.corpus.vocabulary.kind}; vocabulary of {self.vocab_size:,} tokens"
        real = f"real lines: BLEU-2 {self.reference['real_bleu2']:.4f}, BLEU-4 {self.reference['real_bleu4']:.4f}"
        return "; ".join([about, *self.notes, real])

    def keep_samples(self, samples: Tensor, folder: Path, name: str) -> None:
        """A text file, one line a sample."""
        folder.mkdir(parents=True, exist_ok=True)
        self.form.write(samples.cpu(), folder / f"{name}.txt")

    def texts(self) -> dict[str, str]:
        """The vocabulary, one token a line."""
        return {VOCABULARY_FILE: self.corpus.vocabulary.to_text()}

    def form_state(self) -> dict[str, Any]:
        """The vocabulary."""
        return {"vocabulary": self.corpus.vocabulary.to_text()}

    def state_dict(self) -> dict[str, Any]:
        """The vocabulary, what shows a resumed run that the text is the same, and the random stream of the batches."""
        return {
            "fingerprint": self.fingerprint,
            **self.form_state(),
            "reference": self.reference,
            "train_rng": self.train_rng.get_state(),
        }


def _load(settings: Mapping[str, Any]) -> Corpus:
    if settings["data_path"] is None:
        raise UserError("--dataset Text needs --data_path, a file with a sequence a line or a folder with such files")
    names = ("tokens", "seq_len", "long", "min_count", "max_vocab", "seed")
    try:
        return load_corpus(Path(settings["data_path"]), Reading(*(settings[name] for name in names)), _reading_bar)
    except CorpusError as error:
        raise UserError(f"--data_path: {error}") from error


def _reading_bar(num_bytes: int) -> tqdm:
    return tqdm(total=num_bytes, desc="reading text", unit="B", unit_scale=True, disable=not (is_first() and sys.stderr.isatty()))
