"""Two classifiers that tell generated sequences from real ones, for the two-sample tests of judge.py.

`fit_recurrent` is a small recurrent network, `fit_features` boosted trees over counts and repeats, or a logistic regression where
the vocabulary is large. Both know nothing of a data set but its tokens. Each learns from real and from other sequences, and returns
a function that scores sequences, higher for real ones.

Shapes: M sequences, T tokens each, V tokens in the vocabulary.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from generator import counted_tokens
from support.errors import UserError
from support.random_streams import stream

FEWEST_GROUPS = 10  # with fewer groups, a set is split by sequence
STOP_SHARE = 0.15  # of the groups: they tell when to stop
BATCH = 128
MOST_EPOCHS, PATIENCE = 40, 6  # epochs in all, and without a better loss
LAGS = 16  # repeats up to so many tokens back are inputs of the recurrent network
LARGE_VOCABULARY = 256  # above, a logistic regression over hashed n-grams instead of trees over counts
HASHED = 256  # columns of hashed bigrams for trees
HASH_BITS = 18  # 2^18 columns of hashed n-grams for a logistic regression
LARGEST_STEP = 25  # larger differences between neighbouring tokens count as this one


class Sequences(NamedTuple):
    """Sequences and which of them belong together.

    Attributes:
        tokens: int64 (M, T), on the CPU.
        groups: int64 (M,): windows of the same tune have the same number.
    """

    tokens: Tensor
    groups: Tensor

    def at(self, index: Tensor) -> Sequences:
        """Some of them, by number or by mask."""
        return Sequences(self.tokens[index], self.groups[index])


class Kind(NamedTuple):
    """What classifiers must know of sequences.

    Attributes:
        vocab_size: V.
        end_token: the absorbing token where sequences are of variable length, or None.
    """

    vocab_size: int
    end_token: int | None


Scores = Callable[[Tensor], Tensor]  # sequences (M, T) -> (M,), higher for real ones


def grouped(tokens: Tensor) -> Sequences:
    """Sequences in the order of their data set, (M, T) of any integers, and which belong together.

    Where most continue the one before by a token, they are windows, and those of a tune belong together. Elsewhere equal ones do.
    """
    continues = (tokens[1:, :-1] == tokens[:-1, 1:]).all(dim=1)
    if continues.double().mean() > 0.5:
        return Sequences(tokens, F.pad((~continues).long().cumsum(0), (1, 0)))
    return Sequences(tokens, tokens.unique(dim=0, return_inverse=True)[1])


def split(sequences: Sequences, share: float, rng: torch.Generator) -> tuple[Sequences, Sequences]:
    """Two parts at random, the first with about this share of the groups. No group is in both, unless there are too few.

    Args:
        sequences: two or more.
        share: of the groups.
        rng: a CPU random stream.
    """
    _, groups = sequences.groups.unique(return_inverse=True)
    if groups.max() + 1 < FEWEST_GROUPS:
        groups = torch.arange(len(groups))
    number = int(groups.max()) + 1
    first = torch.randperm(number, generator=rng)[groups] < min(max(1, round(share * number)), number - 1)
    return sequences.at(first), sequences.at(~first)


class Recurrent(torch.nn.Module):
    """A bidirectional GRU over tokens and their repeats, pooled over time: the logit of "real".

    It reads at each position the token's embedding, and for each of LAGS lags whether the token, and the step to it, are those
    of so many positions before. Repeats are what generators get wrong first, and a GRU alone learns them from many examples only.
    """

    def __init__(self, kind: Kind, emb_dim: int = 16, hidden_dim: int = 32, dropout: float = 0.5):
        super().__init__()
        self.kind = kind
        self.embed = torch.nn.Embedding(kind.vocab_size, emb_dim)
        self.gru = torch.nn.GRU(emb_dim + 2 * LAGS, hidden_dim, batch_first=True, bidirectional=True)
        self.dropout = torch.nn.Dropout(dropout)
        self.output = torch.nn.Linear(4 * hidden_dim, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(M, T) -> (M,)."""
        steps = F.pad(tokens[:, 1:] - tokens[:, :-1], (1, 0), value=self.kind.vocab_size)
        repeats = [_repeats(each, lag) for each in (tokens, steps) for lag in range(1, LAGS + 1)]
        inputs = torch.cat([self.dropout(self.embed(tokens)), torch.stack(repeats, dim=2)], dim=2)  # (M, T, E + 2·LAGS)
        hidden, _ = self.gru(inputs)
        counted = counted_tokens(tokens, self.kind.end_token)[:, :, None]  # (M, T, 1)
        mean = (hidden * counted).sum(dim=1) / counted.sum(dim=1)
        largest = hidden.masked_fill(~counted, -1.0).amax(dim=1)  # the GRU's values are between -1 and 1
        return self.output(self.dropout(torch.cat([mean, largest], dim=1)))[:, 0]


