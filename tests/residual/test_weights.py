"""Importance weights against enumeration (V = 3, T = 3): Z, what judges know, β, and the distribution of what is resampled."""

import math

import pytest
import torch
from helpers.reference import enumerate_sequences, sequence_probability, tiny_generator

from residual.weights import BETAS, MOST_ERROR, choose_beta, effective_candidates, knowledge, log_normaliser, resample

NUMBERS = torch.tensor([9, 3, 1])  # of a sequence, counted from 0 to 26
SCORES = torch.randn(27, generator=torch.Generator().manual_seed(0))  # s of each sequence
BETA = 1.3


def chances(model):
    return sequence_probability(model, enumerate_sequences(3, 3)).detach()


def scores_of(model, num, seed):
    return SCORES[(model.sample(num, 3, torch.Generator().manual_seed(seed)) * NUMBERS).sum(dim=1)]


G, REAL = tiny_generator(seed=0), tiny_generator(seed=5)
LOG_Z = (chances(G) @ (BETA * SCORES.double()).exp()).log().item()


def coverage(estimates, exact):
    """The share of estimates within two standard errors."""
    return sum(abs(value - exact) < 2 * error for value, error in estimates) / len(estimates)


def test_the_normaliser_is_a_mean_over_samples_of_g_with_its_error():
    value, error = log_normaliser(scores_of(G, 20_000, 0), BETA)
    assert abs(value - LOG_Z) < 5 * error < 0.2
    scores = scores_of(G, 300 * 400, 1).view(300, 400)
    assert 0.9 < coverage([log_normaliser(row, BETA) for row in scores], LOG_Z) < 0.985


def test_large_scores_overflow_nothing():
    value, error = log_normaliser(torch.tensor([1000.0, 1000.0, 999.0]), 5.0)
    assert value == pytest.approx(5000 + math.log((2 + math.exp(-5)) / 3))
    assert 0 < error < 1
    assert log_normaliser(torch.tensor([0.0, -1e5]), 5.0)[0] == pytest.approx(-math.log(2))


def test_knowledge_is_the_gain_of_the_residual_model_on_real_sequences_with_the_error_of_both_samples():
    exact = (chances(REAL) @ (BETA * SCORES.double())).item() - LOG_Z
    value, error = knowledge(scores_of(REAL, 20_000, 2), scores_of(G, 20_000, 3), BETA)
    assert abs(value - exact) < 5 * error < 0.2
    real, own = scores_of(REAL, 300 * 100, 4).view(300, 100), scores_of(G, 300 * 400, 5).view(300, 400)
    assert 0.9 < coverage([knowledge(*pair, BETA) for pair in zip(real, own, strict=True)], exact) < 0.985


def counted_model(seed):
    """A distribution over 27 sequences with whole numbers as weights: counts, and the probabilities."""
    counts = torch.randint(1, 30, (27,), generator=torch.Generator().manual_seed(seed))
    return counts, counts.double() / counts.sum()


@pytest.mark.parametrize("seed", range(5))
def test_knowledge_never_exceeds_the_divergence_and_reaches_it_with_the_log_ratio(seed):
    """On samples that hold each sequence as often as its distribution says, the estimate is exact."""
    (real, p), (own, q) = counted_model(seed), counted_model(seed + 100)
    divergence = (p * (p / q).log()).sum().item()

    def known(scores, beta):
        return knowledge(scores.repeat_interleave(real), scores.repeat_interleave(own), beta)[0]

    ratio = (p / q).log()
    assert known(ratio, 1.0) == pytest.approx(divergence)
    assert known(ratio + 7, 1.0) == pytest.approx(divergence)  # a constant is in Z as well
    for beta in (0.3, 0.9, 1.1, 2.0):
        assert known(ratio, beta) < divergence - 1e-4
        assert known(torch.randn(27, generator=torch.Generator().manual_seed(seed)), beta) < divergence
    assert choose_beta(ratio.repeat_interleave(real), ratio.repeat_interleave(own)) == 1.0
    assert choose_beta(2 * ratio.repeat_interleave(real), 2 * ratio.repeat_interleave(own)) == 0.5
    useless = ratio.repeat_interleave(own)
    assert choose_beta(useless, useless) == 0.0
    assert choose_beta(-ratio.repeat_interleave(real), -ratio.repeat_interleave(own)) == 0.0


def test_beta_is_chosen_from_samples_near_1_for_the_exact_log_ratio():
    ratio = (chances(REAL) / chances(G)).log()
    real, own = (ratio[(model.sample(4000, 3, torch.Generator().manual_seed(6)) * NUMBERS).sum(dim=1)] for model in (REAL, G))
    assert choose_beta(real, own) == pytest.approx(1, abs=0.15)
    assert min(BETAS) == 0 and 1.0 in BETAS


