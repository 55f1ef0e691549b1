"""The rows of report.py --temperatures."""

import json

import pytest
import torch
from helpers.cli import assert_one_line_error, call, folders, run
from helpers.reference import enumerate_sequences, sequence_probability, tiny_generator

import report
from running.temperatures import tempered


def test_a_tempered_generator_draws_what_its_likelihoods_say_and_the_model_stays_as_it_is():
    model, tokens = tiny_generator(), enumerate_sequences(3, 3)
    before = sequence_probability(model, tokens)
    cold = tempered(model, 0.5)
    drawn = model.sample(20_000, 3, torch.Generator().manual_seed(0), temperature=0.5)
    counts = torch.bincount((drawn * torch.tensor([9, 3, 1])).sum(dim=1), minlength=27) / 20_000
    torch.testing.assert_close(counts.double(), sequence_probability(cold, tokens), atol=0.012, rtol=0)
    assert torch.equal(sequence_probability(model, tokens), before)


def test_temperature_one_is_the_run_itself_and_others_are_rows_of_their_own(tmp_path, capsys):
    assert run("--pretrain_g_epochs", "3", "--total_epochs", "0", *folders(tmp_path)) == 0
    final = json.loads((tmp_path / "train/final.json").read_text())
    capsys.readouterr()
    flags = ["--final", "--json", "--temperatures", "1,0.5"]
    assert call(report.main, f"MLE={tmp_path / 'train'}", *flags) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert list(rows) == ["MLE", "MLE, temperature 1", "MLE, temperature 0.5"]
    for name in ("nll_oracle", "nll_test", "kl_g_oracle"):
        assert rows["MLE, temperature 1"]["end"][name]["mean"] == pytest.approx(final[name])
    sharper = rows["MLE, temperature 0.5"]["end"]
    assert sharper["entropy_g"]["mean"] < final["entropy_g"]
    assert sharper["nll_test"]["mean"] != pytest.approx(final["nll_test"])


def test_a_run_without_a_checkpoint_or_a_wrong_temperature_ends_with_one_line(tmp_path, capsys):
    assert run("--pretrain_g_epochs", "1", "--total_epochs", "0", *folders(tmp_path)) == 0
    capsys.readouterr()
    assert call(report.main, str(tmp_path / "train"), "--temperatures", "0,x") == 2
    assert_one_line_error(capsys, "--temperatures")
    (tmp_path / "train/last.pt").unlink()
    assert call(report.main, str(tmp_path / "train"), "--temperatures", "0.9") == 2
    assert_one_line_error(capsys, "no checkpoint")
