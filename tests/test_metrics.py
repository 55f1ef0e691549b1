"""NLL, entropy, AUC and accuracies against their definitions."""

import math

import pytest
import torch
from helpers.reference import tiny_generator

from metrics import auc, discriminator_scores, discriminator_training_scores, entropy, mean_nll


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
    monkeypatch.setattr("metrics.SEQUENCES_OF_A_THREAD", 7)
    mean, error = mean_nll(model, tokens)
    assert mean == pytest.approx(per_sequence.mean().item(), rel=1e-6)
    assert error == pytest.approx(per_sequence.std().item() / math.sqrt(40), rel=1e-5)


def test_standard_error_of_one_sequence_is_unknown():
    assert math.isnan(mean_nll(tiny_generator(), torch.tensor([[0, 1, 2]]))[1])


def test_entropy_of_a_uniform_model_is_ln_v():
    model = tiny_generator(vocab_size=9, scale=0.0)
    assert entropy(model, 10, 4, torch.Generator()) == (pytest.approx(math.log(9)), pytest.approx(0, abs=1e-6))


def test_accuracies_of_d_are_shares_of_the_sequences_of_each_class():
    """A d-step returns loss, real correct and all real, fake correct and all fake; a class without sequences has no accuracy."""
    d_steps = [torch.tensor([1.0, 1, 1, 0, 0]), torch.tensor([2.0, 0, 0, 3, 4])]
    assert discriminator_training_scores(d_steps) == {"d_loss": 1.5, "d_accuracy_real": 1.0, "d_accuracy_fake": 0.75}
    assert discriminator_training_scores(d_steps[:1]) == {"d_loss": 1.0, "d_accuracy_real": 1.0}
