"""Runs of earlier versions go on with this one."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.cli import call, json_lines

import main
import sample

# 6 + 2 + 2 epochs by the version before the code was divided into rooms. expected.json is what that version went on to measure
# with --total_epochs 5; the machines on which the two were computed may round differently.
OLD_RUN = Path(__file__).parent / "run_of_an_earlier_version"


@pytest.fixture
def old_run(tmp_path):
    return shutil.copytree(OLD_RUN, tmp_path / "run")


def test_a_run_of_the_version_before_resumes_to_the_same_numbers(old_run, tmp_path):
    flags = ["--resume", "--log_dir", str(old_run), "--eval_log_dir", str(tmp_path / "eval"), "--total_epochs", "5"]
    assert call(main.main, *flags) == 0
    expected = json.loads((OLD_RUN / "expected.json").read_text())
    last = json_lines(old_run / "metrics.jsonl")[-1]
    assert last.pop("phase") == expected["last_evaluation"].pop("phase")
    assert {name: last[name] for name in expected["last_evaluation"]} == pytest.approx(expected["last_evaluation"], rel=1e-4)
    final = json.loads((old_run / "final.json").read_text())
    assert {name: final[name] for name in expected["final"]} == pytest.approx(expected["final"], rel=1e-4)
    assert [row["phase"] for row in json_lines(old_run / "training.jsonl")].count("adversarial") == 5


def test_a_run_of_the_version_before_can_be_evaluated_and_drawn_from(old_run, tmp_path, capsys):
    assert call(main.main, "--is_train", "False", "--log_dir", str(old_run)) == 0
    assert "after 8 epochs of G" in capsys.readouterr().out
    assert call(sample.main, str(old_run), "--num", "3") == 0
    assert capsys.readouterr().out.count("\n") == 3


def test_a_run_starts_from_the_pre_training_of_the_version_before(old_run, tmp_path, capsys):
    assert call(main.main, "--start_from", str(old_run), "--log_dir", str(tmp_path / "new")) == 2
    assert "has made 2 adversarial epochs already" in capsys.readouterr().err
