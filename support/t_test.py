"""Student's t distribution: intervals for a mean over few runs, and Welch's test, without a statistics package."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

TINY = 1e-300  # replaces a zero denominator in the continued fraction
MAX_TERMS = 10_000


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b) for 0 ≤ x ≤ 1 and a, b > 0 (Abramowitz and Stegun 26.5.8)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges slowly on this side
        return 1 - incomplete_beta(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    # Lentz's method: the value is a product of ratios of successive numerators and denominators.
    value = ratio = 1.0
    inverse = 1 / (1 - (a + b) * x / (a + 1) or TINY)
    value *= inverse
    for m in range(1, MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            inverse = 1 / (1 + term * inverse or TINY)
            ratio = 1 + term / ratio or TINY
            value *= inverse * ratio
        if abs(inverse * ratio - 1) < 1e-15:
            break
    return math.exp(log_front) * value / a


def two_sided_p(t: float, freedom: float) -> float:
    """The chance of a value at least as far from 0 as t, under Student's t with this many degrees of freedom (above 0)."""
    return incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def t_quantile(level: float, freedom: float) -> float:
    """The t with P(−t ≤ T ≤ t) = level, for a level between 0 and 1: 12.706 at 95 % and one degree of freedom."""
    low, high = 0.0, 1.0
    while two_sided_p(high, freedom) > 1 - level:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if two_sided_p(middle, freedom) > 1 - level else (low, middle)
    return middle


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float | None]:
    """The mean of at least one number and half the width of its confidence interval; None for a single number."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    return mean, t_quantile(level, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def welch(one: Sequence[float], two: Sequence[float]) -> tuple[float, float, float]:
    """Welch's t-test of equal means, for samples of unequal variance.

    Returns:
        t, its degrees of freedom, and the two-sided p value.

    Raises:
        ValueError: a sample has fewer than two numbers, or neither has any spread.
    """
    if min(len(one), len(two)) < 2:
        raise ValueError("Welch's test needs two numbers on each side")
    parts = [statistics.variance(values) / len(values) for values in (one, two)]
    squared = sum(parts)
    if squared == 0:
        raise ValueError("Welch's test needs numbers that are not all equal")
    t = (statistics.fmean(one) - statistics.fmean(two)) / math.sqrt(squared)
    # as shares: the square of a very small variance underflows to 0
    freedom = 1 / sum((part / squared) ** 2 / (len(values) - 1) for part, values in zip(parts, (one, two), strict=True))
    return t, freedom, two_sided_p(t, freedom)
