"""`python sample.py` on a run on music."""

import os

import mido
import numpy as np
import pytest
from helpers.cli import assert_one_line_error, call, snapshot
from helpers.limits import at_most
from helpers.tunes import scale, tune

import sample
from music.midi import Grid, read_tokens


def test_sample_writes_songs(finished, tmp_path):
    run_folder = str(finished / "train")
    assert call(sample.main, run_folder, "--num", "3", "--out", str(tmp_path / "songs")) == 0
    assert sorted(p.name for p in (tmp_path / "songs").iterdir()) == ["song_01.mid", "song_02.mid", "song_03.mid"]
    assert call(sample.main, run_folder, "--length", "50", "--out", str(tmp_path / "long.mid")) == 0
    assert len(read_tokens(tmp_path / "long.mid", Grid())) == 50
    assert mido.MidiFile(tmp_path / "long.mid").length == pytest.approx(20, abs=0.01)


def test_overwrite_removes_all_earlier_songs_and_no_other_file(finished, tmp_path):
    out = tmp_path / "songs"
    flags = [str(finished / "train"), "--out", str(out), "--overwrite"]
    for num in ("100", "12", "10"):
        assert call(sample.main, *flags, "--num", num) == 0
        assert len(list(out.iterdir())) == int(num)
    mine = ["song_1.mid", "song_best.mid", "song_00.mid", "song_03.mid.bak", "my_song_03.mid", "notes.txt"]
    for name in mine:
        (out / name).write_text("mine")
    assert call(sample.main, *flags, "--num", "2") == 0
    assert sorted(p.name for p in out.iterdir()) == sorted(["song_01.mid", "song_02.mid", *mine])
    assert all((out / name).read_text() == "mine" for name in mine)


def test_sample_continues_a_given_melody(finished, tmp_path):
    (tmp_path / "prime.mid").write_bytes(scale(6, 70))
    prime = read_tokens(tmp_path / "prime.mid", Grid()).tolist()
    for name, flags in (("a.npy", []), ("b.npy", ["--length", "20"])):
        flags = ["--num", "30", "--prime", str(tmp_path / "prime.mid"), "--out", str(tmp_path / name), *flags]
        assert call(sample.main, str(finished / "train"), *flags) == 0
    tokens = np.load(tmp_path / "a.npy")
    assert tokens.shape == (30, 6 + 8)
    assert np.load(tmp_path / "b.npy").shape == (30, 20)
    assert all(row[:6].tolist() == prime for row in tokens)
    assert len({tuple(row[6:]) for row in tokens.tolist()}) > 20


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--out", "a.mid", "--num", "2"], "holds one sequence"),
        (["--out", "a.wav"], "must end in"),
        (["--prime", "none.mid"], "--prime none.mid: No such file or directory; of a run on music it names a MIDI file"),
        (["--prime", "words.mid"], "not a readable MIDI file"),
        (["--prime", "tune.mid", "--length", "5"], "leaves nothing to add"),
        (["--out", "full"], "exists"),
    ],
)
def test_bad_flags_end_with_one_line_and_write_nothing(finished, tmp_path, monkeypatch, capsys, flags, words):
    (tmp_path / "words.mid").write_text("la la la")
    (tmp_path / "tune.mid").write_bytes(scale(5))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    assert call(sample.main, str(finished / "train"), *flags) == 2
    assert_one_line_error(capsys, words)
    assert snapshot(tmp_path) == before


def test_a_pipe_to_go_on_from_is_refused_at_once(finished, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.mid")
    with at_most(seconds=20):
        assert call(sample.main, str(finished / "train"), "--prime", str(tmp_path / "pipe.mid")) == 2
    assert_one_line_error(capsys, "not a regular file", "pipe.mid")


def test_a_beginning_of_hours_is_refused(finished, tmp_path, capsys):
    (tmp_path / "long.mid").write_bytes(tune((60, 0, 5000)))
    assert call(sample.main, str(finished / "train"), "--prime", str(tmp_path / "long.mid")) == 2
    assert_one_line_error(capsys, "long.mid: longer than 10,000 frames")
