"""Runs read from their folders, and grouped by their settings."""

import json
import os
import random
import signal
import statistics

import pytest
from helpers.cli import assert_one_line_error, call, run
from helpers.damage import complaint
from helpers.fake_runs import evaluation, write_run
from helpers.processes import start_signalled
from helpers.tables import as_json, table

import report
from running import runs


def test_runs_without_a_name_are_grouped_by_their_settings(tmp_path, capsys):
    for seed in (1, 2, 3):
        write_run(tmp_path / f"mle-{seed}", [evaluation(120, 9.0, 8.0)], {}, seed=seed)
        write_run(tmp_path / f"seqgan-{seed}", [evaluation(320, 9.0, 8.0)], {}, seed=seed, total_epochs=200)
    write_run(tmp_path / "other/x9", [evaluation(120, 9.0, 8.0)], {}, seed=9, threads=3, device="cuda:0", oracle_seed=4)
    rows = table(capsys, "mle-*", "seqgan-1", "seqgan-3", "seqgan-2", "other/x9")
    assert {name: row["runs"] for name, row in rows.items()} == {"(total_epochs 0)": "4", "seqgan": "3"}
    write_run(tmp_path / "bleu/seqgan-4", [evaluation(120, 9.0, 8.0)], {}, seed=4, total_epochs=200, reward="bleu")
    rows = table(capsys, "seqgan-*", "bleu/*")
    assert {name: row["runs"] for name, row in rows.items()} == {"seqgan (reward discriminator)": "3", "seqgan (reward bleu)": "1"}


def test_runs_that_started_from_different_folders_are_one_group(tmp_path, capsys):
    for seed in (1, 2):
        write_run(tmp_path / f"s-{seed}", [evaluation(120, 9.0, 8.0)], {}, seed=seed, start_from=f"mle-{seed}")
    assert table(capsys, "s-1", "s-2")["s"]["runs"] == "2"


def test_a_setting_that_an_older_run_lacks_is_its_presets(tmp_path, capsys):
    write_run(tmp_path / "old-1", [evaluation(120, 9.0, 8.0)], {}, seed=1)
    write_run(tmp_path / "old-2", [evaluation(120, 9.0, 8.0)], {}, seed=2, d_l2=0.2, grid="seconds")
    write_run(tmp_path / "old-3", [evaluation(120, 9.0, 8.0)], {}, seed=3, d_l2=0.3)
    assert [row["runs"] for row in table(capsys, "old-*").values()] == ["2", "1"]


