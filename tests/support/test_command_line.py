"""Command lines that no flag's type refuses: file names in other encodings, values that argparse takes for a separator."""

import os
import subprocess
import sys

import pytest
from helpers.cli import ROOT, assert_one_line_error, call, snapshot

import judges
import main
import report
import sample
from music import archive


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


NO_TEXT = [
    (main.main, ["--oracle_params", "/x/\udcff.npz"], "--oracle_params", "/x/\\xff.npz"),
    (main.main, ["--log_dir=a\udcff"], "--log_dir", "a\\xff"),
    (main.main, ["--run_name", "\udcff"], "--run_name", "\\xff"),
    (main.main, ["--dataset", "Nottingham", "--data_dir", "\udce4"], "--data_dir", "\\xe4"),
    (main.main, ["--dataset", "Text", "--data_path", "\udce4"], "--data_path", "\\xe4"),
    (main.main, ["--start_from", "\udce4"], "--start_from", "\\xe4"),
    (main.main, ["--device", "\udce4"], "--device", "\\xe4"),
    (sample.main, ["run", "--prime", "be\udcfcr"], "--prime", "be\\xfcr"),
    (sample.main, ["run", "--out", "\udcff/songs"], "--out", "\\xff/songs"),
    (sample.main, ["\udcff", "--out", "songs"], "argument run", "\\xff"),
    (report.main, ["a", "b=\udcff", "--final"], "argument runs", "b=\\xff"),
    (report.main, ["a", "--ttest", "a", "\udcff"], "--ttest", "\\xff"),
    (report.main, ["a", "--early_stopped", "\udcff"], "--early_stopped", "\\xff"),
    (report.main, ["a", "--curves", "\udcff.png"], "--curves", "\\xff.png"),
    (judges.main, ["\udcff"], "argument run", "\\xff"),
    (archive.main, ["\udcff.zip", "tunes"], "argument archive", "\\xff.zip"),
    (archive.main, ["x.zip", "\udcff"], "argument target", "\\xff"),
]


@pytest.mark.parametrize(("command", "flags", "name", "shown"), NO_TEXT)
def test_text_that_is_no_utf_8_is_refused_by_name(command, flags, name, shown, tmp_path, capsys):
    assert call(command, *flags) == 2
    assert_one_line_error(capsys, name, f"'{shown}'", "not UTF-8")
    assert snapshot(tmp_path) == {}


def test_a_locale_that_lacks_a_character_is_named_as_the_reason(tmp_path):
    """Python decodes the command line in the locale's encoding: there a name in UTF-8 looks like one that is not."""
    name = "größe".encode()
    for utf8_mode, reason in (("0", "PYTHONUTF8=1"), ("1", "no such run")):
        command = [sys.executable, str(ROOT / "report.py"), name]
        locale = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": utf8_mode}
        done = subprocess.run(command, env=locale, cwd=tmp_path, capture_output=True)
        text = done.stderr.decode()
        assert (done.returncode, text.count("\n")) == (2, 1), text
        assert reason in text and "not UTF-8" not in text


@pytest.mark.parametrize(
    ("command", "flags", "name"),
    [
        (main.main, ["--train_size=--"], "--train_size"),
        (main.main, ["--seed=--"], "--seed"),
        (main.main, ["--evaluate=--"], "--evaluate"),
        (sample.main, ["run", "--out=--"], "--out"),
        (sample.main, ["run", "--prime=--"], "--prime"),
        (report.main, ["run", "--early_stopped=--"], "--early_stopped"),
    ],
)
def test_two_dashes_are_no_value(command, flags, name, tmp_path, capsys):
    assert call(command, *flags) == 2
    assert_one_line_error(capsys, f"argument {name}: expected one argument")
    assert snapshot(tmp_path) == {}
