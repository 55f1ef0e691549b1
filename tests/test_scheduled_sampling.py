"""Scheduled sampling: inputs that are partly the generator's own draws."""

import math

import pytest
import torch
from helpers.cli import folders, json_lines, run, same, trained_state
from helpers.reference import tiny_generator


def certain_generator():
    """A generator of 7 tokens that always draws the successor of the token that it reads."""
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


def test_all_inputs_are_draws_at_omega_0_and_real_at_1():
    model = certain_generator()
    tokens = torch.randint(7, (50, 6), generator=torch.Generator().manual_seed(0))
    own = model.mixed_inputs(tokens, 0.0, torch.Generator().manual_seed(1))
    assert torch.equal(own, torch.arange(6).expand(50, -1))  # from the start token 0 on, each is the next
    real = model.mixed_inputs(tokens, 1.0, torch.Generator().manual_seed(1))
    assert torch.equal(real[:, 1:], tokens[:, :-1]) and (real[:, 0] == 0).all()


def test_a_draw_depends_on_the_inputs_that_were_read():
    """A draw is the successor of the input before it, whether that was kept or drawn itself."""
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
