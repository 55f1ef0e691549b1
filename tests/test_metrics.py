"""Numbers against their definitions."""

import math

import numpy as np
import pytest
import torch
from helpers.reference import tiny_generator
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from bleu import Bleu, self_bleu
from metrics import auc, discriminator_scores, entropy, mean_nll


def test_auc_counts_pairs_and_halves_ties():
    rng = torch.Generator().manual_seed(0)
    positive, negative = (torch.randint(0, 6, (n,), generator=rng).float() for n in (40, 25))
    pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positive.tolist() for n in negative.tolist()]
    assert auc(positive, negative) == pytest.approx(sum(pairs) / len(pairs))


def test_auc_of_perfect_and_useless_scores():
    assert auc(torch.tensor([0.8, 0.9]), torch.tensor([0.1, 0.2])) == 1
    assert auc(torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5])) == 0.5


def test_discriminator_scores_count_each_class_by_itself():
    scores = discriminator_scores(torch.tensor([0.9, 0.4, 0.6, 0.7]), torch.tensor([0.2, 0.8]))
    assert scores == {"accuracy_real": 0.75, "accuracy_fake": 0.5, "auc": pytest.approx(5 / 8)}


def test_mean_nll_is_per_token_with_its_standard_error(monkeypatch):
    model = tiny_generator(vocab_size=9)
    tokens = model.sample(40, 5, torch.Generator().manual_seed(0))
    per_sequence = model.nll(tokens).double().mean(dim=1)
    monkeypatch.setattr("metrics.SEQUENCES_AT_ONCE", 7)
    mean, error = mean_nll(model, tokens)
    assert mean == pytest.approx(per_sequence.mean().item(), rel=1e-6)
    assert error == pytest.approx(per_sequence.std().item() / math.sqrt(40), rel=1e-5)


def test_standard_error_of_one_sequence_is_unknown():
    assert math.isnan(mean_nll(tiny_generator(), torch.tensor([[0, 1, 2]]))[1])


def test_entropy_of_a_uniform_model_is_ln_v():
    model = tiny_generator(vocab_size=9, scale=0.0)
    assert entropy(model, 10, 4, torch.Generator()) == (pytest.approx(math.log(9)), pytest.approx(0, abs=1e-6))


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
