"""Recipes: interleaved maximum likelihood, dropout, weight decay, schedules of the learning rate."""

import itertools
import math
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from helpers.small_runs import gradient, small_run, small_state, weights

import train
import updates
from generator import Generator
from running.trainer import evaluate
from support.random_streams import stream
from train import is_mle_step, phases
from updates import LAST_RATE, set_learning_rate


@pytest.mark.parametrize("share", [0, 0.1, 0.29, 0.3, 0.5, 0.57, 0.95, 1])
def test_interleaved_updates_have_their_share_of_every_window_and_not_only_in_the_end(share):
    steps = torch.tensor([is_mle_step(number, share) for number in range(1000)]).double()
    exact = [math.floor(number * Fraction(str(share))) for number in range(1, 1001)]  # 100 · 0.29 is below 29 in float64
    assert steps.cumsum(dim=0).tolist() == exact
    for size in (1, 2, 7, 10, 100):
        windows = steps.unfold(0, size, 1).sum(dim=1)
        assert (windows - size * share).abs().max() < 1 + 1e-6


def test_the_share_does_not_begin_anew_with_each_epoch():
    """With 1 g-step an epoch and a share of 0.25 every fourth epoch is maximum likelihood; the optimisers do not mix."""
    state, data, args = small_run(mle_share=0.25, g_steps=1, reward="constant")
    kinds = []
    for epoch in range(8):
        values = train.adversarial_epoch(state, data, args)
        assert ("loss" in values) != ("g_loss" in values)
        kinds.append("loss" in values)
        state.epochs_done["adversarial"] = epoch + 1
    assert kinds == [False, False, False, True] * 2
    made = {name: {int(s["step"]) for s in state.optimizers[name].state.values()} for name in ("policy", "mle")}
    assert made == {"policy": {6}, "mle": {2}}
    assert state.updates["adversarial"] == 8


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_both_kinds_of_updates_in_one_epoch_are_all_logged(share):
    state, data, args = small_run(mle_share=share, g_steps=4, policy_batch=9, rollout_num=0)
    values = train.adversarial_epoch(state, data, args)
    assert ("g_loss" in values) == (share < 1)
    assert state.updates["adversarial"] == 4
    assert values["tokens"] == 4 * 9 * 5


def test_with_a_share_of_1_the_phase_is_plain_maximum_likelihood_and_trains_no_discriminator():
    settings = dict(mle_share=1.0, g_steps=3, policy_batch=4, policy_lr=0.003, train_size=20, pretrain_d_epochs=2)
    state, data, args = small_run(**settings)
    assert [number for name, _, number in phases(args) if name == "pretrain_d"] == [0]
    d, streams = weights(state.discriminator), {name: state.streams[name].get_state() for name in state.streams}
    for epoch in range(2):
        values = train.adversarial_epoch(state, data, args)
        state.epochs_done["adversarial"] = epoch + 1
    assert torch.equal(weights(state.discriminator), d)
    assert not any(name.startswith("d_") for name in values) and "reward" not in values
    assert all(torch.equal(streams[name], state.streams[name].get_state()) for name in streams)

    twin, twin_data, _ = small_run(**settings)
    optimizer = torch.optim.Adam([p for p in twin.generator.parameters() if p.requires_grad], lr=0.003)
    for _ in range(6):
        tokens = twin_data.training_batch(4)
        loss = torch.nn.functional.nll_loss(twin.generator(tokens).flatten(0, 1), tokens.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twin.generator.parameters(), args.grad_clip)
        optimizer.step()
    torch.testing.assert_close(weights(state.generator), weights(twin.generator), rtol=1e-4, atol=1e-5)
    assert (weights(state.generator) - weights(small_state(**settings)[0].generator)).norm() > 0.05


