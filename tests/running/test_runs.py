"""Runs read from their folders, and grouped by their settings."""

import json
import signal
import statistics

import pytest
from helpers.cli import assert_one_line_error, call, run
from helpers.fake_runs import evaluation, write_run
from helpers.processes import start_signalled
from helpers.tables import as_json, table

import report


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
