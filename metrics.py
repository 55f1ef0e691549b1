"""What the curves show: NLL both ways, how well the discriminator tells held-out real sequences from generated ones, and BLEU.

Shapes: M sequences, R references, T tokens each. NLLs are in nats per token.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from generator import Generator

SEQUENCES_AT_ONCE = 1000  # bounds the memory of the LSTM's hidden states


def sequence_nll(model: Generator, tokens: Tensor) -> Tensor:
    """−log-likelihood of whole sequences under a model, in nats: (M, T) -> (M,) float64."""
    return torch.cat([model.nll(part).double().sum(dim=1) for part in tokens.split(SEQUENCES_AT_ONCE)])


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of independent values, (M,), and its standard error, which is NaN for a single one."""
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return values.mean().item(), error


def mean_nll(model: Generator, tokens: Tensor) -> tuple[float, float]:
    """Mean −log-likelihood per token of sequences (M, T) under a model, and its standard error over sequences."""
    return mean_and_error(sequence_nll(model, tokens) / tokens.shape[1])


class Likelihoods(NamedTuple):
    """−log-likelihoods of whole sequences in nats, float64: samples of G (M,) and of the oracle (R,), each under both."""

    g_of_g: Tensor
    oracle_of_g: Tensor
    g_of_oracle: Tensor
    oracle_of_oracle: Tensor


def divergences(nll: Likelihoods, seq_len: int) -> dict[str, float]:
    """How far G is from the oracle, both ways, by Monte Carlo with exact log-likelihoods; each with its standard error.

    Args:
        nll: of samples of both, drawn independently.
        seq_len: T.

    Returns:
        `entropy_g`, H(G); `kl_g_oracle`, KL(G‖oracle) = NLL_oracle − H(G); `kl_oracle_g`, KL(oracle‖G) = NLL_test − H(oracle),
        all in nats per token; `jsd`, the Jensen-Shannon divergence of the distributions of whole sequences, in nats: 0 for equal
        ones, ln 2 = 0.693 where no sequence is likely under both. Long sequences come near ln 2 while tokens are still similar.
    """
    # log of G/M and oracle/M, M = (G + oracle)/2: −log((1 + other/own)/2), the ratio as a difference of logs
    of_g = math.log(2) - torch.nn.functional.softplus(nll.g_of_g - nll.oracle_of_g)
    of_oracle = math.log(2) - torch.nn.functional.softplus(nll.oracle_of_oracle - nll.g_of_oracle)
    jsd = [mean_and_error(part) for part in (of_g, of_oracle)]
    measured = {
        "entropy_g": mean_and_error(nll.g_of_g / seq_len),
        "kl_g_oracle": mean_and_error((nll.oracle_of_g - nll.g_of_g) / seq_len),
        "kl_oracle_g": mean_and_error((nll.g_of_oracle - nll.oracle_of_oracle) / seq_len),
        "jsd": (sum(mean for mean, _ in jsd) / 2, math.hypot(*(error for _, error in jsd)) / 2),
    }
    return with_errors(measured)


