"""The rewards that --reward names."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.cli import folders, json_lines, run, same, trained_state
from helpers.reference import tiny_generator

from bleu import Bleu
from fast.completions import completions
from fast.cuda_graphs import PLAIN_RUNNER
from rewards import REWARDS, bleu_values, constant_values, random_values
from running.flags import BY_NAME
from updates import policy_loss


def test_every_value_of_the_flag_is_a_reward_and_every_reward_a_value():
    assert BY_NAME["reward"].type == tuple(REWARDS)


def test_bleu_rewards_are_means_over_the_completions_of_each_prefix():
    """Column t − 1 is the mean over completions of y_1..t; the last column scores the sequence itself."""
    policy, references = tiny_generator(vocab_size=6), np.random.default_rng(0).integers(0, 6, (30, 6))
    tokens, bleu = policy.sample(4, 6, torch.Generator().manual_seed(0)), Bleu(references)
    state = SimpleNamespace(policy=policy, streams={"rollouts": torch.Generator().manual_seed(1)}, runner=PLAIN_RUNNER)
    data = SimpleNamespace(training_bleu=lambda: bleu)
    got = bleu_values(tokens, state, data, SimpleNamespace(rollout_num=3))
    completed = completions(policy, tokens, 3, torch.Generator().manual_seed(1)).numpy()  # (5, 4, 3, 6)
    for b in range(4):
        for t in range(1, 7):
            rows = completed[t - 1, b] if t < 6 else tokens[b : b + 1].numpy()
            expected = np.mean([bleu.score(row[None])[0] for row in rows])
            assert got[b, t - 1].item() == pytest.approx(expected, abs=1e-6)
    assert got.std() > 0.01


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_constant_reward_is_the_likelihood_gradient_of_own_samples(reduction):
    generator = tiny_generator(vocab_size=5)
    tokens = generator.sample(6, 4, torch.Generator().manual_seed(0))
    policy_loss(generator, tokens, constant_values(tokens, None, None, SimpleNamespace(reward_constant=0.3)), reduction).backward()
    got = generator.output.weight.grad.clone()
    generator.zero_grad()
    log_p = generator(tokens).gather(2, tokens[:, :, None])
    (-0.3 * (log_p.mean() if reduction == "mean" else log_p.sum())).backward()
    torch.testing.assert_close(got, generator.output.weight.grad)


def test_random_rewards_are_uniform_and_of_each_action():
    state = SimpleNamespace(streams={"random reward": torch.Generator().manual_seed(0)})
    values = random_values(torch.zeros(200, 30, dtype=torch.int64), state, None, None)
    assert len(values.unique()) > 5900 and values.min() >= 0 and values.max() < 1
    assert values.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / 6000))


@pytest.mark.parametrize("reward", ["bleu", "constant", "random"])
def test_other_rewards_leave_the_discriminator_alone_and_resume_exactly(reward, tmp_path):
    flags = ["--pretrain_g_epochs", "2", "--pretrain_d_epochs", "2", "--reward", reward, "--train_size", "12", "--eval_every", "1"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*flags, "--total_epochs", "4", *folders(whole)) == 0
    assert run(*flags, "--total_epochs", "2", *folders(parts)) == 0
    assert run("--resume", "--reward", reward, "--total_epochs", "4", *folders(parts)) == 0
    assert same(trained_state(whole / "train"), trained_state(parts / "train"))
    assert json_lines(whole / "train" / "metrics.jsonl") == json_lines(parts / "train" / "metrics.jsonl")
    state = trained_state(whole / "train")["state"]
    assert state["counts"]["epochs_done"] == {"pretrain_g": 2, "pretrain_d": 0, "adversarial": 4}
    assert not state["optimizer_discriminator"]["state"]
    lines = (whole / "train" / "training.jsonl").read_text() + (whole / "train" / "metrics.jsonl").read_text()
    assert "d_loss" not in lines and "d_held_out" not in lines and '"reward"' in lines


def test_each_reward_flag_gives_other_rewards(tmp_path):
    rewards = {}
    for reward in ("discriminator", "bleu", "constant", "random"):
        flags = ["--pretrain_g_epochs", "1", "--pretrain_d_epochs", "1", "--total_epochs", "1", "--reward", reward]
        assert run(*flags, *folders(tmp_path / reward)) == 0
        rewards[reward] = json_lines(tmp_path / reward / "train" / "training.jsonl")[-1]["reward"]
    assert rewards["constant"] == 0.5
    assert len(set(rewards.values())) == 4
