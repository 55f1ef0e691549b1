"""Baselines and shuffled values: expected gradients and their variance over all pairs of sequences at V = 3, T = 3."""

import functools

import numpy as np
import pytest
import torch
from helpers.reference import enumerate_sequences, sequence_probability, tiny_generator, token_scores
from helpers.small_runs import gradient, small_state

import rewards
import updates
from generator import Generator
from rewards import BASELINES, shuffled_values
from running.flags import BY_NAME

NUMBERS = torch.tensor([9, 3, 1])  # of a sequence, counted from 0 to 26
TABLE = torch.rand(27, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)  # any value of each action
PAIRS = torch.cartesian_prod(torch.arange(27), torch.arange(27))  # (729, 2), all batches of two


@functools.cache
def enumerated():
    """The chance of each sequence, (27,), and the gradients of its tokens' log-probabilities, (27, 3, P)."""
    model, tokens = tiny_generator().double(), enumerate_sequences(3, 3)
    return sequence_probability(model, tokens).detach(), token_scores(model, tokens)


def estimates(change, table=TABLE):
    """Gradient estimates of batches of two with values changed by a function of (B, T): mean and total variance over all pairs."""
    chance, scores = enumerated()
    changed = torch.stack([change(table[pair]) for pair in PAIRS])  # (729, 2, 3)
    each = torch.einsum("nbt,nbtp->np", changed, scores[PAIRS])
    weight = chance[PAIRS].prod(dim=1)
    assert weight.sum().item() == pytest.approx(1)
    mean = weight @ each
    return mean, (weight @ (each - mean).square()).sum().item()


def with_baseline(name, table=TABLE):
    return estimates(lambda values: BASELINES[name](values, torch.ones_like(values, dtype=torch.bool)), table)


def test_every_value_of_the_flag_is_a_baseline():
    assert BY_NAME["baseline"].type == tuple(BASELINES)


def test_leave_one_out_does_not_change_the_expected_gradient():
    plain, _ = with_baseline("none")
    assert plain.norm() > 0.05
    torch.testing.assert_close(with_baseline("leave_one_out")[0], plain, rtol=1e-9, atol=1e-12)


def values_of_states(columns=(0, 1, 2)):
    """Values (27, 3) as roll-outs give them: that of y_t depends on y_1..t alone, so that it is no news of the token behind it."""
    tokens, rng = enumerate_sequences(3, 3), torch.Generator().manual_seed(5)
    places = [tokens[:, : t + 1] @ torch.tensor([9, 3, 1])[2 - t :] for t in columns]
    return torch.stack([torch.rand(27, generator=rng, dtype=torch.float64)[place] for place in places], dim=1)


def test_the_baseline_of_the_state_does_not_change_the_expected_gradient():
    """All batches of three: with two other sequences the line through them is steep, flat or falling."""
    chance, scores = enumerated()
    table, batches = values_of_states(), torch.cartesian_prod(*[torch.arange(27)] * 3)  # (19683, 3)
    weight = chance[batches].prod(dim=1)
    counted = torch.ones(3, 3, dtype=torch.bool)
    changed = torch.stack([BASELINES["state"](values, counted) for values in table[batches]])  # (19683, 3, 3)
    plain = 3 * torch.einsum("n,nt,ntp->p", chance, table, scores)
    got = torch.einsum("n,nbt,nbtp->p", weight, changed, scores[batches])
    assert plain.norm() > 0.05
    torch.testing.assert_close(got, plain, rtol=1e-9, atol=1e-12)
    assert (changed - torch.stack([BASELINES["leave_one_out"](values, counted) for values in table[batches]])).abs().max() > 0.1


