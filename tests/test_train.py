"""Algorithm 1: the policy gradient against an enumerated objective, and what each phase may and may not touch."""

import copy

import pytest
import torch
from helpers.reference import enumerate_sequences, sequence_probability, tiny_generator
from helpers.small_runs import gradient, small_run, weights

import rewards
import train
import updates
from data_loader import make_data
from metrics import discriminator_training_scores, held_out_scores, mean_nll
from rollout import action_values
from running.flags import preset_settings
from running.trainer import evaluate, final_evaluation
from support.device import matmul_precision
from support.random_streams import stream
from train_state import PHASES
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


def test_policy_step_uses_the_tokens_that_were_scored(monkeypatch):
    """A port that samples anew between scoring and the loss passes every shape check."""
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


def test_roll_out_policy_equals_the_generator_after_a_round():
    state, data, args = small_run(g_steps=3)
    start = weights(state.generator)
    train.adversarial_epoch(state, data, args)
    assert not torch.equal(weights(state.generator), start)
    assert torch.equal(weights(state.policy), weights(state.generator))


def test_pre_training_reaches_the_roll_out_policy_before_the_first_round(monkeypatch):
    state, data, args = small_run()
    train.pretrain_g_epoch(state, data, args)
    seen = []
    original = rewards.action_values
    monkeypatch.setattr(rewards, "action_values", lambda p, *rest: seen.append(weights(p)) or original(p, *rest))
    before = weights(state.generator)
    train.adversarial_epoch(state, data, args)
    assert torch.equal(seen[0], before)


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_lagged_roll_out_policy_keeps_the_declared_share(rate):
    old, new = tiny_generator(seed=0), tiny_generator(seed=1)
    expected = rate * weights(old) + (1 - rate) * weights(new)
    update_rollout_policy(old, new, rate)
    torch.testing.assert_close(weights(old), expected)


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


def test_evaluation_changes_no_weight_and_no_stream():
    state, data, args = small_run()
    train.adversarial_epoch(state, data, args)
    before = {name: rng.get_state() for name, rng in {**state.streams, "data": data.train_rng}.items()}
    models = [weights(m) for m in (state.generator, state.policy, state.discriminator)]
    world = torch.get_rng_state()
    evaluate(state.generator, data, data.held_out, 50, stream(1, "evaluation", 3))
    held_out_scores(state.discriminator, data.held_out, data.held_out)
    final_evaluation(state, data, args)
    assert all(torch.equal(before[name], rng.get_state()) for name, rng in {**state.streams, "data": data.train_rng}.items())
    assert all(
        torch.equal(a, weights(b)) for a, b in zip(models, (state.generator, state.policy, state.discriminator), strict=True)
    )
    assert torch.equal(world, torch.get_rng_state())


def test_evaluation_measures_what_it_says():
    state, data, _ = small_run()
    values, samples = evaluate(state.generator, data, data.held_out, 500, stream(1, "evaluation", 0))
    assert values["nll_oracle"] == pytest.approx(data.oracle.nll(samples).mean().item(), rel=1e-5)
    assert values["nll_test"] == pytest.approx(state.generator.nll(data.held_out).mean().item(), rel=1e-5)
    assert values["distinct_tokens"] == len(set(samples.flatten().tolist()))


def test_streams_differ_by_seed_and_purpose_and_repeat():
    draws = {key: torch.rand(4, generator=stream(*key)).tolist() for key in [(1, "a"), (1, "b"), (2, "a"), (1, "a", 1)]}
    assert len({tuple(d) for d in draws.values()}) == 4
    assert draws[1, "a"] == torch.rand(4, generator=stream(1, "a")).tolist()


def test_training_and_held_out_sequences_do_not_mix():
    _, data, _ = small_run(vocab_size=1000, seq_len=8, train_size=200, eval_samples=200, batch_size=32)
    held_out = {tuple(row) for row in data.held_out.tolist()}
    assert len(held_out) == 200
    assert not held_out & {tuple(row) for row in data.train.tolist()}
    _, fresh, _ = small_run(vocab_size=1000, seq_len=8, eval_samples=200, batch_size=200)
    assert not {tuple(row) for row in fresh.held_out.tolist()} & {tuple(row) for row in next(iter(fresh.batches(200))).tolist()}


def test_an_epoch_is_a_fresh_batch_or_a_shuffled_pass():
    _, fresh, _ = small_run()
    first, second = (list(fresh.batches(6)) for _ in range(2))
    assert len(first) == len(second) == 1
    assert not torch.equal(first[0], second[0])
    _, fixed, _ = small_run(train_size=20)
    passes = [torch.cat(list(fixed.batches(6))) for _ in range(2)]
    known = sorted(map(tuple, fixed.train.tolist()))
    for one in passes:
        assert len(one) == 18  # the partial batch of 2 is left out
        rows = sorted(map(tuple, one.tolist()))
        assert all(rows.count(row) <= known.count(row) for row in rows)
    assert not torch.equal(*passes)


def test_without_shuffling_the_batches_stay_as_in_the_authors_code(monkeypatch):
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
        train.d_step(state, data, args)
    first, second, third, fourth = torch.cat(seen).chunk(4)
    assert torch.equal(first, second) and torch.equal(third, fourth)  # the passes of one round
    assert not torch.equal(first, third)
    assert not torch.equal(first[: len(data.train)], data.train)  # real and generated sequences are mixed


