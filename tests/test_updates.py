"""Updates: the policy gradient against an enumerated objective, the losses, clipping, precision, and the update of β."""

import pytest
import torch
from helpers.reference import enumerate_sequences, sequence_probability, tiny_generator
from helpers.small_runs import gradient, small_run, weights

import train
import updates
from rollout import action_values
from updates import policy_loss, update_rollout_policy


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_expected_policy_gradient_is_the_gradient_of_the_expected_reward(reduction):
    """E over all sequences of the estimator's gradient equals −∇ Σ_Y G(Y)·R(Y), with action values from many roll-outs."""
    model = tiny_generator(scale=1.0)
    tokens = enumerate_sequences(3, 3)
    table = torch.rand(27, generator=torch.Generator().manual_seed(3))

    def reward(sequences):
        return table[(sequences * torch.tensor([9, 3, 1])).sum(dim=1)]

    values = action_values(model, reward, tokens, 20_000, torch.Generator().manual_seed(0))
    chance = sequence_probability(model, tokens)
    policy_loss(model, tokens, values * chance.detach().float()[:, None], reduction).backward()
    got = gradient(model) * (tokens.numel() if reduction == "mean" else 1)

    model.zero_grad()
    (-(chance * reward(tokens)).sum()).backward()
    expected = gradient(model)
    assert expected.norm() > 0.05
    assert (got - expected).norm() < 0.03 * expected.norm()  # 20,000 roll-outs: within 1 %


def test_policy_loss_weighs_each_token_with_its_own_value():
    model = tiny_generator(vocab_size=6)
    tokens = torch.tensor([[0, 1, 2], [3, 4, 5]])
    rewards = torch.tensor([[0.1, 0.2, 0.3], [0.7, 0.5, 0.4]])
    log_p = model(tokens).gather(2, tokens[:, :, None])[:, :, 0]
    torch.testing.assert_close(policy_loss(model, tokens, rewards, "sum"), -(log_p * rewards).sum())
    torch.testing.assert_close(policy_loss(model, tokens, rewards, "mean"), -(log_p * rewards).mean())


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_the_roll_out_policy_keeps_the_declared_share(rate):
    old, new = tiny_generator(seed=0), tiny_generator(seed=1)
    expected = rate * weights(old) + (1 - rate) * weights(new)
    update_rollout_policy(old, new, rate)
    torch.testing.assert_close(weights(old), expected)


def test_d_precision_rounds_the_products_of_training_only():
    losses, scores = {}, {}
    for precision in ("float32", "bf16"):
        state, data, args = small_run(d_keep_prob=1.0, d_precision=precision)
        tokens, labels = data.held_out[:6], torch.tensor([1, 0] * 3)
        before = state.discriminator.prob_real(tokens)
        losses[precision] = updates.discriminator_update(state, args, tokens, labels)[0].item()
        scores[precision] = before
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in state.discriminator.parameters())
    assert torch.equal(scores["float32"], scores["bf16"])
    assert losses["bf16"] != losses["float32"]
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.02)


def test_d_precision_reaches_the_updates_of_d():
    trained = {}
    for precision in ("float32", "bf16"):
        state, data, args = small_run(d_precision=precision)
        train.pretrain_d_epoch(state, data, args)
        trained[precision] = weights(state.discriminator)
    assert not torch.equal(trained["float32"], trained["bf16"])
    torch.testing.assert_close(trained["bf16"], trained["float32"], atol=5e-3, rtol=0)


def test_discriminator_loss_adds_l2_of_the_output_layer_only():
    state, data, args = small_run(d_keep_prob=1.0, d_l2=0.0)
    tokens, labels = data.held_out[:6], torch.tensor([1, 0] * 3)
    without = updates.discriminator_update(state, args, tokens, labels)[0]
    state, data, args = small_run(d_keep_prob=1.0, d_l2=0.2)
    layer = state.discriminator.output
    penalty = 0.2 * (layer.weight.square().sum() + layer.bias.square().sum()).item() / 2
    assert updates.discriminator_update(state, args, tokens, labels)[0].item() == pytest.approx(without.item() + penalty, rel=1e-5)


def test_long_gradients_are_clipped_and_counted():
    state, data, args = small_run(grad_clip=1e-3)
    values = train.pretrain_g_epoch(state, data, args)
    norm = torch.cat([p.grad.flatten() for p in state.generator.parameters() if p.grad is not None]).norm().item()
    assert norm == pytest.approx(1e-3, rel=1e-2)
    assert values["grad_norm"] > 1e-3
    assert values["clipped_share"] == 1.0
    state, data, args = small_run(grad_clip=1e6)
    assert train.pretrain_g_epoch(state, data, args)["clipped_share"] == 0.0
