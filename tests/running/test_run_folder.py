"""The folders of runs: their names, what may replace a run, and the lock of a run under way."""

import json
import re
import signal

from helpers.cli import assert_one_line_error, folders, json_lines, run, snapshot
from helpers.processes import start, wait_for_epochs


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


def test_both_default_folders_have_the_runs_name(tmp_path):
    short = ["--pretrain_g_epochs", "1", "--total_epochs", "0"]
    assert run(*short, "--seed", "7") == 0
    assert run(*short, "--run_name", "mine") == 0
    assert run(*short, "--log_dir", "logs/train/other") == 0
    for kind in ("train", "eval"):
        names = sorted(p.name for p in (tmp_path / "logs" / kind).iterdir())
        assert re.fullmatch(r"LSTM-original-seed7-\d{8}-\d{6}", names[0])
        assert names[1:] == ["mine", "other"]


def test_a_failed_overwrite_loses_nothing(tmp_path, capsys):
    assert run("--pretrain_g_epochs", "3", "--total_epochs", "0", "--run_name", "d") == 0
    (tmp_path / "file").write_text("mine")
    before = snapshot(tmp_path)
    for flags in (["--eval_log_dir", "file/x"], ["--dataset", "Nottingham", "--vocab_size", "89", "--data_dir", "none"]):
        capsys.readouterr()
        assert run("--run_name", "d", "--overwrite", *flags) == 2
        assert_one_line_error(capsys)
        assert snapshot(tmp_path) == before


def test_a_run_that_another_process_writes_is_left_alone(tmp_path, capsys):
    process = start("--pretrain_g_epochs", "100000", *folders(tmp_path), cwd=tmp_path)
    wait_for_epochs(process, tmp_path / "train", 1)
    for flags in (["--resume"], ["--overwrite"]):
        capsys.readouterr()
        assert run(*flags, *folders(tmp_path)) == 2
        assert_one_line_error(capsys, "another process")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert run("--resume", *folders(tmp_path), "--pretrain_g_epochs", "100000", "--is_train", "False") == 0