def test_a_beta_whose_z_few_samples_decide_is_not_taken():
    """Judges that tell G's samples apart with certainty: a larger β seems better, as the samples that count in Z are not drawn."""
    rng = torch.Generator().manual_seed(0)
    own, real = torch.randn(2000, generator=rng) * 4 - 8, torch.randn(500, generator=rng) * 4 + 8
    beta = choose_beta(real, own)
    assert 0 < beta < 0.6
    assert log_normaliser(own, beta)[1] <= MOST_ERROR < log_normaliser(own, beta + 0.05)[1]
    exact = beta * -8 + (4 * beta) ** 2 / 2  # of normal scores
    assert log_normaliser(own, beta)[0] == pytest.approx(exact, abs=2 * MOST_ERROR)
    assert abs(log_normaliser(own, 3.0)[0] - (3 * -8 + 12**2 / 2)) > 20


def chi_squared(drawn, expected):
    """Whether numbers 0 to 26 have this distribution; sequences that are rare together count as one."""
    counts, expected = torch.bincount(drawn, minlength=27).double(), expected * len(drawn)
    rare = expected < 5
    parts = [torch.cat([each[~rare], each[rare].sum()[None]]) for each in (counts, expected)]
    statistic = ((parts[0] - parts[1]).square() / parts[1].clamp(min=1e-9)).sum().item()
    degrees = len(parts[1]) - 1
    return statistic < degrees + 4.5 * math.sqrt(2 * degrees)


def drawn(candidates, num, beta, seed=0):
    """The numbers of sequences that are chosen among so many candidates of G each."""
    numbers = (G.sample(num * candidates, 3, torch.Generator().manual_seed(seed)) * NUMBERS).sum(dim=1).view(num, candidates)
    chosen = resample(SCORES[numbers], beta, torch.Generator().manual_seed(seed + 1))
    assert chosen.dtype == torch.int64 and chosen.shape == (num,)
    return numbers.gather(1, chosen[:, None])[:, 0]


def residual(beta):
    weights = chances(G) * (beta * SCORES.double()).exp()
    return weights / weights.sum()


def test_many_candidates_give_the_residual_model():
    numbers = drawn(60, 6000, BETA)
    assert chi_squared(numbers, residual(BETA))
    assert not chi_squared(numbers, chances(G)) and not chi_squared(numbers, residual(0.9))


def test_two_candidates_give_the_distribution_of_importance_resampling():
    p, weights = chances(G), (BETA * SCORES.double()).exp()
    share = weights[:, None] / (weights[:, None] + weights[None, :])  # that the first of two is chosen
    exact = p * (share @ p) * 2
    assert exact.sum().item() == pytest.approx(1)
    numbers = drawn(2, 20_000, BETA)
    assert chi_squared(numbers, exact)
    assert not chi_squared(numbers, p) and not chi_squared(numbers, residual(BETA))


@pytest.mark.parametrize(("candidates", "beta"), [(1, BETA), (4, 0.0)])
def test_one_candidate_or_a_beta_of_0_gives_g_itself(candidates, beta):
    numbers = drawn(candidates, 20_000, beta)
    assert chi_squared(numbers, chances(G))
    assert not chi_squared(numbers, residual(0.3))


def test_choices_depend_on_the_stream_and_not_on_the_order_of_rows():
    scores = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    one, again, other = (resample(scores, 1.0, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    certain = torch.full((50, 4), -1e4)
    certain[torch.arange(50), torch.arange(50) % 4] = 1e4
    assert torch.equal(resample(certain, 1.0, torch.Generator()), torch.arange(50) % 4)


def test_effective_candidates_lie_between_1_and_k():
    flat, certain = torch.zeros(3, 5), torch.tensor([[1e4, 0, 0, 0, 0]])
    assert effective_candidates(flat, 2.0) == pytest.approx(5)
    assert effective_candidates(certain, 1.0) == pytest.approx(1)
    assert effective_candidates(certain, 0.0) == pytest.approx(5)
    two = torch.tensor([[math.log(3), 0.0]])  # weights 3 and 1, at β = 2 9 and 1
    assert effective_candidates(two, 1.0) == pytest.approx(16 / 10)
    assert effective_candidates(two, 2.0) == pytest.approx(100 / 82)
    assert effective_candidates(torch.cat([two, torch.zeros(1, 2)]), 1.0) == pytest.approx((1.6 + 2) / 2)  # a mean over rows