def test_dropout_masks_the_embeddings_and_the_output_and_not_the_state_that_the_next_step_reads():
    state, args = small_state(vocab_size=6, g_dropout=0.4, g_emb_dropout=0.2, grad_clip=1e9)
    generator = state.generator
    plain = Generator(6, args.g_emb_dim, args.g_hidden_dim)
    plain.load_state_dict(generator.state_dict())
    tokens = generator.sample(3, 5, torch.Generator().manual_seed(0))
    masks = generator.dropout_masks(3, 5, (0.2, 0.4), torch.Generator().manual_seed(1))
    loss, _ = updates.mle_update(state, args, tokens, generator.inputs(tokens), *masks)

    hidden, last, nll = plain.initial_state(3), torch.zeros(3, dtype=torch.int64), []
    for t in range(5):
        weights = (plain.lstm.weight_ih_l0, plain.lstm.weight_hh_l0, plain.lstm.bias_ih_l0, plain.lstm.bias_hh_l0)
        hidden = torch.lstm_cell(plain.embed(last) * masks[0][:, t], hidden, *weights)
        logits = plain.output(hidden[0] * masks[1][:, t])
        nll.append(torch.nn.functional.cross_entropy(logits, tokens[:, t]))
        last = tokens[:, t]
    expected = torch.stack(nll).mean()
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient(generator), gradient(plain), rtol=1e-4, atol=1e-6)


def test_masks_have_mean_1_their_own_rates_and_no_step_or_sequence_in_common():
    generator = small_state(g_emb_dim=6, g_hidden_dim=5)[0].generator
    one, two = generator.dropout_masks(50, 40, (0.1, 0.5), torch.Generator().manual_seed(0))
    assert one.shape == (50, 40, 6) and two.shape == (50, 40, 5)
    for mask, rate in ((one, 0.1), (two, 0.5)):
        assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
        assert mask.mean().item() == pytest.approx(1, abs=5 * math.sqrt(rate / (1 - rate) / mask.numel()))
    assert len(two.flatten(1).unique(dim=0)) == 50 and len(two.transpose(0, 1).flatten(1).unique(dim=0)) == 40
    again, _ = generator.dropout_masks(50, 40, (0.1, 0.5), torch.Generator().manual_seed(1))
    assert not torch.equal(again, one)


def test_dropout_reaches_maximum_likelihood_and_nothing_else():
    """Sampling, evaluation, D and the policy gradient do as they do without it; interleaved updates have it as well."""
    ends = {}
    for rate in (0.0, 0.5):
        state, data, args = small_run(g_dropout=rate, g_emb_dropout=rate, rollout_num=1, mle_share=0.0, g_steps=2)
        before = state.streams["dropout of G"].get_state()
        for epoch in (train.pretrain_d_epoch, train.adversarial_epoch):
            epoch(state, data, args)
        values, samples = evaluate(state.generator, data, data.held_out, 20, stream(1, "evaluation"))
        assert torch.equal(state.streams["dropout of G"].get_state(), before)
        args.mle_share, untouched = 1.0, weights(state.generator)
        losses = [train.mle_step(state, args, data.held_out)[0].item() for _ in range(2)]
        assert torch.equal(state.streams["dropout of G"].get_state(), before) == (rate == 0)
        ends[rate] = (untouched, weights(state.discriminator), samples, torch.tensor([*values.values()]), losses)
    for plain, dropped in zip(ends[0.0][:4], ends[0.5][:4], strict=True):
        torch.testing.assert_close(plain, dropped, rtol=0, atol=0, equal_nan=True)
    assert ends[0.0][4] != ends[0.5][4]


@pytest.mark.parametrize("rates", [(0.5, 0.0), (0.0, 0.5)])
def test_each_dropout_flag_goes_to_its_own_place(rates, monkeypatch):
    seen = []
    original = Generator.dropout_masks
    monkeypatch.setattr(Generator, "dropout_masks", lambda self, *rest: seen.append(original(self, *rest)) or seen[-1])
    state, args = small_state(g_emb_dropout=rates[0], g_dropout=rates[1])
    train.mle_step(state, args, torch.zeros(6, 5, dtype=torch.int64))
    assert [bool((mask == 0).any()) for mask in seen[0]] == [rate > 0 for rate in rates]


