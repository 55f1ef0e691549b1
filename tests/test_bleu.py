"""BLEU-4 and self-BLEU against nltk."""

import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from bleu import Bleu, lengths_of, self_bleu, self_bleus


def nltk_bleu(references, sequence):
    """The same number from nltk, slowly."""
    return sentence_bleu(references.tolist(), sequence.tolist(), smoothing_function=SmoothingFunction().method1)


@pytest.mark.parametrize(
    ("vocab_size", "num_references", "num", "length", "own_length"),
    [
        (4, 7, 5, 9, 9),
        (30, 20, 9, 8, 8),
        (3, 2, 4, 6, 4),
        (5, 3, 4, 4, 7),
        (9, 5, 5, 3, 3),
        (2, 9, 9, 12, 12),
        (200_000, 4, 9, 6, 6),
    ],
)
def test_bleu_agrees_with_nltk(vocab_size, num_references, num, length, own_length):
    rng = np.random.default_rng(0)
    references = rng.integers(0, vocab_size, (num_references, length))
    sequences = rng.integers(0, vocab_size + 1, (num, own_length))  # with tokens that no reference has
    sequences[: num // 2, :3] = references[0, :3]
    expected = [nltk_bleu(references, sequence) for sequence in sequences]
    np.testing.assert_allclose(Bleu(references).score(sequences), expected, rtol=1e-9)


def test_bleu_counts_only_what_one_reference_holds():
    """Clipping by the sum over references, or not at all, would give 1."""
    references = np.array([[1, 2, 3, 4], [1, 5, 6, 7]])
    assert Bleu(references).score(references) == pytest.approx([1, 1])
    sequence = np.array([[1, 1, 1, 1]])
    assert Bleu(references).score(sequence) == pytest.approx([nltk_bleu(references, sequence[0])])
    assert Bleu(references).score(np.array([[8, 9, 8, 9]])) == pytest.approx([0])


def test_self_bleu_leaves_the_sequence_itself_out():
    rng = np.random.default_rng(1)
    sequences = rng.integers(0, 4, (12, 7))
    sequences[3] = sequences[5]
    expected = [nltk_bleu(np.delete(sequences, i, axis=0), sequence) for i, sequence in enumerate(sequences)]
    assert self_bleu(sequences) == pytest.approx(np.mean(expected))
    assert self_bleu(np.tile(sequences[:1], (4, 1))) == pytest.approx(1)


def test_sequences_that_end_early_are_scored_at_their_true_lengths_as_nltk_does():
    """Token 0 ends a sequence; the brevity penalty is that of the nearest reference length, of the others for self-BLEU."""
    rng, smoothing = np.random.default_rng(0), SmoothingFunction().method1

    def plain(row):
        return row[: lengths_of(row[None], 0)[0]].tolist()

    for _ in range(15):
        tokens, width = int(rng.integers(3, 8)), int(rng.integers(3, 9))
        references, sequences = rng.integers(0, tokens, (6, width)), rng.integers(0, tokens + 2, (10, width))
        references[0] = 1
        got, own = Bleu(references, 0, 5).scores(sequences, (2, 3, 4, 5)), self_bleus(references, (2, 4), 0)
        lists = [plain(row) for row in references]
        for order in (2, 3, 4, 5):
            for sequence, score in zip(map(plain, sequences), got[order], strict=True):
                expected = sentence_bleu(lists, sequence, [1 / order] * order, smoothing) if sequence else 0
                assert score == pytest.approx(expected, abs=1e-9)
        for order in (2, 4):
            others = [lists[:i] + lists[i + 1 :] for i in range(6)]
            scores = [sentence_bleu(o, s, [1 / order] * order, smoothing) if s else 0 for o, s in zip(others, lists, strict=True)]
            assert own[order] == pytest.approx(np.mean(scores), abs=1e-9)
