"""nottingham_table.py and nottingham_grids.py."""

import importlib

import pytest
from helpers.cli import ROOT, assert_one_line_error, call
from helpers.fake_runs import write_run


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The main function of a script of experiments/, by name; the folder is empty."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    return lambda name: importlib.import_module(name).main


@pytest.mark.parametrize(
    ("script", "flags", "words"),
    [
        ("nottingham_grids", [], "folder"),
        ("nottingham_grids", ["x", "--nosuch"], "--nosuch"),
        ("nottingham_grids", ["x"], "no folder x"),
        ("nottingham_table", [], "NAME=PATTERN"),
        ("nottingham_table", ["a=b", "--nosuch"], "--nosuch"),
        ("nottingham_table", ["tunes"], "'tunes': a row is NAME=PATTERN"),
        ("nottingham_table", ["MLE=x"], "no finished run"),
        ("nottingham_table", ["MLE=broken"], "final.json is not a JSON object"),
    ],
)
def test_bad_input_ends_with_one_line(script, flags, words, command, tmp_path, capsys):
    (write_run(tmp_path / "broken", [], {}) / "metrics.jsonl").write_text("{\n")
    (tmp_path / "broken/final.json").write_text("[")
    assert call(command(script), *flags) == 2
    assert_one_line_error(capsys, words)


def test_table_over_tunes_gives_means_and_half_ranges(command, tmp_path, capsys):
    for seed, bleu in enumerate((0.80, 0.90), start=1):
        write_run(tmp_path / f"mle-{seed}", [], {"bleu4": bleu, "mse": 40.0 + seed, "real_bleu4": 0.9})
    write_run(tmp_path / "mle-3", [])
    assert call(command("nottingham_table"), "MLE=mle-*") == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[2].startswith("| MLE | 2 | 0.850 ± 0.050 | 41.50 ± 0.50 | – |")
    assert rows[3].startswith("| real training windows | | 0.900 ± 0.000 | – |")