def _repeats(values: Tensor, lag: int) -> Tensor:
    """Whether each value is that of `lag` positions before: (M, T) -> (M, T) of 0 and 1."""
    return F.pad((values[:, lag:] == values[:, :-lag]).float(), (min(lag, values.shape[1]), 0))


def fit_recurrent(real: Sequences, other: Sequences, kind: Kind, seed: int) -> Scores:
    """A `Recurrent` trained by AdamW, with the weights that were best on a part of the sequences that is set aside."""
    rng = stream(seed, "recurrent classifier")
    (stop_real, real), (stop_other, other) = (split(each, STOP_SHARE, rng) for each in (real, other))
    with torch.random.fork_rng(devices=[]):  # initialisation and dropout draw from torch's own stream
        torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
        model = Recurrent(kind)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
        best, kept, bad = math.inf, {}, 0
        for _ in range(MOST_EPOCHS):
            _train_epoch(model, optimizer, real.tokens, other.tokens, rng)
            loss = _loss(logits(model, stop_real.tokens), logits(model, stop_other.tokens)).item()
            bad += 1
            if loss < best:
                best, bad = loss, 0
                kept = {name: value.clone() for name, value in model.state_dict().items()}
            if bad == PATIENCE:
                break
    model.load_state_dict(kept)
    return lambda tokens: logits(model, tokens)


