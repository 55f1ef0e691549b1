"""--resume: to the same end as an unbroken run, and only where the flags and folders fit."""

import shlex
import shutil

import pytest
from helpers.cli import assert_one_line_error, call, folders, json_lines, run, same, scalars, snapshot, trained_state
from helpers.stops import STOPPED, run_until
from helpers.whole_run import EPOCHS, WHOLE

import main


@pytest.mark.parametrize("place", ["eval", "evaluations of it"])
def test_the_command_that_is_printed_goes_on(place, tmp_path, capsys):
    """Also where the evaluations are in a folder that a checkpoint alone may not choose."""
    (tmp_path / "runs").mkdir()
    flags = [
        "--pretrain_g_epochs",
        "3",
        "--total_epochs",
        "0",
        "--log_dir",
        str(tmp_path / "runs/mine"),
        "--eval_log_dir",
        str(tmp_path / place / "mine"),
    ]
    assert run_until("pretrain_g", 2, *flags) == STOPPED
    python, name, *again = shlex.split(capsys.readouterr().out.rpartition("Go on with: ")[2])
    assert (python, name, "--eval_log_dir" in again) == ("python", "main.py", place != "eval")
    assert call(main.main, *again) == 0


def test_a_run_made_in_parts_ends_like_an_unbroken_one(finished, tmp_path):
    """First MLE alone, then --resume with the adversarial epochs added."""
    assert run(*WHOLE, "--total_epochs", "0", *folders(tmp_path)) == 0
    log_dir = str(tmp_path / "train")
    for epochs in (8, EPOCHS["adversarial"]):
        assert call(main.main, "--resume", "--log_dir", log_dir, "--total_epochs", str(epochs)) == 0
    one, two = (trained_state(folder / "train") for folder in (finished, tmp_path))
    assert same(one, two)
    # the last epoch of a part is always evaluated: one more point than the unbroken run has
    rows = [row for row in json_lines(tmp_path / "train/metrics.jsonl") if row["step"] != EPOCHS["pretrain_g"] + 8]
    assert rows == json_lines(finished / "train/metrics.jsonl")
    assert json_lines(tmp_path / "train/training.jsonl")[-1] == json_lines(finished / "train/training.jsonl")[-1]


def test_resuming_a_finished_run_changes_nothing_that_was_trained(tmp_path):
    short = ["--pretrain_g_epochs", "5", "--pretrain_d_epochs", "2", "--total_epochs", "4", "--eval_every", "3"]
    assert run(*short, *folders(tmp_path)) == 0
    before = trained_state(tmp_path / "train")
    rows, points = json_lines(tmp_path / "train/metrics.jsonl"), scalars(tmp_path / "eval")
    assert [row["step"] for row in rows] == [0, 3, 5, 6, 9]
    assert call(main.main, "--resume", "--log_dir", str(tmp_path / "train")) == 0
    assert same(trained_state(tmp_path / "train"), before)
    assert json_lines(tmp_path / "train/metrics.jsonl") == rows
    assert scalars(tmp_path / "eval") == points


@pytest.mark.parametrize("flag", ["--pretrain_g_epochs", "--pretrain_d_epochs", "--total_epochs"])
def test_fewer_epochs_than_there_are_is_refused(flag, finished, capsys):
    before = snapshot(finished)
    assert run("--resume", flag, "11", *folders(finished)) == 2
    assert_one_line_error(capsys, f"{flag} 11", "has made")
    assert snapshot(finished) == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--g_hidden_dim", "9"], "--g_hidden_dim 9 does not fit the run"),
        (["--seed", "5"], "--seed 5 does not fit the run"),
        (["--pretrain_g_epochs", "500"], "--pretrain_g_epochs 500: this run finished that phase after 40 epochs"),
    ],
)
def test_resuming_with_other_settings_is_refused(finished, capsys, flags, words):
    before = snapshot(finished)
    assert call(main.main, "--resume", "--log_dir", str(finished / "train"), *flags) == 2
    assert_one_line_error(capsys, words)
    assert snapshot(finished) == before


def test_resuming_works_from_another_folder(tmp_path, monkeypatch):
    assert run("--pretrain_g_epochs", "3", "--total_epochs", "0", "--run_name", "s") == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert call(main.main, "--resume", "--log_dir", "../logs/train/s", "--pretrain_g_epochs", "6") == 0
    assert list((tmp_path / "elsewhere").iterdir()) == []
    monkeypatch.chdir(tmp_path)
    assert call(main.main, "--resume", "--run_name", "s", "--pretrain_g_epochs", "9") == 0
    assert [step for step, _ in scalars(tmp_path / "logs/eval/s")["nll"]] == [0, 3, 6, 9]


def test_a_run_with_one_folder_for_training_and_evaluation_resumes(tmp_path):
    flags = ["--pretrain_g_epochs", "9", "--eval_every", "2", "--log_dir", "all", "--eval_log_dir", "all"]
    assert run(*flags, "--total_epochs", "0") == 0
    assert call(main.main, "--resume", "--log_dir", "all", "--total_epochs", "2", "--pretrain_d_epochs", "1") == 0
    assert [row["step"] for row in json_lines(tmp_path / "all/metrics.jsonl")] == [0, 2, 4, 6, 8, 9, 10, 11]
    assert [step for step, _ in scalars(tmp_path / "all")["nll"]] == [0, 2, 4, 6, 8, 9, 10, 11]
    assert len(json_lines(tmp_path / "all/training.jsonl")) == 9 + 1 + 2


def test_resuming_into_another_runs_folder_is_refused(finished, tmp_path, capsys):
    """Its event files are unknown to the checkpoint, but must not be deleted like those begun after the checkpoint."""
    assert run("--pretrain_g_epochs", "3", "--total_epochs", "0", *folders(tmp_path)) == 0
    before = snapshot(finished) | snapshot(tmp_path)
    capsys.readouterr()
    assert call(main.main, "--resume", "--log_dir", str(tmp_path / "train"), "--eval_log_dir", str(finished / "eval")) == 2
    assert_one_line_error(capsys, "another run")
    assert snapshot(finished) | snapshot(tmp_path) == before


def test_resuming_a_copied_run_leaves_the_originals_events_alone(tmp_path, capsys):
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