def with_errors(measured: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Means and standard errors as `name` and `name_error`; an error that is not known is left out."""
    values = {}
    for name, (mean, error) in measured.items():
        values[name] = mean
        if not math.isnan(error):
            values[f"{name}_error"] = error
    return values


def entropy(model: Generator, num: int, seq_len: int, rng: torch.Generator) -> tuple[float, float]:
    """Monte Carlo estimate of a model's entropy per token from `num` own sequences, and its standard error."""
    return mean_nll(model, model.sample(num, seq_len, rng))


def auc(positive: Tensor, negative: Tensor) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half. 1-D tensors."""
    ordered, positive = negative.sort().values, positive.contiguous()
    below = torch.searchsorted(ordered, positive).double()
    not_above = torch.searchsorted(ordered, positive, right=True).double()
    return ((below + not_above) / 2).mean().item() / len(negative)


def discriminator_scores(prob_real: Tensor, prob_generated: Tensor) -> dict[str, float]:
    """Accuracy on each class at the threshold 1/2, and AUC, from D's probability of "real" for both."""
    return {
        "accuracy_real": (prob_real > 0.5).double().mean().item(),
        "accuracy_fake": (prob_generated <= 0.5).double().mean().item(),
        "auc": auc(prob_real, prob_generated),
    }


BLEU_ORDER = 4
SMOOTHING = 0.1  # stands for the number of matches of an order that has none (Chen and Cherry 2014, method 1)


class NgramTable(NamedTuple):
    """The n-grams of one order in a set of references.

    Attributes:
        keys: each n-gram as a number, ascending: (rank of its first n − 1 tokens among those of the references)·V + last token.
        most: the largest count in one reference.
        owner: a reference with that count.
        others: the largest count in any reference but the owner.
    """

    keys: np.ndarray
    most: np.ndarray
    owner: np.ndarray
    others: np.ndarray


class Bleu:
    """BLEU-4 of single sequences against all references at once (Papineni et al. 2002), in time linear in their tokens.

    A reference set of thousands is counted once: clipping an n-gram's count needs only its largest count in one reference.

    Args:
        references: (R, T) token numbers, of equal length.
    """

    def __init__(self, references: np.ndarray):
        references = np.asarray(references, dtype=np.int64)
        self.length = references.shape[1]
        self.vocab_size = int(references.max()) + 1
        self.tables = []
        ranks = np.zeros_like(references)  # rank of the empty prefix
        for order in range(1, min(BLEU_ORDER, self.length) + 1):
            keys = ranks[:, : self.length - order + 1] * self.vocab_size + references[:, order - 1 :]
            table, ranks = _ngram_table(keys)
            self.tables.append(table)

    def score(self, sequences: np.ndarray, leave_own_out: bool = False) -> np.ndarray:
        """BLEU-4 of each sequence, (M, T') -> (M,) in [0, 1].

        Args:
            sequences: (M, T') token numbers, of equal length.
            leave_own_out: sequence i is reference i, which must not count for it (self-BLEU).
        """
        sequences = np.asarray(sequences, dtype=np.int64)
        num, length = sequences.shape
        total = np.zeros(num)
        no_match = np.zeros(num, dtype=bool)
        ranks = np.where(sequences < self.vocab_size, 0, -1)
        for order in range(1, BLEU_ORDER + 1):
            positions = length - order + 1
            matches = np.zeros(num)
            if positions > 0 and order <= len(self.tables):
                last = sequences[:, order - 1 :]
                known = (ranks[:, :positions] >= 0) & (last < self.vocab_size)
                keys = np.where(known, ranks[:, :positions] * self.vocab_size + last, -1)
                matches, ranks = _matches(self.tables[order - 1], keys, leave_own_out)
            if order == 1:
                no_match = matches == 0  # not one token in common: no smoothing makes that similar
            total += np.log(np.where(matches > 0, matches, SMOOTHING) / max(1, positions))
        brevity = min(0.0, 1 - self.length / length)
        return np.where(no_match, 0.0, np.exp(total / BLEU_ORDER + brevity))


def _ngram_table(keys: np.ndarray) -> tuple[NgramTable, np.ndarray]:
    """The table of n-grams (R, positions), and each one's rank in it, (R, positions)."""
    num = len(keys)
    unique, ranks = np.unique(keys, return_inverse=True)
    ranks = ranks.reshape(keys.shape)
    pairs, counts = np.unique(ranks * num + np.arange(num)[:, None], return_counts=True)
    first = np.flatnonzero(np.diff(pairs // num, prepend=-1))  # where each n-gram's references begin
    most = np.maximum.reduceat(counts, first)
    of_most = np.repeat(most, np.diff(first, append=len(pairs)))
    owner_at = np.minimum.reduceat(np.where(counts == of_most, np.arange(len(pairs)), len(pairs)), first)
    counts[owner_at] = 0
    return NgramTable(unique, most, pairs[owner_at] % num, np.maximum.reduceat(counts, first)), ranks


def _matches(table: NgramTable, keys: np.ndarray, leave_own_out: bool) -> tuple[np.ndarray, np.ndarray]:
    """Clipped matches of each row's n-grams (M, positions) -> (M,), and their ranks in the table (−1: not in it)."""
    ranks = np.searchsorted(table.keys, keys).clip(max=len(table.keys) - 1)
    ranks = np.where(table.keys[ranks] == keys, ranks, -1)
    rows, positions = np.nonzero(ranks >= 0)
    size = len(table.keys)
    pairs, counts = np.unique(rows * size + ranks[rows, positions], return_counts=True)
    row, rank = pairs // size, pairs % size
    limit = table.most[rank]
    if leave_own_out:
        limit = np.where(table.owner[rank] == row, table.others[rank], limit)
    return np.bincount(row, np.minimum(counts, limit), minlength=len(keys)), ranks


def self_bleu(sequences: np.ndarray) -> float:
    """Mean BLEU-4 of each sequence against all others, (M, T) with M ≥ 2: 1 means that they repeat each other."""
    return float(Bleu(sequences).score(sequences, leave_own_out=True).mean())
