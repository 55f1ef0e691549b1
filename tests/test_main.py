"""The command line as a user meets it."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers.cli import (
    ROOT,
    TINY,
    assert_one_line_error,
    call,
    folders,
    json_lines,
    run,
    same,
    scalars,
    snapshot,
    start,
    trained_state,
)

import main
import sample
from running.flags import FLAGS, SMOKE, build_parser, preset_settings


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


BAD_INPUT = {
    "unknown dataset": (["--dataset", "Beethoven"], "Beethoven"),
    "zero size": (["--batch_size", "0"], "--batch_size: must be at least 1, not 0"),
    "negative size": (["--vocab_size", "-3"], "--vocab_size: must be at least 1, not -3"),
    "no number": (["--seq_len", "long"], "'long' is not a whole number"),
    "negative epochs": (["--total_epochs", "-1"], "--total_epochs"),
    "no learning rate": (["--g_lr", "0"], "must be above 0"),
    "learning rate is not a number": (["--d_lr", "nan"], "must be above 0"),
    "neither true nor false": (["--evaluate", "maybe"], "neither True nor False"),
    "unknown flag": (["--learning_rate", "1"], "--learning_rate"),
    "abbreviated flag": (["--vocab", "10"], "--vocab"),
    "filter wider than T": (["--d_filters", "2x4,6x4"], "width 6 does not fit sequences of --seq_len 5"),
    "broken filters": (["--d_filters", "3x"], "WIDTHxNUMBER"),
    "training set below a batch": (["--train_size", "3"], "does not fill one batch"),
    "tf32 without CUDA": (["--d_precision", "tf32", "--device", "cpu"], "--d_precision tf32"),
    "unknown device": (["--device", "abacus"], "choose auto, cpu, cuda or cuda:N"),
    "unsupported device": (["--device", "meta"], "choose auto, cpu, cuda or cuda:N"),
    "nothing to do": (["--is_train", "False", "--evaluate", "False", "--log_dir", "x"], "nothing"),
    "nothing to resume": (["--resume", "--log_dir", "x"], "nothing to resume"),
    "resume what": (["--resume"], "--log_dir or --run_name"),
    "nothing to evaluate": (["--is_train", "False", "--log_dir", "x"], "no last.pt"),
    "contradiction": (["--resume", "--overwrite", "--log_dir", "x"], "choose one"),
    "no folder for the oracle": (["--save_oracle", "nowhere/o.npz"], "--save_oracle nowhere/o.npz: there is no folder nowhere"),
    "no name": (["--run_name", ""], "no name for a folder"),
    "threads": (["--threads", "99999999999"], "at most 1024"),
    "a size without end": (["--vocab_size", str(2**63 - 1)], "--vocab_size: must be at most 2147483647, not 9223372036854775807"),
    "a count without end": (["--final_eval_samples", str(10**20)], "--final_eval_samples: must be at most 2147483647"),
    "a seed without end": (["--seed", "9" * 401], "--seed: must be at most 9223372036854775807, not 99999999999999999999..."),
    "an oracle's seed without end": (["--oracle_seed", str(2**63)], "--oracle_seed: must be at most 9223372036854775807"),
    "filters without end": (["--d_filters", "1x100000000000000000000"], "--d_filters: widths and numbers must be at most"),
    "sizes whose product has no end": (["--vocab_size", "2147483647", "--g_emb_dim", "2147483647"], "out of memory"),
    "untrained discriminator": (["--d_steps", "0", "--pretrain_d_epochs", "0"], "never trained"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_ends_with_one_line(name, capsys, tmp_path):
    flags, words = BAD_INPUT[name]
    assert run(*flags) == 2
    assert_one_line_error(capsys, words)
    assert snapshot(tmp_path) == {}


def test_the_largest_seed_is_one(tmp_path):
    short = ["--pretrain_g_epochs", "1", "--pretrain_d_epochs", "1", "--total_epochs", "1"]
    assert run(*short, "--seed", str(2**63 - 1), *folders(tmp_path)) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda_is_refused(capsys, tmp_path):
    assert run("--device", "cuda") == 2
    assert_one_line_error(capsys, "--device cuda", "no CUDA device")
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("flag", ["--log_dir", "--eval_log_dir"])
def test_unwritable_log_folder(flag, capsys, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert run(flag, "file/logs", "--total_epochs", "0") == 2
    assert_one_line_error(capsys, "file/logs")
    assert run(flag, "file", "--total_epochs", "0") == 2
    assert_one_line_error(capsys, f"{flag} file is no folder")
    assert snapshot(tmp_path) == {"file": b"mine"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with every phase: its folder holds `train` and `eval`."""
    folder = tmp_path_factory.mktemp("finished")
    assert run(*FULL, *folders(folder)) == 0
    return folder


