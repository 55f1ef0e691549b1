"""How similar generated tunes are to real ones. Tokens are those of `music`.

Shapes: M or W windows of T tokens each.
"""

from __future__ import annotations

import numpy as np

from music import LOWEST_PITCH, REST

INTERVALS = 25  # from -12 to 12 semitones; larger intervals count as an octave


def framewise_mse(generated: np.ndarray, real: np.ndarray) -> float:
    """Mean squared pitch difference, in semitones², of a generated window (M, T) and a real one (W, T) at the same frame.

    The mean is over all pairs of windows and all frames in which both sound. The paper's Table 4 reports an MSE without a
    definition; this one needs no alignment and no choice of pairs. NaN where the two never sound together.
    """
    total, pairs = 0.0, 0.0
    for x, y in zip(generated.T.astype(np.float64), real.T.astype(np.float64), strict=True):
        x, y = x[x > 0], y[y > 0]
        # Σ over pairs of (x − y)², from sums over each side alone
        total += len(y) * (x**2).sum() - 2 * x.sum() * y.sum() + len(x) * (y**2).sum()
        pairs += len(x) * len(y)
    return float(total / pairs) if pairs else float("nan")


def pitch_class_histogram(tokens: np.ndarray) -> np.ndarray:
    """Shares of C, C♯, ..., B among the frames that sound: (12,)."""
    sounding = tokens[tokens != REST].astype(np.int64)
    return _shares((sounding - 1 + LOWEST_PITCH) % 12, 12)


def interval_histogram(tokens: np.ndarray) -> np.ndarray:
    """Shares of the intervals between a frame and the next, both sounding and different, −12 to 12 semitones: (25,)."""
    before, after = tokens[:, :-1].astype(np.int64), tokens[:, 1:].astype(np.int64)
    intervals = (after - before)[(before > 0) & (after > 0) & (before != after)]
    return _shares(np.clip(intervals, -12, 12) + 12, INTERVALS)


def _shares(values: np.ndarray, size: int) -> np.ndarray:
    counts = np.bincount(values, minlength=size)
    return counts / max(1, counts.sum())


def total_variation(one: np.ndarray, other: np.ndarray) -> float:
    """Half the summed absolute difference of two histograms: 0 equal, 1 disjoint."""
    return float(np.abs(one - other).sum() / 2)


def copied_share(generated: np.ndarray, training: np.ndarray) -> float:
    """Share of generated windows (M, T) that are, note for note, a training window (W, T)."""
    known = {row.tobytes() for row in training.astype(np.uint8)}
    return sum(row.tobytes() in known for row in generated.astype(np.uint8)) / len(generated)
