"""--reward_form and --rollout_num 0: functions of D's probability, and what roll-outs average."""

import math

import pytest
import torch
from helpers.small_runs import small_state

import rewards
from fast.completions import completions
from rewards import FORMS, REWARDS
from running.flags import BY_NAME

CLOSED = {
    "prob": lambda p: p,
    "log": lambda p: math.log(p),
    "minus_log": lambda p: -math.log(1 - p),
    "logit": lambda p: math.log(p / (1 - p)),
}


def test_every_value_of_the_flag_is_a_form_and_every_form_a_value():
    assert BY_NAME["reward_form"].type == tuple(FORMS)
    needy = {name for name, reward in REWARDS.items() if reward.needs_discriminator}
    assert set(BY_NAME["reward_form"].requires[1]) == needy


@pytest.mark.parametrize("name", FORMS)
def test_forms_are_those_of_their_names(name):
    p = [0.001, 0.2, 0.5, 0.9, 0.999]
    got = FORMS[name](torch.tensor(p)).tolist()
    assert got == pytest.approx([CLOSED[name](each) for each in p], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", FORMS)
def test_logarithms_stay_finite_at_0_and_1_and_the_probability_itself_is_not_clipped(name):
    got = FORMS[name](torch.tensor([0.0, 1.0])).tolist()
    if name == "prob":
        assert got == [0, 1]
    else:
        assert got == pytest.approx([CLOSED[name](1e-4), CLOSED[name](1 - 1e-4)], abs=1e-3)


def sharp_state(**changes):
    """A discriminator whose probabilities lie far apart, so that a mean of a form is not the form of a mean."""
    state, args = small_state(**changes)
    tokens = state.generator.sample(6, args.seq_len, torch.Generator().manual_seed(0))
    with torch.no_grad():
        state.discriminator.output.weight.mul_(60)
        state.discriminator.output.bias -= state.discriminator.eval()(tokens).mean(dim=0)  # around 1/2
    return state, args, tokens


@pytest.mark.parametrize("by_table", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_roll_outs_average_the_form_and_not_the_probability(name, by_table, monkeypatch):
    state, args, tokens = sharp_state(reward_form=name, rollout_num=7)
    monkeypatch.setattr(rewards, "tables_are_faster", lambda *_: by_table)
    state.streams["rollouts"].manual_seed(1)
    got = rewards.discriminator_values(tokens, state, None, args)
    completed = completions(state.policy, tokens, 7, torch.Generator().manual_seed(1))  # (T - 1, B, N, T)
    prob = state.discriminator.prob_real(completed.flatten(0, 2)).view(completed.shape[:3])
    expected = torch.cat([FORMS[name](prob).mean(dim=2).t(), FORMS[name](state.discriminator.prob_real(tokens))[:, None]], dim=1)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    if name != "prob":
        assert (FORMS[name](prob.mean(dim=2)).t() - expected[:, :-1]).abs().max() > 0.05


@pytest.mark.parametrize("reward", ["discriminator", "shuffled"])
def test_without_roll_outs_every_action_has_the_value_of_its_whole_sequence(reward):
    state, args, tokens = sharp_state(reward_form="logit", rollout_num=0)
    before = state.streams["rollouts"].get_state()
    got = REWARDS[reward].values(tokens, state, None, args)
    whole = FORMS["logit"](state.discriminator.prob_real(tokens))
    assert whole.std() > 0.1
    assert torch.equal(got, (whole if reward == "discriminator" else whole.roll(1))[:, None].expand(6, 5))
    assert torch.equal(state.streams["rollouts"].get_state(), before)
