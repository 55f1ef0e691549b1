"""What a run says of its adversarial phase at the end."""

import json

import pytest
from helpers.cli import call, folders, json_lines, run

import main
import report
from running.adversarial_summary import adversarial_summary


def evaluation(phase, epoch, oracle, test, valid, **more):
    row = {"phase": phase, "epoch": epoch, "step": epoch, "nll_oracle": oracle, "nll_oracle_error": 0.03, "nll_test": test}
    return {**row, "nll_valid": valid, "entropy_g": 7.5, "distinct_tokens": 4000, **more}


DEFAULT = "--preset default --policy_batch 8 --pretrain_g_epochs 2 --pretrain_d_epochs 1 --total_epochs 3 --eval_every 1"
ROWS = [
    evaluation("pretrain_g", 0, 9.4, 8.5, 8.5),
    evaluation("pretrain_g", 10, 8.5, 7.9, 7.9),
    *(
        evaluation("adversarial", 10 * i, 8.5 - i / 10, test, valid)
        for i, (test, valid) in enumerate([(7.8, 7.9), (7.7, 8.0), (7.9, 7.8)] * 2, 1)
    ),
]


def test_the_start_is_the_last_evaluation_of_the_pre_training_and_the_best_is_chosen_by_validation():
    lines = adversarial_summary(ROWS)
    assert [line.split()[0] for line in lines] == ["adversarial", "before", "best", "end", "adversarial"]
    assert lines[0].split("  ")[0] == "adversarial phase" and "H(G)" in lines[0] and "BLEU" not in lines[0]
    assert lines[1].split()[1:] == ["8.500", "7.900", "7.500", "4000"]
    assert lines[2].startswith("best (epoch 30)") and lines[2].split()[3:5] == ["8.200", "7.900"]  # not 7.7, of the test sequences
    assert lines[3].startswith("end (epoch 60)") and lines[3].split()[3] == "7.900"


def test_the_sentence_compares_the_mean_of_the_last_five_evaluations_with_the_start():
    said = adversarial_summary(ROWS)[-1]
    assert "NLL_oracle −0.400 ± 0.033" in said  # epochs 20 to 60: 8.3 to 7.9; 0.03 and 0.03/√5
    assert "NLL_test −0.100" in said and "last 5 evaluations" in said


def test_a_number_that_is_none_any_more_is_said():
    lines = adversarial_summary([*ROWS[:-1], {**ROWS[-1], "nll_test": None}])
    assert "–" in lines[3]
    assert "NLL_test is no longer a number" in lines[-1]


def test_data_without_an_oracle_have_bleu():
    rows = [{k: v for k, v in row.items() if "oracle" not in k} | {"bleu4": 0.5 + row["step"] / 100} for row in ROWS]
    lines = adversarial_summary(rows)
    assert "oracle" not in " ".join(lines)
    assert "NLL_test −0.100, BLEU-4 +0.300" in lines[-1]


@pytest.mark.parametrize("value", ["many", 10**400, [1.0], None, 1e308])
def test_what_is_no_number_is_told_and_fails_nothing(value):
    lines = adversarial_summary([{**row, "nll_test": value} if row["phase"] == "adversarial" else row for row in ROWS])
    assert "NLL_test is no longer a number" in lines[-1]


@pytest.mark.parametrize("rows", [ROWS[:2], ROWS[2:], []])
def test_without_an_adversarial_phase_or_a_start_there_is_nothing_to_say(rows):
    assert adversarial_summary(rows) == []


def test_a_run_and_its_report_say_the_same(tmp_path, capsys):
    assert run(*folders(tmp_path), *DEFAULT.split()) == 0
    said = capsys.readouterr().out
    expected = adversarial_summary(json_lines(tmp_path / "train/metrics.jsonl"))
    assert len(expected) == 5 and "\n".join(expected) in said
    assert call(report.main, "--adversarial", str(tmp_path / "train")) == 0
    assert "\n".join(expected) in capsys.readouterr().out
    assert call(report.main, "--adversarial", "--json", str(tmp_path / "train")) == 0
    assert json.loads(capsys.readouterr().out)["adversarial"] == [{"folder": str(tmp_path / "train"), "lines": expected}]


def test_maximum_likelihood_alone_says_nothing_of_an_adversarial_phase(tmp_path, capsys):
    assert run(*folders(tmp_path), *"--pretrain_g_epochs 2 --total_epochs 0".split()) == 0
    assert "adversarial" not in capsys.readouterr().out


def test_a_run_whose_log_has_gone_ends_well_without_a_summary(tmp_path, capsys):
    flags = "--pretrain_g_epochs 2 --pretrain_d_epochs 1 --total_epochs 3".split()
    assert run(*folders(tmp_path), *flags, "--evaluate", "False") == 0
    capsys.readouterr()
    assert call(main.main, "--resume", *folders(tmp_path), "--evaluate", "True") == 0
    assert "adversarial training" not in capsys.readouterr().out