FULL = "--pretrain_g_epochs 400 --pretrain_d_epochs 60 --total_epochs 60 --eval_every 7 --save_every 9".split()


def assert_same_run(one, two):
    """Two runs ended with the same weights, streams and log points, bit for bit and none twice."""
    assert same(trained_state(one / "train"), trained_state(two / "train"))
    for name in ("metrics.jsonl", "training.jsonl"):
        assert json_lines(one / "train" / name) == json_lines(two / "train" / name)
    for name in ("train", "eval"):
        assert scalars(one / name) == scalars(two / name)
    assert json.loads((one / "train/final.json").read_text()) == json.loads((two / "train/final.json").read_text())


def test_a_run_leaves_what_the_readme_says(finished):
    names = {p.name for p in (finished / "train").iterdir()}
    assert {"config.json", "final.json", "last.pt", "metrics.jsonl", "training.jsonl"} <= names
    assert not [name for name in names if "partial" in name]
    rows = json_lines(finished / "train/metrics.jsonl")
    steps = [0, *range(7, 400, 7), 400, *range(406, 460, 7), 460]
    assert [row["step"] for row in rows] == sorted(set(steps))
    for row in rows:
        assert {"phase", "epoch", "step", "nll_oracle", "nll_test"} <= row.keys()
        assert row["phase"] == ("pretrain_g" if row["step"] <= 400 else "adversarial")
        assert row["epoch"] == row["step"] - (0 if row["step"] <= 400 else 400)
    assert {"d_held_out_accuracy_real", "d_held_out_accuracy_fake", "d_held_out_auc"} <= rows[-1].keys()
    config = json.loads((finished / "train/config.json").read_text())
    assert config["args"]["pretrain_g_epochs"] == 400
    assert config["versions"]["torch"] == torch.__version__
    final = json.loads((finished / "train/final.json").read_text())
    assert final["samples"] == 50
    assert final["step"] == 460


def test_tensorboard_gets_every_curve_once(finished):
    evaluation, training = scalars(finished / "eval"), scalars(finished / "train")
    assert set(evaluation) == {
        "nll",
        "nll_test",
        "oracle/entropy",
        "oracle/kl_g_oracle",
        "oracle/kl_oracle_g",
        "oracle/jsd",
        "samples/entropy_g",
        "samples/distinct_tokens",
    }
    rows = json_lines(finished / "train/metrics.jsonl")
    assert [step for step, _ in evaluation["nll"]] == [row["step"] for row in rows]
    assert [value for _, value in evaluation["nll"]] == pytest.approx([row["nll_oracle"] for row in rows])
    assert [value for _, value in evaluation["nll_test"]] == pytest.approx([row["nll_test"] for row in rows])
    counted = {tag: [step for step, _ in points] for tag, points in training.items()}
    for tag in ("pretrain_g/loss", "pretrain_g/grad_norm", "pretrain_g/clipped_share"):
        assert counted[tag] == list(range(1, 401))
    for tag in (
        "d_loss",
        "d_accuracy_real",
        "d_accuracy_fake",
        "d_held_out_accuracy_real",
        "d_held_out_accuracy_fake",
        "d_held_out_auc",
    ):
        assert counted[f"pretrain_d/{tag}"] == list(range(1, 61))
    for tag in ("g_loss", "reward", "grad_norm", "clipped_share", "d_loss", "d_accuracy_real", "d_accuracy_fake"):
        assert counted[f"adversarial/{tag}"] == list(range(401, 461))
    positions = sorted(tag for tag in counted if tag.startswith("adversarial/reward_at/"))
    assert positions == [f"adversarial/reward_at/{t:02d}" for t in range(1, 6)]
    assert counted["adversarial/d_held_out_auc"] == [*range(406, 460, 7), 460]


