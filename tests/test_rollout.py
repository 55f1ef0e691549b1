"""Action values (Eq. 4) against full enumeration and against a plain nested loop, at V = 3, T = 3, H = 4."""

import itertools

import pytest
import torch
from helpers.reference import enumerate_sequences, plain_action_values, sequence_probability, tiny_generator

from discriminator import Discriminator
from rollout import action_values, completions

V, T = 3, 3


def exact_action_values(policy, reward, tokens):
    """Expected reward of each prefix's completions, by summing over all of them: (B, T)."""
    values = torch.zeros(tokens.shape, dtype=torch.float64)
    for b, row in enumerate(tokens.tolist()):
        for t in range(1, T + 1):
            for rest in itertools.product(range(V), repeat=T - t):
                sequence = torch.tensor([row[:t] + list(rest)])
                chance = policy(sequence)[0].double().gather(1, sequence[0, :, None])[t:, 0].sum().exp()
                values[b, t - 1] += chance * reward(sequence)[0]
    return values


def looks_at(position):
    """A reward of the token at one position: a prefix that is one token too short or too long changes it."""
    table = torch.tensor([0.1, 0.9, 0.4])
    return lambda tokens: table[tokens[:, position]]


@pytest.mark.parametrize("position", range(T))
def test_action_values_match_enumeration(position):
    policy = tiny_generator(scale=1.5)
    tokens = enumerate_sequences(V, T)  # (27, 3)
    rollouts = 4000
    got = action_values(policy, looks_at(position), tokens, rollouts, torch.Generator().manual_seed(0))
    expected = exact_action_values(policy, looks_at(position), tokens)
    # rewards lie within 0.8 of each other, so a mean of 4,000 has a standard error of at most 0.0064
    assert (got - expected).abs().max() < 4.5 * 0.4 / rollouts**0.5
    # from the position on, the reward is certain and must be exact: its own token is in the prefix
    exact = looks_at(position)(tokens)[:, None].expand(-1, T - position)
    torch.testing.assert_close(got[:, position:], exact, atol=1e-6, rtol=0)


def test_action_values_match_enumeration_with_a_real_discriminator():
    policy = tiny_generator(scale=1.5)
    rng = torch.Generator().manual_seed(3)
    discriminator = Discriminator(V, 4, [(1, 4), (2, 6), (3, 4)]).initialise(rng)
    with torch.no_grad():
        discriminator.output.weight.mul_(20)
    tokens = enumerate_sequences(V, T)
    rollouts = 4000
    got = action_values(policy, discriminator.prob_real, tokens, rollouts, rng)
    expected = exact_action_values(policy, discriminator.prob_real, tokens)
    assert (expected.max() - expected.min()) > 0.2
    assert (got - expected).abs().max() < 4.5 * 0.5 / rollouts**0.5


def test_plain_nested_loop_agrees_in_distribution():
    """Same mean and same variance over many copies with few roll-outs: the N completions of a prefix are independent."""
    policy = tiny_generator(scale=1.0)
    tokens = torch.tensor([[0, 1, 2], [2, 2, 1]])
    reward = looks_at(2)
    rng = torch.Generator().manual_seed(1)
    repeats, rollouts = 1500, 2
    many = tokens.repeat(repeats, 1)  # (3000, 3)
    fast = action_values(policy, reward, many, rollouts, rng).view(repeats, 2, 3)
    plain = plain_action_values(policy, reward, many, rollouts, rng).view(repeats, 2, 3)
    standard_error = (fast.var(0) / repeats + plain.var(0) / repeats).sqrt()
    assert ((fast.mean(0) - plain.mean(0)).abs() <= 4.5 * standard_error + 1e-6).all()
    torch.testing.assert_close(fast.var(0), plain.var(0), rtol=0.2, atol=1e-6)


def test_rewards_stay_with_their_own_sequence():
    """The reward is the first token, so a reshape that mixes sequences shows."""
    policy = tiny_generator(vocab_size=9)
    tokens = torch.arange(9)[:, None].repeat(1, 5)  # (9, 5)
    values = action_values(policy, lambda x: x[:, 0].float(), tokens, 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(values, tokens.float())


def test_completions_begin_with_their_prefix_and_vary_after_it():
    policy = tiny_generator(vocab_size=7)
    tokens = policy.sample(4, 6, torch.Generator().manual_seed(0))
    completed = completions(policy, tokens, 200, torch.Generator().manual_seed(1))  # (5, 4, 200, 6)
    assert completed.shape == (5, 4, 200, 6)
    for t in range(1, 6):
        assert torch.equal(completed[t - 1, :, :, :t], tokens[:, None, :t].expand(-1, 200, -1))
        for position in range(t, 6):
            assert all(len(completed[t - 1, b, :, position].unique()) > 1 for b in range(4))


def test_completions_follow_the_policy_jointly():
    """Frequencies of whole completions: a row with another row's LSTM state would have the wrong ones."""
    policy = tiny_generator(scale=2.0)
    tokens = torch.tensor([[1, 0, 0], [2, 0, 0]])
    n = 60_000
    completed = completions(policy, tokens, n, torch.Generator().manual_seed(5))[0]  # prefix y_1: (2, n, 3)
    for b in range(2):
        for rest in itertools.product(range(V), repeat=2):
            sequence = torch.tensor([[tokens[b, 0].item(), *rest]])
            first = policy(sequence)[0, 0, sequence[0, 0]].double().exp()
            chance = (sequence_probability(policy, sequence)[0] / first).item()
            share = (completed[b] == sequence[0]).all(dim=1).double().mean().item()
            assert abs(share - chance) < 4.5 * (chance * (1 - chance) / n) ** 0.5 + 1e-6


def test_one_token_sequences_get_the_reward_itself():
    policy = tiny_generator()
    tokens = torch.tensor([[0], [1], [2]])
    values = action_values(policy, looks_at(0), tokens, 5, torch.Generator())
    torch.testing.assert_close(values, torch.tensor([[0.1], [0.9], [0.4]]))


def test_scoring_takes_no_gradient():
    policy = tiny_generator()
    discriminator = Discriminator(V, 4, [(1, 3), (2, 3)])
    values = action_values(policy, discriminator.prob_real, torch.tensor([[0, 1, 2]]), 2, torch.Generator())
    assert not values.requires_grad
    assert all(p.grad is None for model in (policy, discriminator) for p in model.parameters())
