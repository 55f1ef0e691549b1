"""--patience: maximum likelihood ends where NLL_valid has stopped falling, and training goes on from G's best weights."""

import math
import shutil

import pytest
import torch
from helpers.cli import assert_one_line_error, folders, json_lines, run, same, snapshot, trained_state
from helpers.stops import STOPPED, run_until

from data_loader import OracleData
from data_set import DataSet

OVERFIT = (
    "--pretrain_g_epochs 30 --train_size 8 --g_lr 0.1 --eval_every 1 --save_every 5 --patience 3 --pretrain_d_epochs 1 --d_epochs 1"
).split()
ADVERSARIAL = ["--total_epochs", "2"]


def everything(folder):
    payload = torch.load(folder / "train/last.pt", weights_only=True)
    return {**trained_state(folder / "train"), "best": payload["best"]}


def assert_same_end(one, two):
    assert same(everything(one), everything(two))
    for name in ("metrics.jsonl", "training.jsonl"):
        assert json_lines(one / "train" / name) == json_lines(two / "train" / name)


def epochs_of_g(folder):
    return [row["epoch"] for row in json_lines(folder / "train/training.jsonl") if row["phase"] == "pretrain_g"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An unbroken run that ended maximum likelihood early. Tests only read it."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(*OVERFIT, *ADVERSARIAL, *folders(folder)) == 0
    return folder


@pytest.fixture(scope="module")
def mle(tmp_path_factory):
    """The same without its adversarial epochs. Tests only read it."""
    folder = tmp_path_factory.mktemp("mle")
    assert run(*OVERFIT, "--total_epochs", "0", *folders(folder)) == 0
    return folder


def test_maximum_likelihood_ends_after_so_many_evaluations_without_a_lower_value(whole):
    rows = [row for row in json_lines(whole / "train/metrics.jsonl") if row["phase"] == "pretrain_g"]
    lowest = min(rows, key=lambda row: row["nll_valid"])["step"]
    assert lowest > 0
    assert rows[-1]["step"] == lowest + 3 < 30
    state = trained_state(whole / "train")["state"]
    assert state["counts"]["epochs_done"] == {"pretrain_g": lowest + 3, "pretrain_d": 1, "adversarial": 2}
    after = [row["step"] for row in json_lines(whole / "train/metrics.jsonl") if row["phase"] == "adversarial"]
    assert after == [lowest + 4, lowest + 5]


def test_the_weights_after_it_are_those_of_the_best_evaluation_and_not_the_last(mle):
    last, best = (torch.load(mle / "train" / name, weights_only=True) for name in ("last.pt", "best.pt"))
    assert same(last["state"]["generator"], best["models"]["generator"])
    assert best["where"]["step"] + 3 == last["state"]["counts"]["epochs_done"]["pretrain_g"]
    assert best["latest"]["nll_valid"] == best["nll_valid"]  # last.pt is as good


def planned(monkeypatch, values):
    """NLL_valid of the evaluations in turn; the returned list fills with G's weights at each of them."""
    weights = []

    def nll_valid(_self, generator):
        weights.append({name: value.clone() for name, value in generator.state_dict().items()})
        return values[min(len(weights), len(values)) - 1]  # the restored weights are evaluated once more

    monkeypatch.setattr(DataSet, "nll_valid", nll_valid)
    return weights


@pytest.mark.parametrize(
    ("values", "ended", "chosen"),
    [
        ([5, 3, 4, 2, 2, math.nan, 1], 5, 3),  # equal values and NaN count as waiting; a better one begins anew
        ([5, 6, 7, 1, 1, 1, 1], 2, 0),  # not even the first epoch helped
        ([5, 4, 3, 2, 1, 0, -1], 6, 6),
        ([5, 4, 3, 2, 1, 0, 0.5], 6, 5),  # the last epoch ends it, and the best weights come back all the same
    ],
)
def test_patience_counts_evaluations_in_a_row(values, ended, chosen, tmp_path, monkeypatch):
    weights = planned(monkeypatch, [float(value) for value in values])
    flags = ["--pretrain_g_epochs", "6", "--total_epochs", "0", "--eval_every", "1", "--patience", "2"]
    assert run(*flags, *folders(tmp_path)) == 0
    assert epochs_of_g(tmp_path) == list(range(1, ended + 1))
    assert same(trained_state(tmp_path / "train")["state"]["generator"], weights[chosen])


def test_epochs_without_an_evaluation_are_not_counted(tmp_path, monkeypatch):
    planned(monkeypatch, [5.0, 3.0, 4.0, 4.0, 4.0])
    flags = ["--pretrain_g_epochs", "20", "--total_epochs", "0", "--eval_every", "3", "--patience", "2"]
    assert run(*flags, *folders(tmp_path)) == 0
    assert epochs_of_g(tmp_path) == list(range(1, 10))


@pytest.mark.parametrize("changed", ["held_out", "valid"])
def test_only_validation_sequences_say_where_it_ends(changed, mle, tmp_path, monkeypatch):
    """Other test sequences change no weight. Other validation sequences do, so this could be seen."""
    original = OracleData.__init__

    def planted(self, *arguments, **named):
        original(self, *arguments, **named)
        setattr(self, changed, torch.full_like(getattr(self, changed), 7))

    monkeypatch.setattr(OracleData, "__init__", planted)
    assert run(*OVERFIT, "--total_epochs", "0", *folders(tmp_path)) == 0
    one, two = everything(mle), everything(tmp_path)
    assert (same(one["state"], two["state"]) and same(one["best"], two["best"])) == (changed == "held_out")
    tests = [[row["nll_test"] for row in json_lines(folder / "train/metrics.jsonl")] for folder in (mle, tmp_path)]
    assert (tests[0] != tests[1]) or changed == "valid"


def test_a_run_that_ends_early_resumes_exactly_before_and_after_that_epoch(whole, tmp_path):
    """Before it, --resume goes on waiting; after it, fewer epochs than --pretrain_g_epochs are no reason to refuse."""
    assert run_until("pretrain_g", 5, *OVERFIT, *ADVERSARIAL, *folders(tmp_path)) == STOPPED
    assert run_until("adversarial", 1, "--resume", *folders(tmp_path)) == STOPPED
    assert run("--resume", *folders(tmp_path)) == 0
    assert_same_end(whole, tmp_path)


def test_adversarial_epochs_can_be_added_to_a_finished_run_that_ended_early(whole, mle, tmp_path):
    parts = shutil.copytree(mle, tmp_path / "parts")
    assert run("--resume", *ADVERSARIAL, *folders(parts)) == 0
    assert_same_end(whole, parts)


def test_a_run_that_starts_from_one_that_ended_early_goes_straight_to_the_next_phase(whole, mle, tmp_path):
    rest = [*OVERFIT[4:], *ADVERSARIAL]
    assert run("--start_from", str(mle / "train"), *rest, *folders(tmp_path)) == 0
    one, two = everything(whole), everything(tmp_path)
    assert same(one["state"], two["state"])
    assert one["best"]["where"] == two["best"]["where"]
    rows, expected = (json_lines(folder / "train/training.jsonl") for folder in (tmp_path, whole))
    assert [row["phase"] for row in rows] == ["pretrain_d", "adversarial", "adversarial"]
    assert rows == expected[-3:]


def test_a_run_that_starts_from_an_unfinished_one_waits_no_shorter(tmp_path, monkeypatch):
    """The source has waited for one evaluation of three; the same generator is evaluated again where the new run begins."""
    planned(monkeypatch, [5.0, 3.0, 4.0, 4.0, 3.5, 2.5, 2.6, 2.7])
    flags = ["--pretrain_g_epochs", "5", "--total_epochs", "0", "--eval_every", "1", "--patience", "3"]
    assert run_until("pretrain_g", 2, *flags, *folders(tmp_path / "source")) == STOPPED
    assert run("--start_from", str(tmp_path / "source/train"), "--total_epochs", "0", "--eval_every", "1", *folders(tmp_path)) == 0
    assert epochs_of_g(tmp_path) == [3, 4, 5]  # values 3.5, 2.5, 2.6


def test_flags_that_come_too_late_for_maximum_likelihood_are_refused(mle, tmp_path, capsys):
    parts = shutil.copytree(mle, tmp_path / "parts")
    before = snapshot(parts)
    assert run("--resume", "--pretrain_g_epochs", "40", *folders(parts)) == 2
    assert_one_line_error(capsys, "--pretrain_g_epochs 40", "ended")
    assert snapshot(parts) == before
    assert run("--pretrain_g_epochs", "2", "--total_epochs", "0", *folders(tmp_path / "whole")) == 0
    capsys.readouterr()
    assert run("--start_from", str(tmp_path / "whole/train"), "--patience", "2", *folders(tmp_path / "new")) == 2
    assert_one_line_error(capsys, "--patience 2", "complete")
    assert not (tmp_path / "new").exists()


def test_a_run_without_evaluations_does_not_go_on_with_a_maximum_likelihood_that_has_ended(mle, tmp_path):
    flags = ["--start_from", str(mle / "train"), "--evaluate", "False", "--patience", "0", *ADVERSARIAL, "--pretrain_d_epochs", "1"]
    assert run(*flags, *folders(tmp_path)) == 0
    rows = json_lines(tmp_path / "train/training.jsonl")
    assert [row["phase"] for row in rows] == ["pretrain_d", "adversarial", "adversarial"]


def test_epochs_are_not_added_to_a_maximum_likelihood_that_has_gone_back_to_its_best(tmp_path, capsys):
    """G has earlier weights again, its Adam has not: what followed would be another run."""
    flags = [*OVERFIT, "--total_epochs", "0", "--patience", "50", *folders(tmp_path)]
    assert run(*flags, "--pretrain_g_epochs", "8") == 0
    assert run("--resume", "--pretrain_g_epochs", "12", *folders(tmp_path)) == 2
    assert_one_line_error(capsys, "--pretrain_g_epochs 12: G has its weights of epoch", "again")
    assert run("--resume", "--total_epochs", "1", *folders(tmp_path)) == 0


def test_epochs_can_be_added_where_the_last_one_is_the_best(tmp_path, monkeypatch):
    planned(monkeypatch, [5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.4])
    flags = ["--pretrain_g_epochs", "2", "--total_epochs", "0", "--eval_every", "1", "--patience", "9", *folders(tmp_path)]
    assert run(*flags) == 0
    assert run("--resume", "--pretrain_g_epochs", "3", *folders(tmp_path)) == 0
    assert epochs_of_g(tmp_path) == [1, 2, 3]
