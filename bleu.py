"""BLEU-4 against a large set of references, and self-BLEU.

Shapes: M sequences, R references, T tokens each.
"""

from __future__ import annotations

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
                no_match = matches == 0  # no token in common: BLEU is 0 whatever the smoothing
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