def test_discriminator_round_takes_k_passes_over_fresh_negatives(monkeypatch):
    state, data, args = small_run(train_size=20, d_epochs=2)
    seen = []
    original = updates.discriminator_update
    monkeypatch.setattr(train, "discriminator_update", lambda s, a, *batch: seen.append(batch) or original(s, a, *batch))
    train.d_step(state, data, args)
    assert len(seen) == 2 * (40 // 6)
    real_rows = set(map(tuple, data.train.tolist()))
    for tokens, labels in seen:
        assert all(tuple(row) in real_rows for row in tokens[labels == 1].tolist())
    negatives = set(map(tuple, torch.cat([t[y == 0] for t, y in seen]).tolist()))
    seen.clear()
    train.d_step(state, data, args)
    assert set(map(tuple, torch.cat([t[y == 0] for t, y in seen]).tolist())) != negatives
    assert state.discriminator.training


def test_accuracies_of_d_are_over_what_was_seen():
    """Loss, real right and seen, fake right and seen: a round without one class says nothing of it."""
    rounds = [torch.tensor([1.0, 1, 1, 0, 0]), torch.tensor([2.0, 0, 0, 3, 4])]
    assert discriminator_training_scores(rounds) == {"d_loss": 1.5, "d_accuracy_real": 1.0, "d_accuracy_fake": 0.75}
    assert discriminator_training_scores(rounds[:1]) == {"d_loss": 1.0, "d_accuracy_real": 1.0}


def test_precision_of_d_rounds_the_products_of_its_training_only():
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


def test_the_flag_of_d_s_precision_reaches_its_steps():
    trained = {}
    for precision in ("float32", "bf16"):
        state, data, args = small_run(d_precision=precision)
        train.pretrain_d_epoch(state, data, args)
        trained[precision] = weights(state.discriminator)
    assert not torch.equal(trained["float32"], trained["bf16"])
    torch.testing.assert_close(trained["bf16"], trained["float32"], atol=5e-3, rtol=0)


def test_tf32_is_set_for_the_products_inside_only():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    with matmul_precision("tf32", torch.device("cuda")):
        assert matmul.fp32_precision == "tf32"
    assert matmul.fp32_precision == before
    with matmul_precision("float32", torch.device("cuda")):
        assert matmul.fp32_precision == "ieee"


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


def test_pre_training_learns_the_oracle():
    state, data, args = small_run(batch_size=64, d_filters=[[2, 4]], eval_samples=500)
    before = mean_nll(state.generator, data.held_out)[0]
    floor = mean_nll(data.oracle, data.held_out)[0]
    for _ in range(250):
        train.pretrain_g_epoch(state, data, args)
    after = mean_nll(state.generator, data.held_out)[0]
    assert floor - 0.05 < after < floor + 0.35 * (before - floor)


def test_adversarial_training_raises_the_reward_of_a_fixed_discriminator():
    """With D frozen, policy gradient must climb: a loss with the wrong sign would descend."""
    state, data, args = small_run(d_steps=0, batch_size=64, rollout_num=8)
    with torch.no_grad():
        state.discriminator.output.weight.mul_(20)
    rewards = [train.adversarial_epoch(state, data, args)["reward"] for _ in range(150)]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.05


def test_presets_hold_the_numbers_of_the_paper_and_of_the_original():
    default, paper = preset_settings("default"), preset_settings("paper")
    shared = {"vocab_size": 5000, "seq_len": 20, "g_lr": 0.01, "grad_clip": 5, "d_lr": 1e-4, "d_keep_prob": 0.75, "rollout_num": 16}
    shared |= {"g_steps": 1, "d_steps": 5, "d_epochs": 3, "pretrain_d_epochs": 50, "rollout_update_rate": 0, "g_emb_dim": 32}
    for preset in (default, paper):
        assert {name: preset[name] for name in shared} == shared
    only_default = {"batch_size": 32, "g_hidden_dim": 50, "oracle_emb_dim": 20, "oracle_hidden_dim": 50, "d_emb_dim": 32, "d_l2": 0}
    only_default |= {"train_size": 0, "pretrain_g_epochs": 1000, "total_epochs": 1000, "policy_loss": "mean", "eval_every": 10}
    only_default |= {"eval_samples": 1000, "d_filters": [[3, 50], [5, 80], [5, 80], [5, 100]], "g_init": "glorot"}
    only_paper = {"batch_size": 64, "g_hidden_dim": 32, "oracle_emb_dim": 32, "oracle_hidden_dim": 32, "d_emb_dim": 64, "d_l2": 0.2}
    only_paper |= {"train_size": 10_000, "pretrain_g_epochs": 120, "total_epochs": 200, "policy_loss": "sum", "eval_every": 5}
    only_paper |= {"eval_samples": 10_000, "final_eval_samples": 100_000, "g_init": "normal", "oracle_init": "normal"}
    assert {name: default[name] for name in only_default} == only_default
    assert {name: paper[name] for name in only_paper} == only_paper
    assert sum(number for _, number in paper["d_filters"]) == 1720
    assert [width for width, _ in paper["d_filters"]] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20]


def test_state_survives_saving_and_loading():
    state, data, args = small_run()
    for phase, run in zip(PHASES, (train.pretrain_g_epoch, train.pretrain_d_epoch, train.adversarial_epoch), strict=True):
        run(state, data, args)
        state.epochs_done[phase] += 1
    other, _, _ = small_run(seed=2)
    other.load_state_dict(copy.deepcopy(state.state_dict()))  # as from a file: nothing shared
    assert other.g_epochs == 2
    for name in ("generator", "policy", "discriminator"):
        assert torch.equal(weights(getattr(other, name)), weights(getattr(state, name)))
    again = make_data(args, torch.device("cpu"), copy.deepcopy(data.state_dict()))
    one, two = (train.adversarial_epoch(s, d, args) for s, d in ((state, data), (other, again)))
    assert one == two
    assert torch.equal(weights(other.generator), weights(state.generator))
