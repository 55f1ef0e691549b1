"""BLEU against a large set of references, and self-BLEU.

Shapes: M sequences, R references, T tokens each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BLEU_ORDER = 4
SMOOTHING = 0.1  # counts as the number of matches of an order without a match (Chen and Cherry 2014, method 1)


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


def lengths_of(sequences: np.ndarray, end_token: int | None) -> np.ndarray:
    """How many tokens of each sequence (M, T) come before its first end token: (M,); all T where there is no end token."""
    if end_token is None:
        return np.full(len(sequences), sequences.shape[1])
    ended = sequences == end_token
    return np.where(ended.any(axis=1), ended.argmax(axis=1), sequences.shape[1])


class Bleu:
    """BLEU of single sequences against all references at once (Papineni et al. 2002), in time linear in their tokens.

    A reference set of thousands is counted once: clipping an n-gram's count needs only its largest count in one reference. Orders
    without a match count SMOOTHING matches. The brevity penalty takes the reference length next to the sequence's own.

    Args:
        references: (R, T) token numbers.
        end_token: where a sequence ends before T; None: sequences of T tokens each.
        max_order: the largest n of n-grams.
    """

    def __init__(self, references: np.ndarray, end_token: int | None = None, max_order: int = BLEU_ORDER):
        references = np.asarray(references, dtype=np.int64)
        self.end_token, self.max_order = end_token, max_order
        self.own_lengths = lengths_of(references, end_token)
        self.lengths, self.references_of_length = np.unique(self.own_lengths, return_counts=True)
        self.vocab_size = int(references.max()) + 1
        self.tables = []
        width = references.shape[1]
        ranks = np.zeros_like(references)  # rank of the empty prefix
        for order in range(1, min(max_order, int(self.lengths[-1])) + 1):
            keys = ranks[:, : width - order + 1] * self.vocab_size + references[:, order - 1 :]
            inside = np.arange(width - order + 1) + order <= self.own_lengths[:, None]
            table, ranks = _ngram_table(keys, inside)
            self.tables.append(table)

    def score(self, sequences: np.ndarray, leave_own_out: bool = False) -> np.ndarray:
        """BLEU of order `max_order`: see `scores`."""
        return self.scores(sequences, (self.max_order,), leave_own_out)[self.max_order]

    def scores(self, sequences: np.ndarray, orders: Sequence[int], leave_own_out: bool = False) -> dict[int, np.ndarray]:
        """BLEU-n of each sequence for several n, (M, T') -> n -> (M,) in [0, 1].

        Args:
            sequences: (M, T') token numbers.
            orders: the n, at most `max_order`.
            leave_own_out: sequence i is reference i, which must not count for it (self-BLEU).
        """
        sequences = np.asarray(sequences, dtype=np.int64)
        num, width = sequences.shape
        lengths = lengths_of(sequences, self.end_token)
        penalty = self._brevity_penalty(lengths, leave_own_out)
        total = np.zeros(num)
        no_match = np.zeros(num, dtype=bool)
        ranks = np.where(sequences < self.vocab_size, 0, -1)
        results = {}
        for order in range(1, max(orders) + 1):
            positions = width - order + 1
            matches = np.zeros(num)
            if positions > 0 and order <= len(self.tables):
                last = sequences[:, order - 1 :]
                inside = np.arange(positions) + order <= lengths[:, None]
                known = (ranks[:, :positions] >= 0) & (last < self.vocab_size) & inside
                keys = np.where(known, ranks[:, :positions] * self.vocab_size + last, -1)
                matches, ranks = _matches(self.tables[order - 1], keys, leave_own_out)
            if order == 1:
                no_match = matches == 0  # no token in common: BLEU is 0 whatever the smoothing
            total += np.log(np.where(matches > 0, matches, SMOOTHING) / np.maximum(1, lengths - order + 1))
            if order in orders:
                results[order] = np.where(no_match, 0.0, np.exp(total / order + penalty))
        return results

    def _brevity_penalty(self, lengths: np.ndarray, leave_own_out: bool) -> np.ndarray:
        """Log of the penalty for sequences of these lengths, (M,) -> (M,); of two reference lengths as near, the shorter one."""
        distance = np.abs(self.lengths[None] - lengths[:, None])  # (M, number of different lengths)
        if leave_own_out:
            alone = (self.lengths[None] == self.own_lengths[:, None]) & (self.references_of_length == 1)
            distance = np.where(alone, np.iinfo(np.int64).max, distance)
        closest = self.lengths[distance.argmin(axis=1)]
        return np.minimum(0.0, 1 - closest / np.maximum(1, lengths))


def _ngram_table(keys: np.ndarray, inside: np.ndarray) -> tuple[NgramTable, np.ndarray]:
    """The table of n-grams (R, positions), where they are inside their sequence, and each one's rank in it, (R, positions)."""
    num = len(keys)
    unique, found = np.unique(keys[inside], return_inverse=True)
    ranks = np.zeros_like(keys)  # of an n-gram across the end of its sequence any number will do: longer ones are outside as well
    ranks[inside] = found.ravel()
    rows = np.broadcast_to(np.arange(num)[:, None], keys.shape)
    pairs, counts = np.unique(ranks[inside] * num + rows[inside], return_counts=True)
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
    return self_bleus(sequences, (BLEU_ORDER,))[BLEU_ORDER]


def self_bleus(sequences: np.ndarray, orders: Sequence[int], end_token: int | None = None) -> dict[int, float]:
    """Mean BLEU-n of each sequence against all others for several n; arguments as of `Bleu`, with M ≥ 2 sequences (M, T)."""
    scores = Bleu(sequences, end_token, max(orders)).scores(sequences, orders, leave_own_out=True)
    return {order: float(values.mean()) for order, values in scores.items()}