def test_curves_of_two_runs_coincide_until_they_part(finished, tmp_path):
    """A 460 + 0 and a 400 + 60 run share one axis and are equal up to 400."""
    assert run(*FULL, "--pretrain_g_epochs", "460", "--total_epochs", "0", *folders(tmp_path)) == 0
    pure = {row["step"]: row for row in json_lines(tmp_path / "train/metrics.jsonl")}
    both = {row["step"]: row for row in json_lines(finished / "train/metrics.jsonl")}
    shared = pure.keys() & both.keys()
    assert len([step for step in shared if step <= 399]) == 58
    for step in shared:
        assert (pure[step] == both[step]) == (step <= 400)
    assert "pretrain_d/d_loss" not in scalars(tmp_path / "train")


def test_a_run_stopped_at_a_boundary_resumes_to_the_same_end(finished, tmp_path):
    """First MLE alone, then --resume with the adversarial epochs added."""
    assert run(*FULL, "--total_epochs", "0", *folders(tmp_path)) == 0
    log_dir = str(tmp_path / "train")
    assert call(main.main, "--resume", "--log_dir", log_dir, "--total_epochs", "25") == 0
    assert call(main.main, "--resume", "--log_dir", log_dir, "--total_epochs", "60") == 0
    one, two = (trained_state(folder / "train") for folder in (finished, tmp_path))
    assert same(one, two)
    # an end of a part at epoch 25 is evaluated as an end: one more point than the unbroken run has
    rows = [row for row in json_lines(tmp_path / "train/metrics.jsonl") if row["step"] != 425]
    assert rows == json_lines(finished / "train/metrics.jsonl")
    assert json_lines(tmp_path / "train/training.jsonl")[-1] == json_lines(finished / "train/training.jsonl")[-1]


def wait_for(process, path, phase, epochs):
    """Wait until a phase of a running process has finished this many epochs."""
    pattern = f'"phase": "{phase}"'
    while process.poll() is None:
        if path.exists() and path.read_text().count(pattern) >= epochs:
            return
        time.sleep(0.005)
    raise AssertionError(f"ended too early: {process.communicate()}")


@pytest.mark.parametrize(("phase", "epochs"), [("pretrain_g", 120), ("pretrain_d", 20), ("adversarial", 15)])
def test_a_killed_run_resumes_to_the_same_end(finished, tmp_path, phase, epochs):
    process = start(*FULL, *folders(tmp_path), cwd=tmp_path)
    wait_for(process, tmp_path / "train/training.jsonl", phase, epochs)
    process.kill()
    process.communicate()
    killed = json_lines(tmp_path / "train/training.jsonl")[-1]
    assert killed["phase"] == phase
    assert killed["epoch"] < {"pretrain_g": 400}.get(phase, 60)
    assert call(main.main, "--resume", "--log_dir", str(tmp_path / "train")) == 0
    assert_same_run(finished, tmp_path)


