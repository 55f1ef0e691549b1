"""The oracle's data set, and `make_data`, which makes the data set of --dataset (the table of them is in data_sources.py)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from bleu import Bleu
from data_set import DataSet, Files, TokenForm
from data_sources import SOURCES
from generator import Generator, sample_with_runner
from metrics import Likelihoods, divergences, entropy, mean_and_error, sequence_nll, token_jsd, with_errors
from oracle import load_oracle, make_oracle
from support import schema
from support.errors import UserError
from support.random_streams import stream

JSD_SEQUENCES = 500  # of G, and as many of the oracle, for the divergence of the next token's distributions
ENTROPY_SEQUENCES = 10_000  # for the oracle's entropy
BLEU_REFERENCES = 10_000
VALIDATION_SEQUENCES = 500  # at most: evaluations compare the same ones, so that few are enough, and each costs time


class OracleData(DataSet):
    """Sequences from the oracle: the synthetic experiment of the paper.

    Training, validation and held-out sequences come from different random streams.

    Args:
        args: the run's settings.
        device: where tokens and oracle go.
        saved: what `state_dict` gave in an earlier part of the run.
        content: the oracle that `read_files` read from --oracle_params.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        device: torch.device,
        saved: dict[str, Any] | None = None,
        content: Generator | None = None,
    ):
        seed = args.seed if args.oracle_seed is None else args.oracle_seed
        sizes = (args.vocab_size, args.oracle_emb_dim, args.oracle_hidden_dim, args.oracle_init)
        if content is None and saved is None and args.oracle_params is not None:
            content = load_oracle(args.oracle_params)
        self.oracle = (make_oracle(*sizes, stream(seed, "oracle weights")) if content is None else content).to(device)
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
        num_valid = min(args.eval_samples, VALIDATION_SEQUENCES)
        self.valid = self.oracle.sample(num_valid, args.seq_len, stream(args.seed, "validation data"))
        self.known: Tensor | None = None  # the held-out sequences whose likelihood under the oracle is in nll_known
        self.bleu: Bleu | None = None
        super().__init__(args, rng, fixed, TokenForm())

    @classmethod
    def read_files(cls, settings: Mapping[str, Any], given: Mapping[str, Any]) -> Files:
        """The oracle of --oracle_params, which decides its own sizes."""
        path = settings["oracle_params"]
        if path is None:
            return Files({})
        for name in ("oracle_seed", "oracle_init"):
            if name in given:
                raise UserError(f"--{name} and --oracle_params: the oracle comes from a seed or from a file")
        oracle = load_oracle(path)
        sizes = {
            "vocab_size": oracle.vocab_size,
            "oracle_emb_dim": oracle.lstm.input_size,
            "oracle_hidden_dim": oracle.lstm.hidden_size,
        }
        for name, size in sizes.items():
            if given.get(name, size) != size:
                raise UserError(f"--{name} {given[name]} does not fit --oracle_params {path}, which has {size}")
        return Files(sizes, oracle)

    @classmethod
    def saved_schema(cls, settings: argparse.Namespace) -> schema.Check:
        """The oracle, tokens of its vocabulary, its entropy and the random stream of the batches."""
        with schema.without_memory():
            oracle = Generator(settings.vocab_size, settings.oracle_emb_dim, settings.oracle_hidden_dim)
        tokens = schema.tensor(torch.int64, (None, settings.seq_len), low=0, high=settings.vocab_size - 1)
        return schema.record(
            {
                "oracle": schema.tensors_like(oracle.state_dict()),
                "held_out": tokens,
                "train": schema.optional(tokens),
                "reference": schema.record(dict.fromkeys(("oracle_entropy", "oracle_entropy_error"), schema.number()), closed=True),
                "train_rng": schema.random_stream,
            },
            closed=True,
        )

    def fresh(self, num: int) -> Tensor:
        """Sequences from the oracle, (num, T)."""
        return self.fresh_batches(num, 1)

    def fresh_batches(self, num: int, batches: int) -> Tensor:
        """The same for several batches, drawn together."""
        rng, name = self.train_rng, "samples of the oracle"
        return sample_with_runner(self.oracle, num, self.seq_len, rng, self.runner, name, batches)

    def training_bleu(self) -> Bleu:
        """BLEU against the training set; where batches are drawn fresh, against as many sequences as the paper trains on."""
        if self.bleu is None:
            references = self.train
            if references is None:
                references = self.oracle.sample(BLEU_REFERENCES, self.seq_len, stream(self.seed, "bleu references"))
            self.bleu = Bleu(references.cpu().numpy())
        return self.bleu

    def final_held_out(self, num: int) -> Tensor:
        """Sequences from the oracle, (num, T), not those of the curves."""
        return self.oracle.sample(num, self.seq_len, stream(self.seed, "final held-out data"))

    def measure(self, generator: Generator, samples: Tensor, held_out: Tensor) -> dict[str, float]:
        """NLL_oracle, the entropy and the divergences of `metrics.divergences`, and the common measures."""
        if self.known is not held_out:  # the curves use the same sequences each time
            self.known, self.nll_known = held_out, sequence_nll(self.oracle, held_out)
        nll_held_out = sequence_nll(generator, held_out)
        of_g = sequence_nll(self.oracle, samples)
        nll = Likelihoods(sequence_nll(generator, samples), of_g, nll_held_out, self.nll_known)
        return {
            **with_errors({"nll_oracle": mean_and_error(of_g / self.seq_len)}),
            **divergences(nll, self.seq_len),
            **self.common_measures(samples, nll_held_out),
        }

    def final_measures(self, generator: Generator, samples: Tensor, held_out: Tensor) -> dict[str, float]:
        """`jsd_token`: how far the next token's distributions are apart, at prefixes half of which are G's, half the oracle's."""
        prefixes = torch.cat([part[:JSD_SEQUENCES] for part in (samples, held_out)])
        return with_errors({"jsd_token": mean_and_error(token_jsd(generator, self.oracle, prefixes))})

    def summary(self) -> str:
        """The oracle's entropy."""
        floor, error = self.reference["oracle_entropy"], self.reference["oracle_entropy_error"]
        return f"oracle entropy {floor:.4f} ± {error:.4f} nats per token: the floor of NLL_test"

    def state_dict(self) -> dict[str, Any]:
        """The oracle, the sequences and the random stream of the batches."""
        tensors = {"oracle": self.oracle.state_dict(), "held_out": self.held_out, "train": self.train}
        return {**tensors, "reference": self.reference, "train_rng": self.train_rng.get_state()}


def data_set_class(dataset: str) -> type[DataSet]:
    """The class of a value of --dataset; raises UserError where a package that it needs is not installed."""
    source = SOURCES[dataset]
    try:
        return getattr(import_module(source.module), source.name)
    except ModuleNotFoundError as error:
        raise UserError(f"--dataset {dataset} needs the package {error.name}: pip install -r requirements.txt") from error


def make_data(args: argparse.Namespace, device: torch.device, saved: dict[str, Any] | None = None, content: Any = None) -> DataSet:
    """The data set of the settings.

    Args:
        args: the run's settings.
        device: where tokens go.
        saved: what its `state_dict` gave in an earlier part of the run; None: drawn or read anew.
        content: what its `read_files` read, if it did.

    Raises:
        UserError, OSError: the data are missing or broken.
        UnfitError: `saved` is not what these settings ask for.
    """
    made_by = data_set_class(args.dataset)
    if saved is not None:
        made_by.saved_schema(args)(saved, "data")
    return made_by(args, device, saved, content)
