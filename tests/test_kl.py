"""--kl_weight: KL(G‖G as the pre-training left it) in the objective, against enumeration at V = 3, T = 3."""

from types import SimpleNamespace

import pytest
import torch
from helpers.reference import enumerate_sequences, sequence_probability, tiny_generator
from helpers.small_runs import gradient, small_args, small_run, small_state, weights

import train
import updates
from generator import Generator
from rewards import BASELINES
from updates import kl_penalty

LAMBDA = 0.7
TABLE = torch.rand(27, generator=torch.Generator().manual_seed(3), dtype=torch.float64)  # the reward of each whole sequence


def pair(end_token):
    """G and its reference, both in float64, and the sequences that they can draw."""
    g, reference = tiny_generator(seed=0).double(), tiny_generator(seed=5, scale=2.0).double()
    g.end_token = reference.end_token = end_token
    tokens = enumerate_sequences(3, 3)
    if end_token is not None:
        ended = (tokens == end_token).long().cumsum(dim=1)
        tokens = tokens[((tokens == end_token) | (ended == 0)).all(dim=1)]
    return g, reference, tokens


def log_probability(model: Generator, tokens):
    """Of whole sequences, (27,); what follows the end is certain."""
    return torch.where(model.counted(tokens), model(tokens).gather(2, tokens[:, :, None])[:, :, 0], 0.0).sum(dim=1)


def objective(g, reference, tokens):
    """E[R] − λ·KL(G‖G_ref), summed over all sequences."""
    log_p = log_probability(g, tokens)
    assert log_p.exp().sum().item() == pytest.approx(1)
    with torch.no_grad():
        log_q = log_probability(reference, tokens)
    return (log_p.exp() * (TABLE[: len(tokens)] - LAMBDA * (log_p - log_q))).sum()


def expected_gradient(end_token, **changes):
    """Σ_Y G(Y) · gradient of `policy_update` on Y alone, the weights left as they are."""
    g, reference, tokens = pair(end_token)
    fixed = torch.optim.SGD(g.parameters(), lr=0.0)
    state = SimpleNamespace(generator=g, reference=reference, optimizers={"policy": fixed})
    args = small_args(kl_weight=LAMBDA, grad_clip=1e9, **changes)
    chance = log_probability(g, tokens).exp().detach()
    total = torch.zeros_like(weights(g)[: sum(p.numel() for p in g.parameters() if p.requires_grad)])
    for y, reward, weight in zip(tokens, TABLE, chance, strict=False):
        updates.policy_update(state, args, y[None], reward.expand(1, 3))
        total += weight * gradient(g)
    assert all(p.grad is None for p in reference.parameters())
    return total


@pytest.mark.parametrize(("reduction", "end_token"), [("sum", None), ("mean", None), ("sum", 0)])
def test_the_expected_update_also_counts_how_an_action_changes_the_later_divergence(reduction, end_token):
    """The gradient of the exact divergence at each step of given prefixes alone would leave that part out."""
    got = expected_gradient(end_token, policy_loss=reduction) * (3 if reduction == "mean" else 1)
    g, reference, tokens = pair(end_token)
    (-objective(g, reference, tokens)).backward()
    expected = gradient(g)
    assert expected.norm() > 0.1
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("end_token", [None, 0])
def test_the_penalty_is_the_divergence_of_whole_sequences_in_the_right_direction(end_token):
    g, reference, tokens = pair(end_token)
    counted = g.counted(tokens)
    total, each = kl_penalty(g, reference, tokens, LAMBDA * counted)
    with torch.no_grad():
        log_p, log_q = (log_probability(model, tokens) for model in (g, reference))
    exact, reverse = (log_p.exp() * (log_p - log_q)).sum(), (log_q.exp() * (log_q - log_p)).sum()
    assert abs(exact - reverse) > 0.05
    assert (log_p.exp() @ (each * counted).sum(dim=1)).item() == pytest.approx(exact.item())
    assert total.item() == pytest.approx(LAMBDA * (each * counted).sum().item())