def test_ctrl_c_saves_and_says_how_to_go_on(finished, tmp_path):
    process = start(*FULL, "--save_every", "100000", *folders(tmp_path), cwd=tmp_path)
    wait_for(process, tmp_path / "train/training.jsonl", "pretrain_g", 100)
    process.send_signal(main.signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    again = re.search(r"Go on with: python main\.py (.*)", out).group(1).split()
    done = torch.load(tmp_path / "train/last.pt", weights_only=True)["state"]["counts"]["epochs_done"]
    assert 100 <= done["pretrain_g"] < 400
    assert json_lines(tmp_path / "train/training.jsonl")[-1]["epoch"] == done["pretrain_g"]
    assert call(main.main, *again) == 0
    assert_same_run(finished, tmp_path)


def test_resuming_a_finished_run_changes_nothing_that_was_trained(finished, tmp_path):
    before = trained_state(finished / "train")
    rows, points = json_lines(finished / "train/metrics.jsonl"), scalars(finished / "eval")
    assert call(main.main, "--resume", "--log_dir", str(finished / "train")) == 0
    assert same(trained_state(finished / "train"), before)
    assert json_lines(finished / "train/metrics.jsonl") == rows
    assert scalars(finished / "eval") == points


@pytest.mark.parametrize("flag", ["--pretrain_g_epochs", "--pretrain_d_epochs", "--total_epochs"])
def test_fewer_epochs_than_there_are_is_refused(flag, finished, capsys):
    before = snapshot(finished)
    assert run("--resume", flag, "59", *folders(finished)) == 2
    assert_one_line_error(capsys, f"{flag} 59", "has made")
    assert snapshot(finished) == before


def test_what_a_checkpoint_was_trained_with_does_not_hinder_its_evaluation(tmp_path, capsys):
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


def test_looking_more_often_does_not_change_training(tmp_path):
    often = [*folders(tmp_path / "a"), "--eval_every", "1", "--eval_samples", "20", "--log_generation"]
    never = [*folders(tmp_path / "b"), "--evaluate", "False"]
    for flags in (often, never):
        assert run("--pretrain_g_epochs", "5", "--pretrain_d_epochs", "2", "--total_epochs", "4", *flags) == 0
    assert same(trained_state(tmp_path / "a/train")["state"], trained_state(tmp_path / "b/train")["state"])
    assert json_lines(tmp_path / "b/train/metrics.jsonl") == []


def test_a_folder_that_holds_a_run_is_left_alone(finished, capsys):
    before = snapshot(finished)
    for flags in (folders(finished), ["--log_dir", str(finished / "train")], ["--eval_log_dir", str(finished / "eval")]):
        assert run(*flags) == 2
        assert_one_line_error(capsys, "--resume", "--overwrite")
    assert snapshot(finished) == before


def test_overwrite_replaces_the_run_and_nothing_else(tmp_path):
    short = ["--pretrain_g_epochs", "3", "--total_epochs", "0", *folders(tmp_path)]
    assert run(*short) == 0
    (tmp_path / "train/notes.txt").write_text("mine")
    assert run(*short, "--seed", "2", "--overwrite") == 0
    assert (tmp_path / "train/notes.txt").read_text() == "mine"
    assert len(json_lines(tmp_path / "train/training.jsonl")) == 3
    assert len(list((tmp_path / "train").glob("events*"))) == len(list((tmp_path / "eval").glob("events*"))) == 1
    assert json.loads((tmp_path / "train/config.json").read_text())["args"]["seed"] == 2


def test_default_folders_carry_a_run_name(tmp_path):
    short = ["--pretrain_g_epochs", "1", "--total_epochs", "0"]
    assert run(*short, "--seed", "7") == 0
    assert run(*short, "--run_name", "mine") == 0
    assert run(*short, "--log_dir", "logs/train/other") == 0
    for kind in ("train", "eval"):
        names = sorted(p.name for p in (tmp_path / "logs" / kind).iterdir())
        assert re.fullmatch(r"LSTM-default-seed7-\d{8}-\d{6}", names[0])
        assert names[1:] == ["mine", "other"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--g_hidden_dim", "9"], "--g_hidden_dim 9 does not fit the run"),
        (["--seed", "5"], "--seed 5 does not fit the run"),
        (["--pretrain_g_epochs", "500"], "--pretrain_g_epochs 500: this run finished that phase after 400 epochs"),
    ],
)
def test_resuming_with_other_settings_is_refused(finished, capsys, flags, words):
    before = snapshot(finished)
    assert call(main.main, "--resume", "--log_dir", str(finished / "train"), *flags) == 2
    assert_one_line_error(capsys, words)
    assert snapshot(finished) == before


def test_a_failed_overwrite_loses_nothing(tmp_path, capsys):
    assert run("--pretrain_g_epochs", "3", "--total_epochs", "0", "--run_name", "d") == 0
    (tmp_path / "file").write_text("mine")
    before = snapshot(tmp_path)
    for flags in (["--eval_log_dir", "file/x"], ["--dataset", "Nottingham", "--vocab_size", "89", "--data_dir", "none"]):
        capsys.readouterr()
        assert run("--run_name", "d", "--overwrite", *flags) == 2
        assert_one_line_error(capsys)
        assert snapshot(tmp_path) == before


