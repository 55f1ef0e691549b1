"""Algorithm 1: what each phase does, and what it may not touch."""

import pytest
import torch
from helpers.small_runs import small_run, weights

import rewards
import train
import updates
from metrics import mean_nll


def test_a_g_step_updates_on_the_tokens_that_were_scored(monkeypatch):
    """Sampling again between scoring and the loss would pass every check of shapes."""
    state, data, args = small_run()
    scored, used = [], []
    monkeypatch.setattr(rewards, "action_values", lambda p, r, tokens, *rest: scored.append(tokens) or torch.ones(tokens.shape))
    original = updates.policy_loss
    monkeypatch.setattr(updates, "policy_loss", lambda g, tokens, *rest: used.append(tokens) or original(g, tokens, *rest))
    train.adversarial_epoch(state, data, args)
    assert len(scored) == 1
    assert torch.equal(scored[0], used[0])


def test_rewards_come_from_the_roll_out_policy_and_the_discriminator_without_dropout(monkeypatch):
    state, data, args = small_run(d_steps=0)
    seen = {}
    monkeypatch.setattr(
        rewards,
        "action_values",
        lambda policy, reward, tokens, n, *rest: seen.update(policy=policy, n=n, r=reward) or torch.ones(6, 5),
    )
    state.discriminator.train()
    train.adversarial_epoch(state, data, args)
    assert seen["policy"] is state.policy
    assert seen["n"] == 3
    tokens = data.held_out
    torch.testing.assert_close(seen["r"](tokens), state.discriminator.eval()(tokens).softmax(dim=1)[:, 1])


def test_the_roll_out_policy_equals_the_generator_after_an_epoch():
    state, data, args = small_run(g_steps=3)
    start = weights(state.generator)
    train.adversarial_epoch(state, data, args)
    assert not torch.equal(weights(state.generator), start)
    assert torch.equal(weights(state.policy), weights(state.generator))


def test_pre_training_reaches_the_roll_out_policy_before_the_first_g_step(monkeypatch):
    state, data, args = small_run()
    train.pretrain_g_epoch(state, data, args)
    seen = []
    original = rewards.action_values
    monkeypatch.setattr(rewards, "action_values", lambda p, *rest: seen.append(weights(p)) or original(p, *rest))
    before = weights(state.generator)
    train.adversarial_epoch(state, data, args)
    assert torch.equal(seen[0], before)


def test_each_phase_changes_its_own_model_only():
    state, data, args = small_run()
    g, d = weights(state.generator), weights(state.discriminator)
    train.pretrain_g_epoch(state, data, args)
    assert torch.equal(weights(state.discriminator), d)
    assert not torch.equal(weights(state.generator), g)
    g = weights(state.generator)
    train.pretrain_d_epoch(state, data, args)
    assert torch.equal(weights(state.generator), g)
    assert not torch.equal(weights(state.discriminator), d)


def test_without_shuffling_the_batches_are_those_of_the_authors_code(monkeypatch):
    state, data, args = small_run(train_size=20, d_epochs=2, shuffle=False)
    passes = [torch.cat(list(data.batches(6))) for _ in range(2)]
    assert torch.equal(*passes)
    assert torch.equal(passes[0], data.train[:18])
    seen = []
    original = updates.discriminator_update

    def spy(state, args, tokens, labels):
        seen.append(tokens)
        return original(state, args, tokens, labels)

    monkeypatch.setattr(train, "discriminator_update", spy)
    for _ in range(2):
        train.d_steps(state, data, args, 1)
    first, second, third, fourth = torch.cat(seen).chunk(4)
    assert torch.equal(first, second) and torch.equal(third, fourth)  # the passes of one d-step
    assert not torch.equal(first, third)
    assert not torch.equal(first[: len(data.train)], data.train)  # real and generated sequences are mixed


def test_a_d_step_takes_k_passes_over_fresh_negatives(monkeypatch):
    state, data, args = small_run(train_size=20, d_epochs=2)
    seen = []
    original = updates.discriminator_update
    monkeypatch.setattr(train, "discriminator_update", lambda s, a, *batch: seen.append(batch) or original(s, a, *batch))
    train.d_steps(state, data, args, 1)
    assert len(seen) == 2 * (40 // 6)
    real_rows = set(map(tuple, data.train.tolist()))
    for tokens, labels in seen:
        assert all(tuple(row) in real_rows for row in tokens[labels == 1].tolist())
    negatives = set(map(tuple, torch.cat([t[y == 0] for t, y in seen]).tolist()))
    seen.clear()
    train.d_steps(state, data, args, 1)
    assert set(map(tuple, torch.cat([t[y == 0] for t, y in seen]).tolist())) != negatives
    assert state.discriminator.training


@pytest.mark.parametrize("changes", [{}, dict(train_size=20)], ids=["fresh batches", "fixed set"])
def test_d_steps_in_a_row_are_those_taken_one_by_one(changes):
    """Batches that are drawn together are the same sequences."""
    results = []
    for numbers in ([3], [1, 1, 1]):
        state, data, args = small_run(**changes)
        losses = [losses for number in numbers for losses in train.d_steps(state, data, args, number)]
        results.append((weights(state.discriminator), torch.stack(losses), data.fresh(2), state.sample(2, 5, "negatives")))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_pre_training_learns_the_oracle():
    state, data, args = small_run(batch_size=64, d_filters=[[2, 4]], eval_samples=500)
    before = mean_nll(state.generator, data.held_out)[0]
    floor = mean_nll(data.oracle, data.held_out)[0]
    for _ in range(250):
        train.pretrain_g_epoch(state, data, args)
    after = mean_nll(state.generator, data.held_out)[0]
    assert floor - 0.05 < after < floor + 0.35 * (before - floor)


def test_adversarial_training_raises_the_reward_of_a_fixed_discriminator():
    """With D fixed the reward must rise; a loss with the wrong sign would lower it."""
    state, data, args = small_run(d_steps=0, batch_size=64, rollout_num=8)
    with torch.no_grad():
        state.discriminator.output.weight.mul_(20)
    rewards = [train.adversarial_epoch(state, data, args)["reward"] for _ in range(150)]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.05


def test_d_is_evaluated_about_fifty_times_in_a_long_pre_training_and_in_its_last_epoch():
    """6,000 d-steps with an evaluation every ten would take longer to evaluate than to train."""
    state, data, args = small_run(pretrain_d_epochs=130, eval_every=1, d_epochs=1)
    evaluated = []
    for epoch in range(1, 131):
        if "d_held_out_auc" in train.pretrain_d_epoch(state, data, args):
            evaluated.append(epoch)
        state.epochs_done["pretrain_d"] += 1
    assert evaluated == list(range(2, 131, 2))
