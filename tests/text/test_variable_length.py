"""An absorbing end token, against each line alone and against enumeration (V = 3, T = 3)."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.reference import enumerate_sequences
from helpers.small_runs import gradient, small_run

import train
from fast import completions as completions_module
from fast.completions import completions
from fast.decoder import Decoder
from generator import Generator
from metrics import Likelihoods, divergences, entropy, ratio_and_error, sequence_nll
from rewards import REWARDS
from rollout import action_values
from updates import mle_update, policy_loss

END, V, T = 0, 3, 3


def model(seed=0, end_token=END, vocab_size=V, scale=1.0):
    rng = torch.Generator().manual_seed(seed)
    return Generator(vocab_size, 3, 4, end_token=end_token).initialise(rng, scale, scale, scale, scale)


def padded(*lines, seq_len=T):
    return torch.tensor([[*line, *[END] * (seq_len - len(line))] for line in lines])


def possible():
    """All padded sequences: nothing but END after the first END."""
    tokens = enumerate_sequences(V, T)
    ended = (tokens == END).long().cumsum(1)
    return tokens[((tokens == END) | (ended == 0)).all(dim=1)]


def free_log_probability(generator, line):
    """log p of a line and the end token behind it, if it has one, by a model that knows no absorbing token: one line alone."""
    plain = model(end_token=None)
    plain.load_state_dict(generator.state_dict())
    tokens = torch.tensor([line if len(line) == T else [*line, END]])
    return plain(tokens)[0].gather(1, tokens[0][:, None]).sum()


LINES = ([1], [], [2, 1], [1, 2, 2], [2])


def test_nll_of_a_padded_batch_is_that_of_its_lines_one_by_one():
    generator = model()
    expected = torch.stack([-free_log_probability(generator, line) for line in LINES])
    torch.testing.assert_close(generator.nll(padded(*LINES)).sum(dim=1), expected.detach())
    assert generator.counted(padded(*LINES)).sum(dim=1).tolist() == [2, 1, 3, 3, 2]  # the end token counts once


def test_maximum_likelihood_takes_each_token_that_counts_once_and_no_padding():
    state, _, args = small_run(vocab_size=V, seq_len=T, variable_length=True)
    mle_update(state, args, padded(*LINES))
    got = gradient(state.generator)
    twin, _, _ = small_run(vocab_size=V, seq_len=T, variable_length=True)
    plain = Generator(V, args.g_emb_dim, args.g_hidden_dim)
    plain.load_state_dict(twin.generator.state_dict())
    total = 0
    for line in LINES:
        tokens = torch.tensor([line if len(line) == T else [*line, END]])
        total = total - plain(tokens)[0].gather(1, tokens[0][:, None]).sum()
    (total / 11).backward()
    expected = gradient(plain)
    norm = expected.norm()
    torch.testing.assert_close(got, expected * min(1, args.grad_clip / norm), rtol=1e-4, atol=1e-6)


def test_probabilities_of_all_padded_sequences_sum_to_one():
    generator = model(scale=2.0)
    tokens = possible()
    assert len(tokens) == 1 + 2 + 4 + 8
    log_p = generator(tokens).gather(2, tokens[:, :, None])[:, :, 0].double()
    assert log_p.sum(dim=1).exp().sum().item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(-log_p.sum(dim=1), generator.nll(tokens).double().sum(dim=1), atol=1e-5, rtol=1e-5)
    impossible = torch.tensor([[END, 1, END], [1, END, 2]])
    assert generator(impossible).gather(2, impossible[:, :, None]).sum(dim=(1, 2)).tolist() == [-math.inf, -math.inf]


def test_samples_have_the_probabilities_of_the_model_and_nothing_behind_the_end():
    generator = model(seed=3)
    tokens = generator.sample(60_000, T, torch.Generator().manual_seed(0))
    rows, counts = tokens.unique(dim=0, return_counts=True)
    assert {tuple(row) for row in rows.tolist()} == {tuple(row) for row in possible().tolist()}
    p = torch.exp(-sequence_nll(generator, rows))
    assert ((counts / 60_000 - p).abs() < 4.5 * (p * (1 - p) / 60_000).sqrt()).all()


@pytest.mark.parametrize("algorithm", ["_complete_each", "_complete_together"])
def test_roll_outs_change_nothing_after_the_end(algorithm, monkeypatch):
    monkeypatch.setattr(completions_module, "_complete_each", getattr(completions_module, algorithm))
    generator = model(seed=1)
    tokens = padded([1], [], [2, 1], [1, 2, 2, 1, 1], seq_len=5)
    completed = completions(generator, tokens, 200, torch.Generator().manual_seed(0))  # (4, 4, 200, 5)
    for prefix in range(1, 5):
        for sequence in (0, 1, 2):
            if (tokens[sequence, :prefix] == END).any():
                assert (completed[prefix - 1, sequence] == tokens[sequence]).all()
        assert (completed[prefix - 1, 3, :, :prefix] == tokens[3, :prefix]).all()
    ended = (completed == END).long().cumsum(-1)
    assert ((completed == END) | (ended == 0)).all()
    lengths = {tuple(row) for row in (completed[0, 3] == END).tolist()}
    assert len(lengths) == 5  # roll-outs of y_1 end after 1 to 5 tokens


def test_ended_prefixes_are_not_drawn_any_further(monkeypatch):
    rows, draw = [], Decoder.draw
    monkeypatch.setattr(Decoder, "draw", lambda self, states, *rest: rows.append(len(states.cell)) or draw(self, states, *rest))
    completions(model(), padded([1], [], [2, 1], [1, 2, 2, 1, 1], seq_len=5), 3, torch.Generator())
    assert rows == [3, 2, 1, 1]  # sequences whose prefix of 1, 2, 3, 4 tokens goes on


def test_both_ways_of_completing_draw_the_same(monkeypatch):
    generator = model(seed=2, vocab_size=9)
    tokens = generator.sample(6, 7, torch.Generator().manual_seed(0))
    one = completions(generator, tokens, 5, torch.Generator().manual_seed(1))
    monkeypatch.setattr("support.threads.CPU_TYPES", ())
    assert torch.equal(completions(generator, tokens, 5, torch.Generator().manual_seed(1)), one)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_rewards_behind_the_end_have_no_effect(reduction):
    generator = model()
    tokens = padded(*LINES)
    rewards = torch.rand(5, T, generator=torch.Generator().manual_seed(0))
    changed = torch.where(generator.counted(tokens), rewards, torch.tensor(1000.0))
    one, two = (policy_loss(generator, tokens, r, reduction) for r in (rewards, changed))
    assert one.item() == two.item()
    log_p = [free_log_probability(generator, line) for line in LINES]  # each token with a reward of 1
    same = policy_loss(generator, tokens, torch.ones(5, T), reduction)
    torch.testing.assert_close(same, -sum(log_p) / (11 if reduction == "mean" else 1))


def test_expected_policy_gradient_is_that_of_the_expected_reward():
    """E over all sequences of the estimator's gradient equals −∇ Σ_Y G(Y)·R(Y), with action values from many roll-outs."""
    generator, tokens = model(), possible()
    table = torch.rand(27, generator=torch.Generator().manual_seed(3))

    def reward(sequences):
        return table[(sequences * torch.tensor([9, 3, 1])).sum(dim=1)]

    values = action_values(generator, reward, tokens, 20_000, torch.Generator().manual_seed(0))
    chance = torch.exp(-sequence_nll(generator, tokens))
    policy_loss(generator, tokens, values * chance.float()[:, None], "sum").backward()
    got = gradient(generator)
    generator.zero_grad()
    log_p = (
        torch.where(generator.counted(tokens), generator(tokens).gather(2, tokens[:, :, None])[:, :, 0], 0.0).double().sum(dim=1)
    )
    (-(log_p.exp() * reward(tokens)).sum()).backward()
    expected = gradient(generator)
    assert expected.norm() > 0.05
    assert (got - expected).norm() < 0.03 * expected.norm()