def test_a_run_killed_before_its_first_save_has_no_point_twice(tmp_path):
    process = start("--pretrain_g_epochs", "100000", "--save_every", "1000000", *folders(tmp_path), cwd=tmp_path)
    wait_for(process, tmp_path / "train/training.jsonl", "pretrain_g", 30)
    process.kill()
    process.communicate()
    again = ["--resume", "--log_dir", str(tmp_path / "train"), "--pretrain_g_epochs", "20", "--total_epochs", "0"]
    assert call(main.main, *again) == 0
    assert [row["step"] for row in json_lines(tmp_path / "train/metrics.jsonl")] == [0, 10, 20]
    assert [step for step, _ in scalars(tmp_path / "eval")["nll"]] == [0, 10, 20]


def test_a_copied_run_leaves_the_originals_events_alone(tmp_path, capsys):
    assert run("--pretrain_g_epochs", "3", "--total_epochs", "0", "--run_name", "b") == 0
    shutil.copytree("logs/train/b", "logs/train/fork")
    assert call(main.main, "--resume", "--run_name", "b", "--pretrain_g_epochs", "6") == 0
    before = snapshot(tmp_path)
    for flags in ([], ["--eval_log_dir", "logs/eval/b"]):
        capsys.readouterr()
        assert call(main.main, "--resume", "--run_name", "fork", "--pretrain_g_epochs", "5", *flags) == 2
        assert_one_line_error(capsys)
        assert snapshot(tmp_path) == before
    fork = ["--resume", "--run_name", "fork", "--pretrain_g_epochs", "5", "--eval_log_dir", "logs/eval/fork"]
    assert call(main.main, *fork) == 0


def test_resuming_works_from_another_folder(tmp_path, monkeypatch):
    assert run("--pretrain_g_epochs", "3", "--total_epochs", "0", "--run_name", "s") == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert call(main.main, "--resume", "--log_dir", "../logs/train/s", "--pretrain_g_epochs", "6") == 0
    assert list((tmp_path / "elsewhere").iterdir()) == []
    monkeypatch.chdir(tmp_path)
    assert call(main.main, "--resume", "--run_name", "s", "--pretrain_g_epochs", "9") == 0
    assert [step for step, _ in scalars(tmp_path / "logs/eval/s")["nll"]] == [0, 3, 6, 9]


def test_weights_that_are_not_finite_are_not_saved(tmp_path, capsys):
    assert run("--pretrain_g_epochs", "1", "--total_epochs", "0", "--g_lr", "1e38", *folders(tmp_path)) == 2
    assert "no longer finite" in capsys.readouterr().err
    saved = torch.load(tmp_path / "train/last.pt", weights_only=True)["state"]
    assert saved["counts"]["epochs_done"]["pretrain_g"] == 0
    assert all(w.isfinite().all() for w in saved["generator"].values())


def test_sizes_beyond_the_memory_are_told_in_one_line(tmp_path, capsys):
    assert run("--vocab_size", "2147483647", "--g_emb_dim", "1000", *folders(tmp_path)) == 2
    assert_one_line_error(capsys, "out of memory")


def test_one_folder_for_everything_resumes_as_well(tmp_path):
    flags = ["--pretrain_g_epochs", "9", "--eval_every", "2", "--log_dir", "all", "--eval_log_dir", "all"]
    assert run(*flags, "--total_epochs", "0") == 0
    assert call(main.main, "--resume", "--log_dir", "all", "--total_epochs", "2", "--pretrain_d_epochs", "1") == 0
    assert [row["step"] for row in json_lines(tmp_path / "all/metrics.jsonl")] == [0, 2, 4, 6, 8, 9, 10, 11]
    assert [step for step, _ in scalars(tmp_path / "all")["nll"]] == [0, 2, 4, 6, 8, 9, 10, 11]
    assert len(json_lines(tmp_path / "all/training.jsonl")) == 9 + 1 + 2