def test_the_baseline_of_the_state_takes_off_what_earlier_tokens_have_earned():
    tokens, rng = torch.randint(3, (64, 20), generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    values = tokens.double().cumsum(dim=1) + 0.1 * torch.randn(64, 20, generator=rng)  # each token earns its number
    counted = torch.ones(64, 20, dtype=torch.bool)
    earned = tokens.double() - tokens.double().mean()
    error = {name: (BASELINES[name](values, counted) - earned)[:, 1:].square().mean().item() for name in BASELINES}
    assert error["state"] < 0.1
    assert error["leave_one_out"] > 5


@pytest.mark.parametrize(("offset", "dtype"), [(0.0, torch.float32), (100.0, torch.float32), (1e6, torch.float64)])
def test_the_baseline_of_the_state_is_a_line_through_the_other_sequences_that_count(offset, dtype):
    rng = torch.Generator().manual_seed(2)
    noise = torch.rand(3, 8, 5, generator=rng, dtype=torch.float64)
    values = (offset + noise[0] + torch.arange(5) * noise[1, :, :1]).to(dtype)
    counted = torch.arange(5) < torch.tensor([5, 4, 4, 4, 4, 4, 3, 1])[:, None]  # one is alone in the end
    got = BASELINES["state"](torch.where(counted, values, torch.full_like(values, 1e4)), counted)
    slopes = []
    for b in range(8):
        for t in range(1, 5):
            others = [i for i in range(8) if i != b and counted[i, t]]
            if counted[b, t] and others:
                before, now = (values[others, column].double().numpy() for column in (t - 1, t))
                slopes.append(np.polyfit(before, now, 1)[0])
                line = now.mean() + min(1, max(0, slopes[-1])) * (values[b, t - 1].item() - before.mean())
                assert got[b, t].item() == pytest.approx(values[b, t].item() - line, abs=1e-5 if not offset else 1e-4)
    assert any(0 < slope < 1 for slope in slopes)
    assert got[0, 4].item() == values[0, 4].item()  # nothing to compare with
    torch.testing.assert_close(got[:, 0], BASELINES["leave_one_out"](values, counted)[:, 0])


def test_the_baseline_of_the_state_is_the_mean_where_the_states_tell_nothing():
    """D has won: all values are equal, and no line goes through one point."""
    values, counted = torch.full((4, 3), 1e-6), torch.ones(4, 3, dtype=torch.bool)
    torch.testing.assert_close(BASELINES["state"](values, counted), torch.zeros(4, 3), rtol=0, atol=1e-9)


def test_baselines_take_the_variance_of_a_common_offset_off():
    noise = {name: with_baseline(name, TABLE + 10)[1] for name in BASELINES}
    assert noise["leave_one_out"] < 0.02 * noise["none"]
    at_zero = with_baseline("leave_one_out")[1]
    assert noise["leave_one_out"] == pytest.approx(at_zero)  # an offset has no effect at all


def test_leave_one_out_is_the_mean_over_the_other_counted_sequences_of_the_position():
    rng = torch.Generator().manual_seed(0)
    values, counted = torch.rand(5, 4, generator=rng), torch.rand(5, 4, generator=rng) < 0.6
    counted[:, 0], counted[:, 3] = True, False
    counted[1, 3] = True  # alone at its position
    got = BASELINES["leave_one_out"](torch.where(counted, values, torch.tensor(1e4)), counted)
    for b in range(5):
        for t in range(4):
            others = [values[i, t].item() for i in range(5) if counted[i, t] and i != b]
            if counted[b, t]:
                assert got[b, t].item() == pytest.approx(values[b, t].item() - sum(others) / max(1, len(others)), abs=1e-5)
    assert got[1, 3].item() == values[1, 3].item()  # nothing to compare with


@pytest.mark.parametrize("end_token", [None, 0])
@pytest.mark.parametrize("name", [name for name in BASELINES if name != "none"])
def test_a_policy_update_takes_the_baseline_of_its_flag_and_no_padding_into_it(name, end_token):
    state, args = small_state(vocab_size=3, seq_len=3, baseline=name, policy_loss="sum", grad_clip=1e9)
    state.generator.end_token = end_token
    tokens, values = torch.tensor([[1, 0, 0], [2, 1, 0], [1, 1, 2]]), TABLE[:3].float()
    updates.policy_update(state, args, tokens, values)
    got = gradient(state.generator)
    plain = Generator(3, args.g_emb_dim, args.g_hidden_dim)
    plain.load_state_dict(small_state(vocab_size=3, seq_len=3)[0].generator.state_dict())
    counted = torch.ones(3, 3, dtype=torch.bool)
    if end_token is not None:
        counted = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 1, 1]]).bool()
    log_p = plain(tokens).gather(2, tokens[:, :, None])[:, :, 0]
    (-(log_p * BASELINES[name](values, counted) * counted).sum()).backward()
    torch.testing.assert_close(got, gradient(plain), rtol=1e-4, atol=1e-6)


def shuffled_rows(monkeypatch, values):
    monkeypatch.setattr(rewards, "discriminator_values", lambda *_: values)
    return shuffled_values(None, None, None, None)


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_shuffled_values_belong_to_another_sequence_of_the_batch_and_each_is_used_once(batch, monkeypatch):
    values = torch.rand(batch, 5, generator=torch.Generator().manual_seed(0))
    got = shuffled_rows(monkeypatch, values)
    sources = [[i for i in range(batch) if torch.equal(row, values[i])] for row in got]
    assert sorted(i for found in sources for i in found) == list(range(batch))
    assert all(found != [b] for b, found in enumerate(sources))


def test_shuffled_values_tell_nothing_of_the_own_sequence_so_that_the_expected_gradient_is_zero(monkeypatch):
    mean, noise = estimates(lambda values: shuffled_rows(monkeypatch, values))
    assert noise > 0.1  # each single estimate has one
    assert mean.norm() < 1e-12
