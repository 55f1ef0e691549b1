"""`python sample.py`: sequences from a checkpoint."""

import subprocess

import numpy as np
import pytest
import torch
from helpers.cli import ROOT, assert_one_line_error, call, folders, run
from helpers.processes import warm_python

import sample
from generator import Generator


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory):
    """The folder of a short run."""
    folder = tmp_path_factory.mktemp("run")
    assert run("--pretrain_g_epochs", "3", "--total_epochs", "0", *folders(folder)) == 0
    return folder / "train"


def test_samples_come_from_the_trained_generator(log_dir, tmp_path):
    """The frequencies of first tokens are the checkpoint's probabilities."""
    out = tmp_path / "samples.npy"
    assert call(sample.main, str(log_dir), "--num", "4000", "--out", str(out)) == 0
    tokens = np.load(out)
    assert tokens.shape == (4000, 5)
    assert tokens.dtype == np.int64
    generator = Generator(20, 4, 4)
    generator.load_state_dict(torch.load(log_dir / "last.pt", weights_only=True)["state"]["generator"])
    expected = generator(torch.zeros(1, 1, dtype=torch.int64))[0, 0].exp()
    share = torch.bincount(torch.from_numpy(tokens[:, 0]), minlength=20) / 4000
    assert (share - expected).abs().max() < 0.04


def test_text_and_array_hold_the_same_sequences(log_dir, tmp_path, capsys):
    for name in ("a.npy", "a.txt"):
        assert call(sample.main, str(log_dir / "last.pt"), "--num", "12", "--seed", "3", "--out", str(tmp_path / name)) == 0
    rows = [[int(token) for token in line.split()] for line in (tmp_path / "a.txt").read_text().splitlines()]
    assert rows == np.load(tmp_path / "a.npy").tolist()
    capsys.readouterr()
    assert call(sample.main, str(log_dir), "--num", "12", "--seed", "3") == 0
    assert capsys.readouterr().out == (tmp_path / "a.txt").read_text()


def test_seed_and_temperature_change_the_sequences(log_dir, capsys):
    texts = []
    for flags in (["--seed", "1"], ["--seed", "2"], ["--seed", "1", "--temperature", "1e-6"], ["--seed", "1"]):
        assert call(sample.main, str(log_dir), *flags) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[3]
    assert len(set(texts)) == 3
    assert len(set(texts[2].splitlines())) == 1  # next to zero, every sequence is the most likely one


def test_a_reader_that_stops_reading_is_no_error(log_dir):
    command = f"'{warm_python()}' '{ROOT / 'sample.py'}' '{log_dir}' --num 30000 | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert len(done.stdout.split()) == 5
    assert done.stderr.startswith("drawn from ")
    assert done.stderr.count("\n") == 1


def test_parts_of_many_sequences_differ(log_dir, monkeypatch, capsys):
    monkeypatch.setattr("residual.model.AT_ONCE", 7)
    assert call(sample.main, str(log_dir), "--num", "20") == 0
    assert len(set(capsys.readouterr().out.splitlines())) > 15


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--out", "x.mp3"], ".txt, .npy"),
        (["--out", "folder"], ".txt, .npy"),
        (["--out", "x.mid"], ".txt, .npy"),
        (["--prime", "x.mid"], "only a run on music"),
        (["--out", "no/such/folder.txt"], "no folder"),
        (["--num", "0"], "at least 1"),
        (["--num", "99999999999"], "at most 2147483647"),
        (["--length", "99999999999"], "at most 2147483647"),
        (["--seed", str(2**63)], "at most 9223372036854775807"),
        (["--temperature", "0"], "at least 1e-06"),
        (["--temperature", "1e-38"], "at least 1e-06"),
        (["--device", "abacus"], "choose auto"),
    ],
)
def test_bad_input_ends_with_one_line(log_dir, capsys, flags, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(sample.main, str(log_dir), *flags) == 2
    assert_one_line_error(capsys, words)
    assert not list(tmp_path.iterdir())


def test_missing_and_broken_checkpoints_end_with_one_line(capsys, tmp_path):
    assert call(sample.main, str(tmp_path)) == 2
    assert_one_line_error(capsys, "no checkpoint at")
    (tmp_path / "last.pt").write_bytes(b"PK\x03\x04 broken")
    assert call(sample.main, str(tmp_path)) == 2
    assert_one_line_error(capsys, "not a readable checkpoint")


def test_files_are_overwritten_only_with_the_flag(log_dir, capsys, tmp_path):
    out = tmp_path / "a.txt"
    out.write_text("mine")
    assert call(sample.main, str(log_dir), "--out", str(out)) == 2
    assert_one_line_error(capsys, "exists")
    assert out.read_text() == "mine"
    assert call(sample.main, str(log_dir), "--out", str(out), "--overwrite") == 0
    assert len(out.read_text().splitlines()) == 10