def test_resuming_into_another_runs_folder_is_refused(finished, tmp_path, capsys):
    """Its events are not among this run's: they must not be taken for what came after the checkpoint."""
    assert run("--pretrain_g_epochs", "3", "--total_epochs", "0", *folders(tmp_path)) == 0
    before = snapshot(finished) | snapshot(tmp_path)
    capsys.readouterr()
    assert call(main.main, "--resume", "--log_dir", str(tmp_path / "train"), "--eval_log_dir", str(finished / "eval")) == 2
    assert_one_line_error(capsys, "another run")
    assert snapshot(finished) | snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "damage", ["truncated", "g_hidden_dim", "vocab_size", "oracle_hidden_dim", "d_emb_dim", "other format", "empty", "no run"]
)
def test_a_broken_checkpoint_is_refused_and_nothing_is_lost(finished, capsys, tmp_path, damage):
    (tmp_path / "train").mkdir()
    for name in ("last.pt", "metrics.jsonl", "training.jsonl"):
        (tmp_path / "train" / name).write_bytes((finished / "train" / name).read_bytes())
    path = tmp_path / "train/last.pt"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-2000])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        payload = torch.load(path, weights_only=True)
        payload["folders"]["log"] = str(tmp_path / "train")
        if damage in payload["args"]:
            payload["args"][damage] = 9
        elif damage == "no run":
            del payload["data"]
        else:
            payload["format"] = 0
        torch.save(payload, path)
    before = snapshot(tmp_path)
    assert call(main.main, "--resume", *folders(tmp_path)) == 2
    assert_one_line_error(capsys, "checkpoint")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *((part, []) for part in ("args", "state", "data", "marks", "folders", "last_evaluation")),
        *((part, {}) for part in ("args", "state", "marks", "folders")),
        ("args", {1: 2}),
        ("state", {"counts": []}),
        ("state", {"counts": {"epochs_done": {"pretrain_g": 1, "pretrain_d": None, "adversarial": 0}}}),
        ("folders", {"log": 1, "eval": 2}),
        ("marks", {"log": [], "eval": {}}),
        ("last_evaluation", {"nll_oracle": "low"}),
    ],
)
def test_a_checkpoint_with_a_part_of_another_kind_is_refused(finished, capsys, tmp_path, part, value):
    payload = torch.load(finished / "train/last.pt", weights_only=True)
    (tmp_path / "train").mkdir()
    torch.save({**payload, part: value}, tmp_path / "train/last.pt")
    before = snapshot(tmp_path)
    log_dir, new = str(tmp_path / "train"), folders(tmp_path / "new")
    for flags in (
        ["--resume", "--log_dir", log_dir],
        ["--is_train", "False", "--log_dir", log_dir],
        ["--start_from", log_dir, *new],
    ):
        assert call(main.main, *flags) == 2
        assert_one_line_error(capsys, "last.pt is not a checkpoint of a run")
    assert call(sample.main, log_dir) == 2
    assert_one_line_error(capsys, "last.pt is not a checkpoint of a run")
    assert snapshot(tmp_path) == before


def test_evaluating_a_checkpoint_prints_the_final_numbers_and_writes_nothing(finished, capsys):
    before = snapshot(finished)
    assert call(main.main, "--is_train", "False", "--log_dir", str(finished / "train")) == 0
    final = json.loads((finished / "train/final.json").read_text())
    out = capsys.readouterr().out
    for name in ("nll_oracle", "nll_test", "oracle_entropy"):
        assert re.search(rf"{name} +{final[name]:.4f}", out)
    assert snapshot(finished) == before


@pytest.mark.parametrize(
    ("text", "value"), [([], True), (["True"], True), (["False"], False), (["false"], False), (["0"], False), (["1"], True)]
)
def test_booleans_read_as_they_look(text, value):
    assert vars(build_parser().parse_args(["--log_generation", *text])) == {"log_generation": value}