def test_a_policy_update_in_one_batch_is_the_mean_of_its_sequences():
    """B·T divides both parts of a batch's loss, and no sequence's divergence reaches another's actions."""
    g, reference, tokens = pair(None)
    fixed = torch.optim.SGD(g.parameters(), lr=0.0)
    state = SimpleNamespace(generator=g, reference=reference, optimizers={"policy": fixed})
    args = small_args(kl_weight=LAMBDA, grad_clip=1e9, policy_loss="mean")
    rewards = TABLE[:6, None] * torch.tensor([1.0, 2.0, 3.0])
    updates.policy_update(state, args, tokens[4:10], rewards)
    together, apart = gradient(g), 0
    for y, reward in zip(tokens[4:10], rewards, strict=True):
        updates.policy_update(state, args, y[None], reward[None])
        apart = apart + gradient(g) / 6
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("baseline", ["leave_one_out", "state"])
def test_a_baseline_takes_the_mean_off_the_later_divergence_and_predicts_it_from_nothing_that_knows_the_action(baseline):
    """What the steps after y_t−1 cost is known with y_t: a line through it would take off what y_t has caused."""
    g, reference, tokens = pair(None)
    state = SimpleNamespace(generator=g, reference=reference, optimizers={"policy": torch.optim.SGD(g.parameters(), lr=0.0)})
    settings = dict(kl_weight=LAMBDA, grad_clip=1e9, policy_loss="sum")
    updates.policy_update(state, small_args(**settings, baseline=baseline), tokens[3:11], torch.zeros(8, 3))
    got = gradient(g)
    updates.policy_update(state, small_args(**settings, baseline="none"), tokens[3:11], torch.zeros(8, 3))
    without = gradient(g)
    g.zero_grad()
    counted = torch.ones(8, 3, dtype=torch.bool)
    _, each = updates.kl_penalty(g, reference, tokens[3:11], torch.ones(8, 3))
    later = LAMBDA * (each.flip(1).cumsum(dim=1).flip(1) - each).detach()
    log_p = g(tokens[3:11]).gather(2, tokens[3:11, :, None])[:, :, 0]
    ((BASELINES["leave_one_out"](later, counted) - later) * log_p).sum().backward()
    torch.testing.assert_close(got - without, gradient(g), rtol=1e-4, atol=1e-6)
    assert (got - without).abs().max() > 1e-3


def test_the_divergence_at_a_step_is_no_value_of_the_action_behind_it():
    """That would change no expectation, but only add noise: without rewards and later steps the drawn token has no effect."""
    g, reference, _ = pair(None)
    fixed = torch.optim.SGD(g.parameters(), lr=0.0)
    state = SimpleNamespace(generator=g, reference=reference, optimizers={"policy": fixed})
    gradients = []
    for token in range(3):
        updates.policy_update(state, small_args(kl_weight=LAMBDA), torch.tensor([[token]]), torch.zeros(1, 1))
        gradients.append(gradient(g))
    assert gradients[0].norm() > 0.1
    assert torch.equal(gradients[0], gradients[1]) and torch.equal(gradients[0], gradients[2])


def test_no_weight_means_no_reference():
    assert small_state(kl_weight=0.0)[0].reference is None


def test_the_reference_is_the_pre_trained_generator_and_does_not_follow_it():
    state, data, args = small_run(kl_weight=0.3, rollout_num=1, g_steps=2, d_steps=1, d_epochs=1)
    for _ in range(3):
        train.pretrain_g_epoch(state, data, args)
        state.epochs_done["pretrain_g"] += 1
    pretrained = weights(state.generator)
    for _ in range(3):
        train.adversarial_epoch(state, data, args)
        state.epochs_done["adversarial"] += 1
        assert torch.equal(weights(state.reference), pretrained)
    assert not torch.equal(weights(state.generator), pretrained)
    assert all(p.grad is None for p in state.reference.parameters())


def test_a_heavy_weight_holds_the_generator_at_the_reference():
    """Constant rewards and a large λ: G, pushed away first, comes back; with the wrong sign it would flee."""
    state, data, args = small_run(kl_weight=20.0, reward="constant", policy_lr=0.03, batch_size=16)
    train.adversarial_epoch(state, data, args)
    state.epochs_done["adversarial"] += 1
    with torch.no_grad():
        state.generator.output.bias += torch.randn(12, generator=torch.Generator().manual_seed(0))
    tokens = enumerate_sequences(12, 1)

    def distance():
        with torch.no_grad():
            return sequence_kl(state.generator, state.reference, tokens)

    start = distance()
    for _ in range(30):
        train.adversarial_epoch(state, data, args)
    assert distance() < 0.1 * start


def sequence_kl(g, reference, tokens):
    p, q = (sequence_probability(model, tokens) for model in (g, reference))
    return (p * (p / q).log()).sum().item()
