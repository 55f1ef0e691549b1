"""Evaluation, during a run and of a checkpoint: right, and without effect on the training."""

import json
import re

import pytest
import torch
from helpers.cli import assert_one_line_error, call, folders, json_lines, run, same, snapshot, trained_state
from helpers.small_runs import small_run, weights

import main
import train
from metrics import held_out_scores
from running.trainer import evaluate, final_evaluation
from support.random_streams import stream


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


def test_evaluation_measures_the_samples_that_it_returns():
    state, data, _ = small_run()
    values, samples = evaluate(state.generator, data, data.held_out, 500, stream(1, "evaluation", 0))
    assert values["nll_oracle"] == pytest.approx(data.oracle.nll(samples).mean().item(), rel=1e-5)
    assert values["nll_test"] == pytest.approx(state.generator.nll(data.held_out).mean().item(), rel=1e-5)
    assert values["distinct_tokens"] == len(set(samples.flatten().tolist()))


def test_evaluating_more_often_does_not_change_training(tmp_path):
    often = [*folders(tmp_path / "a"), "--eval_every", "1", "--eval_samples", "20", "--log_generation"]
    never = [*folders(tmp_path / "b"), "--evaluate", "False"]
    for flags in (often, never):
        assert run("--pretrain_g_epochs", "5", "--pretrain_d_epochs", "2", "--total_epochs", "4", *flags) == 0
    assert same(trained_state(tmp_path / "a/train")["state"], trained_state(tmp_path / "b/train")["state"])
    assert json_lines(tmp_path / "b/train/metrics.jsonl") == []


def test_evaluating_a_checkpoint_prints_the_final_numbers_and_writes_nothing(finished, capsys):
    before = snapshot(finished)
    assert call(main.main, "--is_train", "False", "--log_dir", str(finished / "train")) == 0
    final = json.loads((finished / "train/final.json").read_text())
    out = capsys.readouterr().out
    for name in ("nll_oracle", "nll_test", "oracle_entropy"):
        assert re.search(rf"{name} +{final[name]:.4f}", out)
    assert snapshot(finished) == before


def test_settings_of_the_training_do_not_hinder_an_evaluation(tmp_path, capsys):
    short = ["--pretrain_g_epochs", "1", "--total_epochs", "2", "--reward", "constant", *folders(tmp_path)]
    assert run(*short) == 0
    assert run("--is_train", "False", "--reward_constant", "0.5", *folders(tmp_path)) == 0
    path = tmp_path / "train/last.pt"
    saved = torch.load(path, weights_only=True)
    saved["args"]["d_precision"] = "tf32"  # on a machine with CUDA
    torch.save(saved, path)
    assert run("--is_train", "False", "--device", "cpu", *folders(tmp_path)) == 0
    capsys.readouterr()
    assert run("--resume", "--total_epochs", "3", "--device", "cpu", *folders(tmp_path)) == 2
    assert_one_line_error(capsys, "--d_precision tf32")
    assert run("--resume", "--total_epochs", "3", "--device", "cpu", "--d_precision", "float32", *folders(tmp_path)) == 0