def test_original_command_line_is_accepted():
    names = (
        "seed is_train evaluate pretrain_g_epochs total_epochs log_generation log_dir eval_log_dir dataset batch_size g_emb_dim "
        "g_hidden_dim d_emb_dim pretrain_d_epochs vocab_size seq_len train_size g_lr d_lr grad_clip g_steps d_steps d_epochs "
        "rollout_num rollout_update_rate eval_every eval_samples final_eval_samples save_every device threads"
    )
    assert set(names.split()) <= {flag.name for flag in FLAGS}


def test_help_explains_every_flag_with_its_default(capsys):
    assert call(main.main, "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for flag in FLAGS:
        assert f"--{flag.name}" in text
        if flag.default is not None:
            assert f"(default: {flag.default})" in text
    for symbol in ("V,", "T,", "B,", "E,", "H,", "N,", "k,", "β ← θ"):
        assert symbol in text


def test_paper_preset_runs_at_a_small_size(tmp_path):
    flags = [*folders(tmp_path), "--preset", "paper", "--train_size", "18", "--total_epochs", "2"]
    assert run(*flags, "--pretrain_g_epochs", "2", "--pretrain_d_epochs", "2") == 0
    config = json.loads((tmp_path / "train/config.json").read_text())["args"]
    assert (config["policy_loss"], config["d_l2"], config["oracle_init"]) == ("sum", 0.2, "normal")


def test_smoke_preset_runs_every_phase_as_it_is(tmp_path, monkeypatch):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    assert call(main.main, "--preset", "smoke", *folders(tmp_path)) == 0
    assert threads == [1]
    rows = json_lines(tmp_path / "train/training.jsonl")
    assert [row["phase"] for row in rows] == ["pretrain_g"] * 10 + ["pretrain_d"] * 3 + ["adversarial"] * 5
    assert rows[9]["loss"] < rows[0]["loss"] - 0.3  # a pass over 128 sequences is enough to learn
    final = json.loads((tmp_path / "train/final.json").read_text())
    assert (final["step"], final["samples"]) == (15, 500)


def test_smoke_preset_is_the_papers_but_for_its_sizes(capsys):
    paper, smoke = preset_settings("paper"), preset_settings("smoke")
    assert {name for name in paper if smoke[name] != paper[name]} == SMOKE.keys()
    assert smoke["d_filters"] == [[1, 8], [2, 8], [4, 8]]
    assert smoke["policy_loss"] == "sum" and smoke["train_size"] == 128
    assert call(main.main, "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--preset {default,paper,smoke}" in text
    assert "in seconds that everything works" in text
    assert "(default: 5000) [smoke: 50]" in text
    assert "(default: 1000) [paper: 120, smoke: 10]" in text


def test_divergence_is_told_in_one_line(capsys, tmp_path):
    assert run("--g_lr", "1e38", "--pretrain_g_epochs", "50", *folders(tmp_path)) == 2
    assert "loss is nan" in capsys.readouterr().err


def test_a_full_disk_is_told_in_one_line(tmp_path):
    """A limit on the size of files stands for the full disk: the checkpoint does not fit."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = start("--total_epochs", "0", *folders(tmp_path), cwd=tmp_path, preexec_fn=limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert "last.pt" in err
    assert not (tmp_path / "train/last.pt").exists()


def test_importing_does_nothing(tmp_path):
    code = "import main, sample, train, sys; assert not {'matplotlib', 'pretty_midi'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert snapshot(tmp_path) == {}


def test_the_tiny_size_is_tiny():
    """The tests above rely on every size being overridden."""
    sizes = {flag.name for flag in FLAGS if flag.name.endswith(("_dim", "_size", "_len", "_num", "_samples"))}
    assert sizes - {"train_size"} <= {name.removeprefix("--") for name in TINY}


IMPORTS = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))
sys.meta_path.insert(0, Watch())
import {command}
"""


@pytest.mark.parametrize(
    ("command", "given", "expected"),
    [
        ("main", {}, "10000"),
        ("sample", {}, "10000"),
        ("main", {"GOMP_SPINCOUNT": "7"}, "7"),
        ("main", {"OMP_WAIT_POLICY": "passive"}, "None"),
    ],
)
def test_patience_of_threads_is_set_before_torch_is_loaded_unless_the_user_has_set_it(command, given, expected):
    others = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = IMPORTS.format(command=command)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**others, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[0] == expected


MULTIPLIES_SMALL_NUMBERS = """
import main, torch
from support.threads import run_all, set_up
set_up(4)
small, cpu = torch.full((2000, 2000), 2e-38), torch.device("cpu")
results = [small * 0.25, torch.mm(small, torch.full((2000, 300), 1e-6)), *run_all([lambda: small[:50] * 0.25] * 8, cpu)]
print([int(result.count_nonzero()) for result in results])
"""


def test_denormals_are_flushed_to_zero_on_all_threads():
    done = subprocess.run([sys.executable, "-c", MULTIPLIES_SMALL_NUMBERS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == {0}


@pytest.mark.parametrize(("module", "first_work"), [(main, "make_state"), (sample, "load_run")])
def test_the_process_is_set_up_before_any_work(module, first_work, monkeypatch, tmp_path):
    """A thread that has started keeps its own setting for denormals."""
    calls = []

    def stop(*_, **__):
        calls.append("work")
        raise enough

    enough = main.UserError("far enough")
    monkeypatch.setattr(module, "set_up", lambda *_, **__: calls.append("set up"))
    monkeypatch.setattr(module, first_work, stop)
    flags = [str(tmp_path)] if module is sample else [*TINY, *folders(tmp_path)]
    assert call(module.main, *flags) == 2
    assert calls == ["set up", "work"]


def test_a_run_that_another_process_writes_is_left_alone(tmp_path):
    process = start("--pretrain_g_epochs", "100000", *folders(tmp_path), cwd=tmp_path)
    while not (tmp_path / "train/last.pt").exists():
        time.sleep(0.1)
    for flags in (["--resume"], ["--overwrite"]):
        second = start(*flags, *folders(tmp_path), cwd=tmp_path)
        _, err = second.communicate(timeout=120)
        assert second.returncode == 2
        assert "another process" in err and err.count("\n") == 1
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert run("--resume", *folders(tmp_path), "--pretrain_g_epochs", "100000", "--is_train", "False") == 0


@pytest.mark.parametrize("signalled", [True, False])
def test_a_reader_of_the_lines_that_ends_costs_no_epoch(signalled, tmp_path):
    """`main.py | tee log` and Ctrl-C, which ends tee first; and `main.py | head`."""
    long = ["--pretrain_g_epochs", "100000" if signalled else "3000", "--save_every", "100000", "--eval_every", "100000"]
    process = start(*long, *folders(tmp_path), cwd=tmp_path)
    for line in process.stdout:
        if line.startswith("on "):
            break
    while len(json_lines(tmp_path / "train/training.jsonl")) < 20:
        time.sleep(0.1)
    process.stdout.close()
    if signalled:
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == (130 if signalled else 141)
    saved = torch.load(tmp_path / "train/last.pt", weights_only=True)["state"]["counts"]["epochs_done"]["pretrain_g"]
    assert 20 <= saved == len(json_lines(tmp_path / "train/training.jsonl")) < 3000
    assert process.stderr.read() == ""


def test_events_that_do_not_fit_the_disk_are_told_in_one_line(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    flags = ["--pretrain_g_epochs", "100000", "--save_every", "100000", "--eval_every", "1"]
    process = start(*flags, *folders(tmp_path), cwd=tmp_path, preexec_fn=limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.count("\n") == 1 and "train" in err, err


def test_sigterm_ends_the_last_evaluation(tmp_path):
    short = ["--total_epochs", "0", "--pretrain_g_epochs", "1", "--final_eval_samples", "6000000"]
    process = start(*short, *folders(tmp_path), cwd=tmp_path)
    for line in process.stdout:
        if line.startswith("pretrain_g"):
            break
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "")
    assert "go on" in out


def test_output_that_the_terminal_cannot_show_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    process = start("--pretrain_g_epochs", "1", "--total_epochs", "0", *folders(tmp_path), cwd=tmp_path)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")


def test_names_that_are_no_text_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("--run_name", "bad\udcff") == 2
    assert_one_line_error(capsys, "UTF-8")
    assert snapshot(tmp_path) == {}