def test_entropy_and_divergences_are_those_of_the_enumerated_model():
    g, oracle, tokens = model(seed=0), model(seed=5), possible()
    p, q = (torch.exp(-sequence_nll(each, tokens)) for each in (g, oracle))
    exact = -(p * p.log()).sum().item() / T
    estimate, error = entropy(g, 20_000, T, torch.Generator().manual_seed(1))
    assert abs(estimate - exact) < 4.5 * error
    of_g, of_oracle = (each.sample(20_000, T, torch.Generator().manual_seed(2)) for each in (g, oracle))
    nll = Likelihoods(*(sequence_nll(each, rows) for rows in (of_g, of_oracle) for each in (g, oracle)))
    got = divergences(nll, T)
    assert abs(got["kl_g_oracle"] - (p * (p / q).log()).sum().item() / T) < 4.5 * got["kl_g_oracle_error"]
    assert abs(got["kl_oracle_g"] - (q * (q / p).log()).sum().item() / T) < 4.5 * got["kl_oracle_g_error"]


def test_a_ratio_weighs_tokens_and_not_lines():
    totals, counts = torch.tensor([2.0, 9.0]), torch.tensor([1, 3])
    assert ratio_and_error(totals, counts)[0] == pytest.approx(11 / 4)
    rng = torch.Generator().manual_seed(0)
    counts = torch.randint(1, 9, (400, 500), generator=rng)
    totals = counts * 2.0 + torch.randn(400, 500, generator=rng) * counts.sqrt()
    ratios, errors = zip(*(ratio_and_error(t, c) for t, c in zip(totals, counts, strict=True)), strict=True)
    assert torch.tensor(ratios).std().item() == pytest.approx(sum(errors) / 400, rel=0.15)


@pytest.mark.parametrize("changes", [{}, {"reward": "bleu"}, {"scheduled_sampling": 0.3}, {"reward": "constant"}])
def test_every_phase_runs_on_sequences_of_variable_length(changes):
    state, data, args = small_run(variable_length=True, **changes)
    for epoch in (train.pretrain_g_epoch, train.pretrain_d_epoch, train.adversarial_epoch):
        values = epoch(state, data, args)
    reached = [value for value in values["reward_at"] if value is not None]
    assert all(map(math.isfinite, reached))
    assert values["reward"] == pytest.approx(sum(reached) / len(reached))


def test_the_logged_reward_holds_no_position_that_no_line_reaches(monkeypatch):
    """A reward of 0 there would hide that all others have vanished."""
    state, data, args = small_run(variable_length=True)
    tokens = torch.tensor([[3, 0, 0, 0, 0], [4, 5, 0, 0, 0]])
    monkeypatch.setattr(type(state), "sample", lambda self, num, *rest: tokens.repeat(num, 1)[:num])
    monkeypatch.setattr(train, "d_steps", lambda *_: [torch.ones(5)])
    rewards = torch.full((6, 5), 7.0).masked_fill(torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]] * 3) == 0, 99.0)
    monkeypatch.setitem(REWARDS, "discriminator", replace(REWARDS["discriminator"], values=lambda *_: rewards))
    values = train.adversarial_epoch(state, data, args)
    assert values["reward_at"] == [7.0, 7.0, 7.0, None, None]
    assert values["reward"] == 7.0
