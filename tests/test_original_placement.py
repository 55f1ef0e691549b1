"""The rewards of the original's code: what is drawn, where a score goes, and that it tells nothing."""

import pytest
import torch
from helpers.reference import enumerate_sequences, sequence_probability, tiny_generator
from helpers.small_runs import gradient, small_run

import train
from original_placement import original_values, redrawn, redrawn_rollouts
from updates import policy_loss

NUMBERS = torch.tensor([9, 3, 1])  # of a sequence of V = 3, T = 3, counted from 0 to 26


def conditionals(model, inputs):
    """Probabilities of the next token after the start token and each of these inputs, (len + 1, V)."""
    with torch.no_grad():
        return model(torch.tensor([[*inputs, 0]]))[0].exp()


@pytest.mark.parametrize("kept", [1, 2])
def test_every_token_is_drawn_anew_given_the_kept_ones_and_the_last_kept_one_is_read(kept):
    """χ² against the enumerated distribution: for k = 2 p(a|–)·p(b|y_1)·p(c|y_1, b), not p(c|a, b) and not p(c|y_1, y_2)."""
    model, y, num = tiny_generator(scale=2.0), torch.tensor([[2, 1, 0]]), 30_000
    drawn = redrawn_rollouts(model, y, num, torch.Generator().manual_seed(0))[kept - 1, 0]  # (N, 3)
    counts = torch.bincount((drawn * NUMBERS).sum(dim=1), minlength=27).double()
    expected = torch.zeros(27, dtype=torch.float64)
    for number, (a, b, c) in enumerate(enumerate_sequences(3, 3).tolist()):
        first = conditionals(model, [])[0, a]
        if kept == 1:
            expected[number] = first * conditionals(model, [a, b])[1, b] * conditionals(model, [a, b])[2, c]
        else:
            expected[number] = first * conditionals(model, [2, b])[1, b] * conditionals(model, [2, b])[2, c]
    expected *= num
    likely = expected > 5
    statistic = ((counts - expected).square() / expected)[likely].sum()
    assert expected[~likely].sum() < 0.01 * num
    assert likely.sum() > 12
    assert statistic < likely.sum() + 4 * (2 * likely.sum()) ** 0.5


def test_the_score_of_k_kept_steps_goes_to_the_action_behind_them_and_the_first_gets_nothing(monkeypatch):
    tokens = torch.zeros(2, 4, dtype=torch.int64)
    rollouts = torch.arange(3)[:, None, None, None] * 10 + torch.arange(2)[None, :, None, None] + torch.zeros(3, 2, 5, 4).long()
    monkeypatch.setattr("original_placement.redrawn_rollouts", lambda *_: rollouts)
    values = original_values(None, lambda sequences: sequences[:, 0].float(), tokens, 5, None)
    assert values.tolist() == [[0, 0, 10, 20], [0, 1, 11, 21]]


def test_roll_outs_of_different_sequences_stay_apart():
    model = tiny_generator(vocab_size=6, scale=3.0)
    tokens = torch.tensor([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
    together = redrawn_rollouts(model, tokens, 4000, torch.Generator().manual_seed(0))
    for b in range(2):
        alone = redrawn_rollouts(model, tokens[b : b + 1], 4000, torch.Generator().manual_seed(1))
        for kept in range(4):
            for position in range(5):
                shares = [torch.bincount(x[kept, i, :, position], minlength=6) / 4000 for x, i in ((together, b), (alone, 0))]
                assert (shares[0] - shares[1]).abs().max() < 0.06, (b, kept, position)


def test_the_loss_takes_tokens_drawn_given_the_tokens_before():
    model = tiny_generator(scale=2.0)
    tokens = torch.tensor([[2, 1, 0]]).repeat(20_000, 1)
    drawn = redrawn(model, tokens, torch.Generator().manual_seed(0))
    for t in range(3):
        share = torch.bincount(drawn[:, t], minlength=3) / len(drawn)
        torch.testing.assert_close(share, conditionals(model, [2, 1])[t], atol=0.015, rtol=0)


def test_the_expected_policy_gradient_is_zero_whatever_the_values():
    """The reward is independent of the drawn token: Σ_y' G(y'|y) · v · ∇ log G(y'|y) = 0 at every step."""
    model, tokens = tiny_generator(), enumerate_sequences(3, 3)
    values = torch.rand(27, 3, generator=torch.Generator().manual_seed(0))  # any function of y
    chance = sequence_probability(model, tokens).detach().float()
    with torch.no_grad():
        log_p = model(tokens)  # (27, 3, V)
    for drawn in range(3):
        weights = values * chance[:, None] * log_p[:, :, drawn].exp()
        policy_loss(model, torch.full_like(tokens, drawn), weights, "sum", model.inputs(tokens)).backward()
    assert gradient(model).norm() < 1e-5


def test_the_update_weighs_redrawn_tokens_and_reads_those_that_were_scored(monkeypatch):
    state, data, args = small_run(reward="original", rollout_num=2)
    scored, updates = [], []
    monkeypatch.setattr("rewards.original_values", lambda _policy, _score, tokens, *_: scored.append(tokens) or torch.rand(6, 5))
    monkeypatch.setattr(train, "policy_update", lambda _state, _args, *tensors: updates.append(tensors) or (torch.zeros(()),) * 2)
    before = state.streams["redrawn tokens"].get_state()
    train.g_step(state, data, args)
    targets, _, inputs = updates[0]
    assert torch.equal(inputs, state.generator.inputs(scored[0]))
    rng = torch.Generator()
    rng.set_state(before)
    assert torch.equal(targets, redrawn(state.generator, scored[0], rng)) and not torch.equal(targets, scored[0])
