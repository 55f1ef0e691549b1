"""Rewards as flags, scheduled sampling, and runs that begin from another run's checkpoint."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.cli import assert_one_line_error, folders, json_lines, run, same, snapshot, trained_state
from helpers.reference import tiny_generator
from helpers.small_runs import small_run

from bleu import Bleu
from fast.completions import completions
from fast.cuda_graphs import PLAIN_RUNNER
from rewards import REWARDS, bleu_values, constant_values, random_values
from running.flags import BY_NAME
from train_state import LATER_STREAMS, make_state
from updates import policy_loss


def test_every_value_of_the_flag_is_a_reward_and_every_reward_a_value():
    assert BY_NAME["reward"].type == tuple(REWARDS)


def test_bleu_rewards_are_those_of_the_completions_one_by_one():
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


def test_the_references_of_bleu_are_training_sequences_and_no_held_out_ones():
    _, fixed, _ = small_run(train_size=20)
    assert (fixed.training_bleu().score(fixed.train.numpy()) > 1 - 1e-9).all()
    _, fresh, _ = small_run(vocab_size=1000, seq_len=8)
    before = fresh.train_rng.get_state()
    scores = fresh.training_bleu().score(fresh.held_out.numpy())
    assert torch.equal(before, fresh.train_rng.get_state())
    assert (scores < 0.999).all()  # 10,000 references of 8 of 1,000 tokens hold no held-out sequence whole


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


def test_the_rewards_differ(tmp_path):
    rewards = {}
    for reward in ("discriminator", "bleu", "constant", "random"):
        flags = ["--pretrain_g_epochs", "1", "--pretrain_d_epochs", "1", "--total_epochs", "1", "--reward", reward]
        assert run(*flags, *folders(tmp_path / reward)) == 0
        rewards[reward] = json_lines(tmp_path / reward / "train" / "training.jsonl")[-1]["reward"]
    assert rewards["constant"] == 0.5
    assert len(set(rewards.values())) == 4


# Scheduled sampling


def certain_generator():
    """Always draws the token after the one it reads, of 7."""
    model = tiny_generator(vocab_size=7, hidden_dim=7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed = torch.nn.Embedding.from_pretrained(torch.eye(7) * 50, freeze=True)
        model.lstm = torch.nn.LSTM(7, 7, batch_first=True)
        for parameter in model.lstm.parameters():
            parameter.zero_()
        model.lstm.weight_ih_l0[14:21] = torch.eye(7)  # the candidate sees the token
        model.lstm.bias_ih_l0[:7], model.lstm.bias_ih_l0[7:14], model.lstm.bias_ih_l0[21:] = 50, -50, 50
        model.output.weight.copy_(torch.eye(7).roll(1, dims=0) * 100)
    return model


def test_all_inputs_are_own_draws_at_omega_0_and_real_at_1():
    model = certain_generator()
    tokens = torch.randint(7, (50, 6), generator=torch.Generator().manual_seed(0))
    own = model.mixed_inputs(tokens, 0.0, torch.Generator().manual_seed(1))
    assert torch.equal(own, torch.arange(6).expand(50, -1))  # from the start token 0 on, each is the next
    real = model.mixed_inputs(tokens, 1.0, torch.Generator().manual_seed(1))
    assert torch.equal(real[:, 1:], tokens[:, :-1]) and (real[:, 0] == 0).all()


def test_a_draw_follows_the_inputs_that_were_read():
    """After a kept token the draw is the one after it, after a drawn one the one after that."""
    model = certain_generator()
    tokens = torch.randint(7, (400, 6), generator=torch.Generator().manual_seed(0))
    mixed = model.mixed_inputs(tokens, 0.6, torch.Generator().manual_seed(1))
    drawn = mixed[:, 1:] == (mixed[:, :-1] + 1) % 7
    kept = mixed[:, 1:] == tokens[:, :-1]
    assert (drawn | kept).all()
    surely_kept = (kept & ~drawn).float().mean().item()
    # a draw equals the real token by chance 1 time in 7
    assert surely_kept == pytest.approx(0.6 * 6 / 7, abs=4 * math.sqrt(0.25 / 2000))


def test_targets_stay_real_and_no_gradient_flows_through_the_draws():
    model = tiny_generator(vocab_size=7)
    tokens = torch.randint(7, (5, 6), generator=torch.Generator().manual_seed(0))
    inputs = model.mixed_inputs(tokens, 0.3, torch.Generator().manual_seed(1))
    assert not inputs.requires_grad
    weights = torch.full(tokens.shape, 1 / 30)
    loss = model.weighted_nll(tokens, weights, inputs)
    log_p = model.output(model.lstm(model.embed(inputs))[0]).log_softmax(dim=2)
    torch.testing.assert_close(loss, -log_p.gather(2, tokens[:, :, None]).mean())


def test_omega_falls_by_epoch_and_off_is_maximum_likelihood(tmp_path):
    flags = ["--pretrain_g_epochs", "6", "--total_epochs", "0", "--train_size", "12"]
    assert run(*flags, *folders(tmp_path / "mle")) == 0
    assert run(*flags, "--scheduled_sampling", "0.25", *folders(tmp_path / "scheduled")) == 0
    rows = json_lines(tmp_path / "scheduled" / "train" / "training.jsonl")
    assert [row["omega"] for row in rows] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    mle = json_lines(tmp_path / "mle" / "train" / "training.jsonl")
    assert "omega" not in mle[0]
    assert mle[0]["loss"] == rows[0]["loss"] and mle[-1]["loss"] != rows[-1]["loss"]
    assert run(*flags, "--scheduled_sampling", "0", *folders(tmp_path / "off")) == 0
    assert same(trained_state(tmp_path / "mle" / "train"), trained_state(tmp_path / "off" / "train"))


def test_scheduled_sampling_resumes_exactly(tmp_path):
    flags = ["--scheduled_sampling", "0.2", "--total_epochs", "0", "--train_size", "12"]
    assert run(*flags, "--pretrain_g_epochs", "5", *folders(tmp_path / "whole")) == 0
    assert run(*flags, "--pretrain_g_epochs", "2", *folders(tmp_path / "parts")) == 0
    assert run("--resume", "--pretrain_g_epochs", "5", *folders(tmp_path / "parts")) == 0
    assert same(trained_state(tmp_path / "whole" / "train"), trained_state(tmp_path / "parts" / "train"))


def test_a_checkpoint_from_before_the_later_streams_still_loads():
    state, _, args = small_run()
    saved = state.state_dict()
    saved["streams"] = {name: value for name, value in saved["streams"].items() if name not in LATER_STREAMS}
    make_state(args, torch.device("cpu")).load_state_dict(saved)
    del saved["streams"]["rollouts"]
    with pytest.raises(KeyError):
        make_state(args, torch.device("cpu")).load_state_dict(saved)


# --start_from


def pretrained(path, *flags):
    assert run("--pretrain_g_epochs", "3", "--total_epochs", "0", "--train_size", "12", *flags, *folders(path)) == 0
    return str(path / "train")


@pytest.mark.parametrize("reward", ["discriminator", "random"])
def test_a_run_from_a_checkpoint_is_the_uninterrupted_run(reward, tmp_path):
    source = pretrained(tmp_path / "mle")
    before = snapshot(tmp_path / "mle")
    rest = ["--pretrain_d_epochs", "2", "--total_epochs", "3", "--reward", reward]
    assert run(*rest, "--start_from", source, *folders(tmp_path / "started")) == 0
    assert run("--pretrain_g_epochs", "3", "--train_size", "12", *rest, *folders(tmp_path / "whole")) == 0
    assert same(trained_state(tmp_path / "started" / "train"), trained_state(tmp_path / "whole" / "train"))
    assert snapshot(tmp_path / "mle") == before
    rows, whole = (json_lines(tmp_path / name / "train" / "metrics.jsonl") for name in ("started", "whole"))
    assert rows[0]["step"] == 3  # the curve begins where the other ended
    assert rows[-1] == whole[-1]
    assert json.loads((tmp_path / "started" / "train" / "config.json").read_text())["args"]["start_from"] == source


def test_it_can_be_resumed_without_its_source(tmp_path):
    source = pretrained(tmp_path / "mle")
    flags = ["--pretrain_d_epochs", "1", "--start_from", source]
    assert run(*flags, "--total_epochs", "4", *folders(tmp_path / "whole")) == 0
    assert run(*flags, "--total_epochs", "2", *folders(tmp_path / "parts")) == 0
    for file in (tmp_path / "mle" / "train").glob("last.pt"):
        file.unlink()
    assert run("--resume", "--total_epochs", "4", *folders(tmp_path / "parts")) == 0
    assert same(trained_state(tmp_path / "whole" / "train"), trained_state(tmp_path / "parts" / "train"))


@pytest.mark.parametrize("source", ["mle/train", "mle/train/last.pt"])
def test_the_run_that_it_begins_from_is_not_replaced(source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pretrained(tmp_path / "mle")
    before = snapshot(tmp_path)
    assert run("--start_from", source, "--overwrite", *folders(tmp_path / "mle")) == 2
    assert_one_line_error(capsys, f"--start_from {source}", "replace that one")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "new",
    [
        ["--log_dir", "new/train", "--eval_log_dir", "mle/eval"],
        ["--log_dir", "new/train", "--eval_log_dir", "mle/train"],
        ["--log_dir", "mle/eval", "--eval_log_dir", "new/eval"],
    ],
)
@pytest.mark.parametrize("source", ["mle/train", "copy.pt"])
def test_neither_of_its_folders_is_replaced(source, new, tmp_path, monkeypatch, capsys):
    """Its evaluations are a part of it, and a checkpoint that lies elsewhere knows where they are."""
    monkeypatch.chdir(tmp_path)
    pretrained(tmp_path / "mle")
    (tmp_path / "copy.pt").write_bytes((tmp_path / "mle/train/last.pt").read_bytes())
    before = snapshot(tmp_path)
    assert run("--start_from", source, "--overwrite", *new) == 2
    assert_one_line_error(capsys, f"--start_from {source}", "replace that one")
    assert snapshot(tmp_path) == before


def test_a_folder_that_it_was_moved_away_from_is_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pretrained(tmp_path / "mle")
    (tmp_path / "mle").rename(tmp_path / "moved")
    rest = ["--pretrain_d_epochs", "1", "--total_epochs", "1", "--start_from", "moved/train"]
    assert run(*rest, *folders(tmp_path / "mle")) == 0


def test_an_untrained_discriminator_may_have_other_sizes(tmp_path):
    source = pretrained(tmp_path / "mle")
    flags = ["--d_filters", "1x3,3x5", "--pretrain_d_epochs", "1", "--total_epochs", "1", "--start_from", source]
    assert run(*flags, *folders(tmp_path / "other")) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--start_from", "missing"], ["missing"]),
        (["--start_from", "mle/train", "--g_hidden_dim", "9"], ["--g_hidden_dim 9", "4"]),
        (["--start_from", "mle/train", "--seed", "2"], ["--seed 2"]),
        (["--start_from", "mle/train", "--pretrain_g_epochs", "9"], ["--pretrain_g_epochs 9"]),
        (["--start_from", "mle/train", "--is_train", "False"], ["--is_train"]),
        (["--start_from", "done/train"], ["adversarial epochs already"]),
        (["--start_from", "broken.pt"], ["broken.pt"]),
        (["--reward_constant", "0.2"], ["--reward is discriminator", "no effect without --reward constant"]),
        (["--reward", "applause"], ["invalid choice"]),
        (["--scheduled_sampling", "2"], ["at most 1"]),
    ],
)
def test_bad_flags_end_in_one_line(flags, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pretrained(tmp_path / "mle")
    if "done/train" in flags:
        assert run("--pretrain_g_epochs", "1", "--pretrain_d_epochs", "1", "--total_epochs", "1", *folders(tmp_path / "done")) == 0
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    before = snapshot(tmp_path)
    capsys.readouterr()
    assert run(*flags, *folders(tmp_path / "new")) == 2
    assert_one_line_error(capsys, *words)
    assert snapshot(tmp_path) == before
