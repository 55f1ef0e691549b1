"""What is measured on tunes."""

import numpy as np
import pytest

from music import measures


def test_framewise_mse_is_the_mean_over_all_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, (6, 4)), rng.integers(0, 9, (5, 4))
    pairs = [(x - y) ** 2 for t in range(4) for x in a[:, t] for y in b[:, t] if x and y]
    assert measures.framewise_mse(a, b) == pytest.approx(np.mean(pairs))
    assert np.isnan(measures.framewise_mse(np.zeros((2, 3), int), b[:, :3]))


def test_histograms_count_pitch_classes_and_intervals():
    tokens = np.array([[40, 40, 42, 0, 40, 52], [1, 88, 0, 0, 4, 3]])
    classes = measures.pitch_class_histogram(tokens)
    assert classes.sum() == pytest.approx(1)
    assert classes[0] == pytest.approx(6 / 9)  # 40 and 52 are C4 and C5, 88 is C8, 4 is C1
    steps = measures.interval_histogram(tokens)  # +2, then +12 after the rest; +87 and −1 in the other
    assert {i - 12: round(v, 3) for i, v in enumerate(steps) if v} == {2: 0.25, 12: 0.5, -1: 0.25}
    assert measures.total_variation(steps, steps) == 0
    assert measures.total_variation(np.array([1, 0]), np.array([0, 1])) == 1


def test_copies_are_whole_windows():
    training = np.array([[1, 2, 3], [4, 5, 6]])
    assert measures.copied_share(np.array([[1, 2, 3], [1, 2, 4], [4, 5, 6], [2, 3, 4]]), training) == 0.5