BROKEN = {
    "no such run": ("nothing", None, "nothing: no such run"),
    "no such glob": ("x-*", None, "x-*: no such run"),
    "a glob without runs": ("*", None, "*: no such run"),
    "a folder without a run": ("empty", None, "no config.json"),
    "a file": ("empty/file", None, "holds no run"),
    "no name": ("=r", None, "NAME=RUNS"),
    "no runs": ("MLE=", None, "NAME=RUNS"),
    "no config": ("r", ("config.json", None), "no config.json"),
    "broken config": ("r", ("config.json", "{"), "config.json is not a JSON object"),
    "config of something else": ("r", ("config.json", "{}"), "holds no settings"),
    "config with a wrong type": ("r", ("config.json", '{"args": {"seed": "one"}}'), "whole numbers"),
    "binary config": ("r", ("config.json", b"\xff\xfe"), "no text"),
    "no metrics": ("MLE=r", ("metrics.jsonl", None), "no metrics.jsonl"),
    "empty metrics": ("r", ("metrics.jsonl", ""), "holds no evaluation"),
    "a broken line": ("r", ("metrics.jsonl", '{"phase": "pretrain_g", "epoch": 1, "step": 1}\n{"a\n'), "line 2"),
    "a line of something else": ("r", ("metrics.jsonl", "{}\n"), "line 1 is no evaluation"),
    "broken final.json": ("r", ("final.json", "[1]"), "final.json is not a JSON object"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_missing_and_broken_files_end_with_one_line(name, tmp_path, capsys):
    argument, damage, words = BROKEN[name]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/file").touch()
    if damage:
        folder = write_run(tmp_path / "r", [evaluation(0, 10.0, 8.5)], {})
        path, content = folder / damage[0], damage[1]
        path.unlink()
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert call(report.main, argument) == 2
    assert_one_line_error(capsys, words)


def test_real_runs_are_read_as_they_are_written(tmp_path, capsys):
    short = ["--pretrain_g_epochs", "4", "--eval_every", "2", "--pretrain_d_epochs", "1", "--total_epochs", "3"]
    for seed in ("1", "2"):
        assert run(*short, "--seed", seed, "--run_name", f"tiny-{seed}") == 0
    cut = ["--seed", "3", "--run_name", "cut"]
    start_signalled(*short, *cut, after=("adversarial", 2), number=signal.SIGKILL, cwd=tmp_path).communicate()
    capsys.readouterr()
    found = as_json(capsys, "SeqGAN=logs/train/tiny-*", "cut=logs/train/cut", "--final", "--authors_log", "alog")
    finals = [json.loads((tmp_path / f"logs/train/tiny-{seed}/final.json").read_text()) for seed in (1, 2)]
    assert found["rows"][0]["end"]["nll_oracle"]["mean"] == pytest.approx(statistics.fmean(f["nll_oracle"] for f in finals))
    assert [name for name in found["notes"] if "cut is unfinished" in name]
    text = (tmp_path / "alog/tiny-1-experiment-log.txt").read_text()
    epochs = [line.split("\t")[1] for line in text.splitlines() if "\t" in line]
    assert epochs == ["0", "2", "4", "2", "3"]


SETTINGS = {
    "an oracle's seed": {"oracle_seed": [1]},
    "an oracle's file": {"oracle_params": {"a": 1}},
    "a data set": {"dataset": ["LSTM"]},
    "a data set of a later version": {"dataset": "Paintings"},
    "a seed that is true": {"seed": True},
    "a seed without end": {"seed": 10**400},
    "epochs without end": {"total_epochs": 10**400},
    "fewer epochs than none": {"pretrain_g_epochs": -1},
    "lists in lists": {"d_filters": [[[[[[1]]]]]]},
    "an object": {"from_a_later_version": {"a": 1}},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_readers_cannot_compute_with_end_with_one_line(name, tmp_path, capsys):
    for seed in (1, 2):
        write_run(tmp_path / f"r-{seed}", [evaluation(120, 9.0, 8.0)], {}, **{"seed": seed, **SETTINGS[name]})
    assert call(report.main, "a=r-*") == 2
    assert_one_line_error(capsys, "config.json", *(setting for setting in SETTINGS[name] if setting != "seed"))


@pytest.mark.parametrize("name", ["step", "epoch"])
@pytest.mark.parametrize("value", [10**400, 2**40, -1, True, 1.5, "1", None, [1]], ids=range(8))
def test_steps_that_are_no_counts_end_with_one_line(name, value, tmp_path, capsys):
    write_run(tmp_path / "r", [evaluation(0, 10.0, 8.0), {**evaluation(10, 9.0, 8.0), name: value}], {})
    assert call(report.main, "r", "--authors_log", "logs") == 2
    assert_one_line_error(capsys, "metrics.jsonl, line 2 is no evaluation")


@pytest.mark.parametrize("value", [10**400, 1e160, -1.7e308, True, "9.0", [9.0], {"mean": 9.0}], ids=range(7))
def test_numbers_that_cannot_be_computed_with_count_as_missing(value, tmp_path, capsys):
    write_run(tmp_path / "r-1", [evaluation(120, 9.0, 8.0)], {"nll_oracle": 9.0, "step": [1]}, seed=1)
    write_run(tmp_path / "r-2", [evaluation(120, value, 8.0)], {"nll_oracle": value, "step": value}, seed=2)
    (tmp_path / "r-2/two_sample.json").write_text(json.dumps({"last": {"recurrent": {"auc": value}, "features": value}}))
    flags = ["a=r-*", "b=r-2", "--authors_log", "logs"]
    for final in ([], ["--final"]):
        rows = table(capsys, *flags, *final)
        assert (rows["a"]["NLL_oracle"], rows["b"]["NLL_oracle"]) == ("9.000 (of 1)", "–")
    assert as_json(capsys, *flags, "--final")["rows"][0]["end"]["nll_oracle"] == {"mean": 9.0, "interval": None, "runs": 1}
    assert (tmp_path / "logs/r-2-experiment-log.txt").read_text() == ""


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "final.json", "two_sample.json"])
def test_pipes_and_files_of_another_size_than_a_runs_end_with_one_line(name, tmp_path, capsys, monkeypatch):
    path = write_run(tmp_path / "r", [evaluation(120, 9.0, 8.0)], {}) / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert call(report.main, "r", "--final") == 2
    assert_one_line_error(capsys, f"{name} is no regular file")
    path.unlink()
    monkeypatch.setattr(runs, "LARGEST_FILE", 2**20)
    with path.open("wb") as file:
        file.truncate(2**20 + 1)
    assert call(report.main, "r", "--final") == 2
    assert_one_line_error(capsys, f"{name} is larger than 1 MiB")


def test_damaged_folders_give_a_table_or_one_line(tmp_path, monkeypatch):
    for seed in range(400):
        folder = tmp_path / str(seed)
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert complaint(folder, random.Random(seed), curves=0.03) is None, f"seed {seed}"