def _train_epoch(model: Recurrent, optimizer: torch.optim.Optimizer, real: Tensor, other: Tensor, rng: torch.Generator) -> None:
    """A pass over both sides, half of each batch from either."""
    model.train()
    parts = [tokens[torch.randperm(len(tokens), generator=rng)].split(BATCH // 2) for tokens in (real, other)]
    for one, two in zip(*parts, strict=False):
        optimizer.zero_grad(set_to_none=True)
        of_real, of_other = model(torch.cat([one, two])).split([len(one), len(two)])
        _loss(of_real, of_other).backward()
        optimizer.step()


def _loss(of_real: Tensor, of_other: Tensor) -> Tensor:
    """Cross-entropy of logits, both sides counting half, in nats."""
    return (F.softplus(-of_real).mean() + F.softplus(of_other).mean()) / 2


@torch.no_grad()
def logits(model: Recurrent, tokens: Tensor) -> Tensor:
    """Without dropout: (M, T) -> (M,)."""
    model.eval()
    return torch.cat([model(part) for part in tokens.split(1000)])


def import_sklearn() -> SimpleNamespace:
    """What is used of scikit-learn and what comes with it; raises UserError where it is not installed."""
    try:
        from scipy import sparse
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise UserError("judge.py needs scikit-learn: python -m pip install -r requirements-dev.txt") from error
    return SimpleNamespace(
        sparse=sparse, Trees=HistGradientBoostingClassifier, Logistic=LogisticRegression, threads=threadpool_limits
    )


def fit_features(real: Sequences, other: Sequences, kind: Kind, seed: int) -> Scores:
    """Trees over `small_features`, or for a large vocabulary a logistic regression over `large_features`; raises UserError."""
    sklearn = import_sklearn()
    tokens = torch.cat([real.tokens, other.tokens])
    targets = np.repeat([1, 0], [len(real.tokens), len(other.tokens)])
    if kind.vocab_size > LARGE_VOCABULARY:
        scale = Scale(summary_features(tokens, kind))
        features = functools.partial(large_features, kind=kind, scale=scale, sparse=sklearn.sparse)
        model = sklearn.Logistic(C=0.3, max_iter=300)
    else:
        features = functools.partial(small_features, kind=kind)
        model = sklearn.Trees(
            max_iter=200, learning_rate=0.08, max_leaf_nodes=15, max_features=0.3, early_stopping=False, random_state=seed
        )
    with sklearn.threads(torch.get_num_threads()):
        model.fit(features(tokens), targets)

    def score(tokens: Tensor) -> Tensor:
        with sklearn.threads(torch.get_num_threads()):
            return torch.from_numpy(model.decision_function(features(tokens)))

    return score


class Scale:
    """Brings columns to mean 0 and a deviation like that of frequent n-grams, by the sequences that it is made with."""

    def __init__(self, columns: np.ndarray):
        self.mean, self.deviation = columns.mean(axis=0), columns.std(axis=0) + 1e-6

    def apply(self, columns: np.ndarray) -> np.ndarray:
        """The scaled columns, without extreme values: (M, features) -> (M, features)."""
        return 0.3 * np.clip((columns - self.mean) / self.deviation, -5, 5)


def counts(values: np.ndarray, size: int, counted: np.ndarray) -> np.ndarray:
    """How often each of 0 to size − 1 is in each row, where `counted`: (M, N) -> (M, size)."""
    cells = np.arange(len(values))[:, None] * size + values
    return np.bincount(cells[counted], minlength=len(values) * size).reshape(len(values), size)


def ngram_hashes(values: np.ndarray, order: int) -> np.ndarray:
    """A number below 2^32 for each n-gram: (M, N) -> (M, N − order + 1)."""
    width = max(0, values.shape[1] - order + 1)
    hashes = np.full((len(values), width), order, dtype=np.uint64)
    for start in range(order):
        hashes = (hashes + values[:, start : start + width].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    return hashes >> np.uint64(32)


def longest_run(equal: np.ndarray) -> np.ndarray:
    """The length of the longest run of True in each row: (M, N) -> (M,)."""
    longest, current = np.zeros(len(equal), dtype=np.int64), np.zeros(len(equal), dtype=np.int64)
    for column in equal.T:
        current = (current + 1) * column
        longest = np.maximum(longest, current)
    return longest


def repeat_features(values: np.ndarray, counted: np.ndarray) -> list[np.ndarray]:
    """How often a value is that of `lag` positions before, and the longest segment that repeats, by lag and over all lags."""
    columns, longest = [], []
    for lag in range(1, values.shape[1]):
        equal = (values[:, lag:] == values[:, :-lag]) & counted[:, lag:]
        longest.append(longest_run(equal))
        if lag <= LAGS or lag % 4 == 0:
            columns += [equal.sum(axis=1), longest[-1]]
    return [*columns, *([np.max(longest, axis=0)] if longest else [])]


def distinct_features(values: np.ndarray) -> list[np.ndarray]:
    """How many different n-grams a sequence has, by order."""
    found = []
    for order in (1, 2, 3, 4, 6, 8):
        ordered = np.sort(ngram_hashes(values, order), axis=1)
        found.append((ordered[:, 1:] != ordered[:, :-1]).sum(axis=1))
    return found


def summary_features(tokens: Tensor, kind: Kind) -> np.ndarray:
    """Length, repeats of tokens and of steps, distinct n-grams, how often the commonest tokens occur: (M, T) -> (M, features)."""
    counted = counted_tokens(tokens, kind.end_token).numpy()
    values = tokens.numpy()
    steps = np.diff(values, axis=1)
    hashed = counts(values % LARGE_VOCABULARY, LARGE_VOCABULARY, counted)
    commonest = -np.sort(-hashed, axis=1)[:, :8]
    columns = [counted.sum(axis=1), *commonest.T]
    for each, where in ((values, counted), (steps, counted[:, 1:])):
        columns += repeat_features(each, where) + distinct_features(each)
    signs = np.sign(steps)
    turns = (signs[:, 1:] != signs[:, :-1]) & counted[:, 2:]
    returns = (steps[:, 1:] == -steps[:, :-1]) & counted[:, 2:]
    return np.stack([*columns, turns.sum(axis=1), returns.sum(axis=1)], axis=1).astype(np.float32)


def small_features(tokens: Tensor, kind: Kind) -> np.ndarray:
    """For trees: the summary, tokens and steps by position, counts of tokens, steps, hashed bigrams: (M, T) -> (M, features)."""
    counted = counted_tokens(tokens, kind.end_token).numpy()
    values = np.where(counted, tokens.numpy(), 0)
    steps = np.where(counted[:, 1:], np.diff(values, axis=1), 0)
    level = [values.max(axis=1), values.min(axis=1), values.mean(axis=1), values.std(axis=1), np.abs(steps).sum(axis=1)]
    clipped = np.clip(steps, -LARGEST_STEP, LARGEST_STEP) + LARGEST_STEP
    parts = [
        summary_features(tokens, kind),
        np.stack(level, axis=1),
        values,
        np.abs(steps),
        counts(values, kind.vocab_size, counted),
        counts(clipped, 2 * LARGEST_STEP + 1, counted[:, 1:]),
        counts((ngram_hashes(values, 2) % HASHED).astype(np.int64), HASHED, counted[:, 1:]),
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def large_features(tokens: Tensor, kind: Kind, scale: Scale, sparse: Any) -> Any:
    """For a logistic regression: the scaled summary, and which n-grams of one and two tokens occur, hashed: a sparse matrix."""
    counted = counted_tokens(tokens, kind.end_token).numpy()
    parts = [sparse.csr_matrix(scale.apply(summary_features(tokens, kind)))]
    for order in (1, 2):
        hashes = ngram_hashes(tokens.numpy(), order) >> np.uint64(32 - HASH_BITS)
        where = counted[:, order - 1 :]
        rows = np.broadcast_to(np.arange(len(hashes))[:, None], hashes.shape)[where]
        shape = (len(hashes), 2**HASH_BITS)
        present = sparse.csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, hashes[where].astype(np.int64))), shape=shape)
        present.data[:] = 1.0  # n-grams that occur twice were added up
        parts.append(present)
    return sparse.hstack(parts).tocsr()


CLASSIFIERS = {"recurrent": fit_recurrent, "features": fit_features}
