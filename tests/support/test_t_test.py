"""Student's t against printed tables, and against the integral of its density."""

import math

import numpy as np
import pytest

from support.t_test import incomplete_beta, mean_interval, t_quantile, two_sided_p, welch


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [
        *[(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (9, 2.2622), (10, 2.2281)],
        *[(20, 2.0860), (30, 2.0423), (60, 2.0003), (100, 1.9840), (1000, 1.9623), (10**6, 1.9600)],
    ],
)
def test_quantiles_of_the_printed_table(freedom, expected):
    assert t_quantile(0.95, freedom) == pytest.approx(expected, abs=1e-4)


def test_quantiles_of_other_levels():
    assert t_quantile(0.99, 4) == pytest.approx(4.6041, abs=1e-4)
    assert t_quantile(0.5, 1) == pytest.approx(1.0, abs=1e-9)  # the quartile of Cauchy's distribution


@pytest.mark.parametrize("freedom", [1, 2, 3.7, 12, 250])
@pytest.mark.parametrize("t", [0.1, 0.9, 2.5, 6.0])
def test_p_is_the_integral_of_the_density_outside(freedom, t):
    middles = (np.arange(200_000) + 0.5) * (t / 200_000)
    density = (1 + middles**2 / freedom) ** (-(freedom + 1) / 2)
    density *= math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    outside = 1 - 2 * density.sum() * t / 200_000
    assert two_sided_p(t, freedom) == pytest.approx(outside, abs=1e-9)
    assert two_sided_p(-t, freedom) == two_sided_p(t, freedom)


@pytest.mark.parametrize("x", [0.0, 0.1, 0.5, 0.93, 1.0])
def test_the_incomplete_beta_function_of_whole_numbers_is_a_binomial_tail(x):
    for a, b in ((1, 1), (2, 5), (9, 3)):
        n = a + b - 1
        tail = sum(math.comb(n, k) * x**k * (1 - x) ** (n - k) for k in range(a, n + 1))
        assert incomplete_beta(x, a, b) == pytest.approx(tail, abs=1e-13)


def test_the_interval_of_a_mean_uses_the_t_distribution():
    mean, half = mean_interval([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    assert half == pytest.approx(4.302653 * math.sqrt(7 / 3) / math.sqrt(3), rel=1e-6)
    assert mean_interval([5.0]) == (5.0, None)
    assert mean_interval([5.0, 5.0]) == (5.0, 0.0)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for sample in rng.normal(3.0, 2.0, size=(2000, 3)):
        mean, half = mean_interval(sample.tolist())
        covered += abs(mean - 3.0) <= half
    assert 0.93 < covered / 2000 < 0.97


def test_welch_on_a_published_example():
    """Example 1 of the encyclopaedia's article on Welch's test: t = −2.46, 25.0 degrees of freedom, p = 0.021."""
    one = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4]
    two = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5, 24.4]
    t, freedom, p = welch(one, two)
    assert (round(t, 2), round(freedom, 1), round(p, 3)) == (-2.46, 25.0, 0.021)
    assert welch(two, one) == (-t, freedom, p)


def test_welch_with_unequal_sizes_and_with_a_side_without_spread():
    _, freedom, _ = welch([1.0, 1.0, 1.0], [2.0, 3.0])
    assert freedom == pytest.approx(1)  # all of the spread is the second side's, which has one degree
    t, _, p = welch([1.0, 2.0], [1.5, 1.5])
    assert (t, p) == (0.0, 1.0)
    for bad in (([1.0], [1.0, 2.0]), ([1.0, 1.0], [2.0, 2.0])):
        with pytest.raises(ValueError, match="Welch"):
            welch(*bad)
