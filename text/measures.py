"""How similar generated lines are to real ones. Tokens are those of `text`.

Shapes: M lines of at most T tokens each, padded with END.
"""

from __future__ import annotations

import numpy as np

import bleu
from text import END


def lengths_of(lines: np.ndarray) -> np.ndarray:
    """How many tokens come before END in each line: (M, T) -> (M,)."""
    return bleu.lengths_of(lines, END)


def distinct(lines: np.ndarray, n: int) -> float:
    """Distinct-n (Li et al. 2016): the share of different n-grams among all n-grams of the lines; 0 where there are none."""
    if n > lines.shape[1]:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(lines, n, axis=1)  # (M, T - n + 1, n)
    inside = np.arange(windows.shape[1]) + n <= lengths_of(lines)[:, None]
    grams = np.ascontiguousarray(windows[inside])
    if not len(grams):
        return 0.0
    as_bytes = grams.view(np.dtype((np.void, grams.dtype.itemsize * n)))
    return len(np.unique(as_bytes)) / len(grams)


def length_histogram(lines: np.ndarray) -> np.ndarray:
    """Shares of the lengths 0 to T: (T + 1,)."""
    return np.bincount(lengths_of(lines), minlength=lines.shape[1] + 1) / len(lines)


def total_variation(one: np.ndarray, other: np.ndarray) -> float:
    """Half the summed absolute difference of two histograms: 0 equal, 1 disjoint."""
    return float(np.abs(one - other).sum() / 2)


def copied_share(generated: np.ndarray, training: np.ndarray) -> float:
    """Share of generated lines (M, T) that are a training line, token by token; `training` as sorted `line_hashes`."""
    hashes = line_hashes(generated)
    place = np.searchsorted(training, hashes).clip(max=len(training) - 1)
    return float((training[place] == hashes).mean())


def line_hashes(lines: np.ndarray) -> np.ndarray:
    """A 64-bit number for each line, (M, T) -> uint64 (M,). Different lines have the same one with a chance of about 2^-64."""
    factors = np.random.default_rng(0).integers(1, 2**63, lines.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    total = np.zeros(len(lines), dtype=np.uint64)
    for column, factor in zip(lines.T, factors, strict=True):  # a column at a time: no N·T numbers of 8 bytes
        mixed = (column.astype(np.uint64) + factor) * factor
        total = (total ^ mixed ^ (mixed >> np.uint64(29))) * factor
    return total
