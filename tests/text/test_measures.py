"""What is measured on lines of different lengths, counted by hand."""

import numpy as np
import pytest

from text import measures

LINES = np.array([[5, 6, 0, 0], [5, 6, 5, 6], [0, 0, 0, 0], [7, 0, 0, 0]])


def test_lengths_end_at_the_first_end():
    assert measures.lengths_of(LINES).tolist() == [2, 4, 0, 1]
    assert measures.length_histogram(LINES).tolist() == [0.25, 0.25, 0.25, 0, 0.25]
    assert measures.total_variation(measures.length_histogram(LINES), measures.length_histogram(LINES[:1])) == 0.75


def test_distinct_n_counts_n_grams_inside_lines():
    assert measures.distinct(LINES, 1) == pytest.approx(3 / 7)
    assert measures.distinct(LINES, 2) == pytest.approx(2 / 4)  # 56, 56, 65, 56
    assert measures.distinct(LINES, 3) == 1.0
    assert measures.distinct(LINES[:1], 3) == measures.distinct(LINES, 9) == 0.0


def test_copies_are_whole_lines():
    hashes = np.sort(measures.line_hashes(LINES.astype(np.uint8)))
    generated = np.array([[5, 6, 0, 0], [6, 5, 0, 0], [5, 6, 5, 0], [0, 0, 0, 0], [9, 9, 9, 9]])
    assert measures.copied_share(generated, hashes) == pytest.approx(2 / 5)


def test_different_lines_have_different_hashes():
    lines = np.stack(np.meshgrid(*[np.arange(12)] * 5), axis=-1).reshape(-1, 5)  # all of 5 tokens
    assert len(np.unique(measures.line_hashes(lines))) == 12**5