def test_weight_decay_is_decoupled_of_every_trained_weight_and_of_maximum_likelihood_only(monkeypatch):
    """Without a gradient a weight becomes (1 − lr · decay) of itself; as a gradient, Adam would move all weights by lr."""
    state, args = small_state(g_weight_decay=20.0, g_lr=0.01, baseline="none")
    generator = state.generator
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    before = {name: p.detach().clone() for name, p in generator.named_parameters()}
    tokens = generator.sample(6, 5, torch.Generator().manual_seed(0))
    updates.policy_update(state, args, tokens, torch.zeros(6, 5))
    assert all(torch.equal(p, before[name]) for name, p in generator.named_parameters())
    monkeypatch.setattr(generator, "weighted_nll", lambda *_: 0 * sum(p.sum() for p in generator.parameters()))
    updates.mle_update(state, args, tokens)
    for name, parameter in generator.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] * (0.8 if parameter.requires_grad else 1.0))


def optimizer_of(weight, **group):
    return SimpleNamespace(param_groups=[{"params": [weight], "capturable": False, "lr": 9.0, **group}])


def test_a_cosine_schedule_falls_from_the_first_epoch_to_3_percent_in_the_last_and_a_constant_one_stays():
    optimizer = optimizer_of(torch.zeros(1))
    rates = {"cosine": [], "constant": []}
    for schedule, got in rates.items():
        for done in range(9):
            set_learning_rate(optimizer, 0.4, schedule, done, 9)
            got.append(optimizer.param_groups[0]["lr"])
    assert rates["constant"] == [0.4] * 9
    cosine = rates["cosine"]
    assert cosine[0] == pytest.approx(0.4) and cosine[-1] == pytest.approx(0.012) and LAST_RATE == 0.03
    assert all(a > b for a, b in itertools.pairwise(cosine))
    assert cosine[4] == pytest.approx((0.4 + 0.012) / 2)
    assert cosine[0] - cosine[1] < 0.3 * (cosine[3] - cosine[4])  # flat at its ends, not a straight line
    set_learning_rate(optimizer, 0.4, "cosine", 0, 1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.4)  # a single epoch has the full rate


def test_a_recorded_optimiser_reads_its_rate_from_a_tensor_that_stays_where_it_is():
    optimizer = optimizer_of(torch.zeros(1), capturable=True)
    group = optimizer.param_groups[0]
    set_learning_rate(optimizer, 0.4, "cosine", 0, 3)
    tensor = group["lr"]
    assert torch.is_tensor(tensor) and tensor.item() == pytest.approx(0.4)
    set_learning_rate(optimizer, 0.4, "cosine", 2, 3)
    assert group["lr"] is tensor and tensor.item() == pytest.approx(0.012)
    group["capturable"] = False  # a checkpoint of a GPU, on a CPU
    set_learning_rate(optimizer, 0.4, "constant", 2, 3)
    assert group["lr"] == 0.4 and not torch.is_tensor(group["lr"])


def test_both_phases_of_g_have_their_own_rates_and_schedules():
    state, data, args = small_run(
        **dict(g_lr=0.1, policy_lr=0.02, g_schedule="cosine", pretrain_g_epochs=3, total_epochs=5, g_steps=2),
        **dict(mle_share=0.5, reward="constant"),
    )

    def rates():
        return [state.optimizers[name].param_groups[0]["lr"] for name in ("mle", "policy")]

    for done, share in enumerate([1.0, 0.515, 0.03]):
        train.pretrain_g_epoch(state, data, args)
        assert rates() == pytest.approx([0.1 * share, 0.02])
        state.epochs_done["pretrain_g"] = done + 1
    for done in (0, 4):
        state.epochs_done["adversarial"] = done
        train.adversarial_epoch(state, data, args)
        assert rates() == pytest.approx([0.02 * (1.0 if done == 0 else 0.03)] * 2)


def test_without_policy_flags_the_adversarial_phase_has_the_rate_and_the_batch_of_pre_training():
    state, data, args = small_run(g_lr=0.1, reward="constant")
    train.adversarial_epoch(state, data, args)
    assert state.optimizers["policy"].param_groups[0]["lr"] == 0.1
    drawn = []
    original = state.sample
    state.sample = lambda num, *rest: drawn.append(num) or original(num, *rest)
    train.g_step(state, data, args)
    args.policy_batch = 9
    train.g_step(state, data, args)
    assert drawn == [6, 9]
