"""Recipes from the command line: exact where they are stopped and resumed, and refused where they can't work."""

import json

import pytest
import torch
from helpers.cli import assert_one_line_error, folders, json_lines, run, same, trained_state
from helpers.stops import STOPPED, run_until

from running.settings import resolve

SHORT = "--pretrain_g_epochs 3 --pretrain_d_epochs 1 --total_epochs 3 --train_size 12 --eval_every 4 --d_epochs 1".split()
RECIPES = {
    "gentle": (
        "--kl_weight 0.3 --mle_share 0.5 --g_steps 3 --g_dropout 0.2 --g_emb_dropout 0.1 --g_schedule cosine --g_weight_decay 0.01 "
        "--baseline leave_one_out --policy_batch 3 --policy_lr 0.002 --reward shuffled --reward_form logit"
    ),
    "default": "--reward_form logit --baseline state --policy_batch 5 --policy_lr 0.002 --kl_weight 0.2",
}


def everything(log_dir):
    """What a run has trained, without the clock, with its best models."""
    payload = torch.load(log_dir / "last.pt", weights_only=True)
    return {**trained_state(log_dir), "best": payload["best"], "watch": payload["watch"]}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_that_is_stopped_and_resumed_is_the_unbroken_run(recipe, tmp_path):
    flags = [*SHORT, *RECIPES[recipe].split()]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*flags, *folders(whole)) == 0
    if recipe == "gentle":
        assert run_until("pretrain_g", 2, *flags, *folders(parts)) == STOPPED
        flags = ["--resume"]
    assert run_until("adversarial", 1, *flags, *folders(parts)) == STOPPED
    assert run("--resume", *folders(parts)) == 0
    assert same(everything(whole / "train"), everything(parts / "train"))
    for name in ("metrics.jsonl", "training.jsonl"):
        assert json_lines(whole / "train" / name) == json_lines(parts / "train" / name)
    rows = [row for row in json_lines(whole / "train/training.jsonl") if row["phase"] == "adversarial"]
    assert len(rows) == 3 and all("g_loss" in row and "d_loss" in row for row in rows)
    assert all(("loss" in row) == (recipe == "gentle") for row in rows)
    state = trained_state(whole / "train")["state"]
    assert not same(state["reference"], state["generator"])


def test_a_plain_pre_trained_run_can_be_the_reference_of_another(tmp_path):
    """Its checkpoint holds no reference: that is copied from G when the phase begins."""
    pretraining = ["--pretrain_g_epochs", "2", "--train_size", "12"]
    rest = ["--pretrain_d_epochs", "0", "--total_epochs", "1", "--g_steps", "2", "--kl_weight", "0.5"]
    assert run(*pretraining, "--total_epochs", "0", *folders(tmp_path / "mle")) == 0
    assert run(*rest, "--start_from", str(tmp_path / "mle/train"), *folders(tmp_path / "started")) == 0
    assert run(*pretraining, *rest, *folders(tmp_path / "whole")) == 0
    one, two = (trained_state(tmp_path / name / "train") for name in ("started", "whole"))
    assert same(one, two)
    assert same(one["state"]["reference"], trained_state(tmp_path / "mle/train")["state"]["generator"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--reward", "shuffled", "--batch_size", "1"], ["--reward shuffled", "other sequences", "--batch_size is 1"]),
        (["--reward", "shuffled", "--policy_batch", "1"], ["--reward shuffled", "--policy_batch is 1"]),
        (["--baseline", "state", "--policy_batch", "1"], ["--baseline state", "--policy_batch is 1"]),
        (["--baseline", "leave_one_out", "--batch_size", "1"], ["--baseline leave_one_out", "--batch_size is 1"]),
        (["--patience", "2", "--evaluate", "False"], ["--patience needs evaluations"]),
        (["--reward", "constant", "--reward_form", "log"], ["--reward_form has no effect", "--reward is constant"]),
        (["--reward", "bleu", "--reward_form", "prob"], ["--reward_form has no effect", "--reward is bleu"]),
        (["--g_dropout", "1"], ["must be below 1"]),
        (["--mle_share", "1.1"], ["at most 1"]),
        (["--kl_weight", "-1"], ["at least 0"]),
        (["--baseline", "median"], ["invalid choice"]),
    ],
)
def test_recipes_that_can_not_work_are_refused_with_one_line_before_anything_is_written(flags, words, tmp_path, capsys):
    assert run(*SHORT, *flags, *folders(tmp_path / "run")) == 2
    assert_one_line_error(capsys, *words)
    assert not list(tmp_path.iterdir())


def test_a_batch_of_its_own_is_what_counts_for_the_policy_gradient():
    assert resolve({"batch_size": 1, "policy_batch": 2, "baseline": "leave_one_out", "reward": "shuffled"}).args.batch_size == 1


def test_settings_of_optimisers_that_are_given_with_start_from_reach_them(tmp_path):
    pretraining = ["--pretrain_g_epochs", "1", "--pretrain_d_epochs", "1", "--total_epochs", "1", "--d_epochs", "1"]
    assert run_until("pretrain_d", 1, *pretraining, *folders(tmp_path / "source")) == STOPPED
    rest = ["--total_epochs", "1", "--mle_share", "1", "--g_weight_decay", "0.5", "--d_lr", "0.02"]
    assert run("--start_from", str(tmp_path / "source/train"), *rest, *folders(tmp_path / "run")) == 0
    state = trained_state(tmp_path / "run/train")["state"]
    mle, discriminator = (state[f"optimizer_{name}"]["param_groups"][0] for name in ("mle", "discriminator"))
    assert (mle["weight_decay"], discriminator["lr"]) == (0.5, 0.02)


def test_a_share_of_1_has_no_discriminator_in_its_phases_or_logs(tmp_path):
    assert run(*SHORT, "--mle_share", "1", *folders(tmp_path)) == 0
    state = trained_state(tmp_path / "train")["state"]
    assert state["counts"]["epochs_done"] == {"pretrain_g": 3, "pretrain_d": 0, "adversarial": 3}
    assert not state["optimizer_discriminator"]["state"] and not state["optimizer_policy"]["state"]
    lines = [json.loads(line) for line in (tmp_path / "train/training.jsonl").read_text().splitlines()]
    assert all(row["loss"] > 0 and "d_loss" not in row for row in lines)
    assert all("d_accuracy_real" not in row for row in json_lines(tmp_path / "train/metrics.jsonl"))
