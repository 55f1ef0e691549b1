"""Zips of tunes: unpacked as they are, or refused."""

import os
import zipfile

import pytest
from helpers.cli import assert_one_line_error
from helpers.limits import at_most
from helpers.nasty_files import ZIPS, zip_of
from helpers.tunes import damage_zip, scale

from music import archive, corpus
from music.corpus import CorpusError, load_corpus
from music.midi import Grid
from support.errors import UserError

SECONDS, EIGHTH = Grid(), Grid("eighth")


@pytest.mark.parametrize(
    "name", ["../evil.mid", "tunes/../../evil.mid", "/evil.mid", "..\\evil.mid", "C:/evil.mid", "train/\x1b[2J.mid"]
)
def test_unsafe_zips_are_refused(tmp_path, name):
    path = tmp_path / "in/tunes.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("train/a.mid", scale())
        file.writestr(name, scale())
    with pytest.raises(CorpusError, match="not safe"):
        load_corpus(path, SECONDS, 0)
    with pytest.raises(UserError, match="not safe"):
        archive.unpack(path, tmp_path / "in/out")
    assert sorted(p.name for p in tmp_path.rglob("*.mid")) == []
    assert not (tmp_path / "in/out").exists()


REASONS = {
    "zip_of_a_large_tune": "train/a.mid: larger than 2,000,000 bytes",
    "zip_with_a_false_size": "train/a.mid: damaged or encrypted in the zip",
    "zip_in_bzip2": "train/a.mid: not compressed by deflate",
    "zip_in_lzma": "train/a.mid: not compressed by deflate",
    "zip_with_a_long_list": "readable zip: too many members",
    "zip_of_commands": "is not safe to unpack",
}


@pytest.mark.parametrize("name", ZIPS)
def test_no_zip_takes_more_time_or_memory_than_it_claims(tmp_path, name):
    path = tmp_path / "tunes.zip"
    path.write_bytes(ZIPS[name]())
    with at_most(seconds=5, megabytes=5):
        with pytest.raises(CorpusError, match=REASONS[name]):
            load_corpus(path, SECONDS, 0)
        with pytest.raises(UserError, match=REASONS[name]):
            archive.unpack(path, tmp_path / "out")
    assert not [file for file in tmp_path.iterdir() if file.name.startswith((".", "out"))]


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("MAX_MEMBERS", "more than 4 members"),
        ("MAX_UNPACKED", "more than 4 bytes of MIDI files"),
        ("MAX_ALL_FRAMES", "than 4 frames"),
    ],
)
def test_zips_of_more_than_a_data_set_are_refused(tmp_path, monkeypatch, limit, words):
    path = tmp_path / "tunes.zip"
    path.write_bytes(zip_of({f"{split}/{letter}.mid": scale() for split in corpus.SPLITS for letter in "ab"}))
    monkeypatch.setattr(corpus, limit, 4)
    with pytest.raises(CorpusError, match=words):
        load_corpus(path, SECONDS, 0)
    if limit != "MAX_ALL_FRAMES":
        with pytest.raises(UserError, match=words):
            archive.unpack(path, tmp_path / "out")


def test_a_pipe_is_no_zip(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.zip")
    with at_most(seconds=5):
        with pytest.raises(OSError, match="not a regular file"):
            load_corpus(tmp_path / "pipe.zip", SECONDS, 0)
        assert archive.main([str(tmp_path / "pipe.zip"), str(tmp_path / "out")]) == 2
    assert_one_line_error(capsys, "not a regular file", "pipe.zip")


def test_damaged_zips_are_refused(tmp_path):
    good = tmp_path / "tunes.zip"
    with zipfile.ZipFile(good, "w") as file:
        for split in corpus.SPLITS:
            file.writestr(f"{split}/a.mid", scale())
    (tmp_path / "cut.zip").write_bytes(good.read_bytes()[:-30])
    for path in (tmp_path / "cut.zip", tmp_path):
        with pytest.raises((CorpusError, UserError, OSError)):
            archive.unpack(path, tmp_path / "out")
    with pytest.raises(CorpusError, match="neither a folder nor a readable zip"):
        load_corpus(tmp_path / "cut.zip", SECONDS, 0)
    assert archive.unpack(good, tmp_path / "out") == {"train": 1, "valid": 1, "test": 1}
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("method", "kind", "reason"),
    [
        (zipfile.ZIP_STORED, "bytes", "damaged or encrypted in the zip"),
        (zipfile.ZIP_DEFLATED, "bytes", "damaged or encrypted in the zip"),
        (zipfile.ZIP_DEFLATED, "encrypted", "damaged or encrypted in the zip"),
        (zipfile.ZIP_DEFLATED, "compression", "not compressed by deflate"),
    ],
)
def test_a_damaged_member_of_a_zip_is_one_unreadable_tune(tmp_path, method, kind, reason):
    path = tmp_path / "tunes.zip"
    with zipfile.ZipFile(path, "w", method) as file:
        for name in ("train/a.mid", "train/b.mid", "valid/a.mid", "test/a.mid"):
            file.writestr(name, scale())
    damage_zip(path, "train/b.mid", kind)
    found = load_corpus(path, SECONDS, 0)
    assert found.names["train"] == ["train/a.mid"]
    assert found.skipped == [("train/b.mid", reason)]
    with pytest.raises(UserError, match=rf"train/b\.mid: {reason}"):
        archive.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_zips_with_a_broken_list_of_members_are_refused(tmp_path):
    path = tmp_path / "tunes.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("train/é.mid", scale())
    whole = path.read_bytes()
    entry = whole.index(b"PK\1\2")
    for damaged in (whole[: entry + 6] + b"\xff" + whole[entry + 7 :], whole.replace("é".encode(), b"\xff\xff")):
        path.write_bytes(damaged)
        with pytest.raises(CorpusError, match="readable zip"):
            load_corpus(path, SECONDS, 0)
        with pytest.raises(UserError, match="readable zip"):
            archive.unpack(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a.mid", "other/b.mid"], "holds no MIDI file in a folder train or valid or test"),
        (["train/a.mid", "test/a.mid", "valid/notes.txt"], "holds no MIDI file in a folder valid"),
        (
            ["one/train/a.mid", "two/train/a.mid", "test/a.mid", "valid/a.mid"],
            "two files for train/a.mid, one of them two/train/a.mid",
        ),
    ],
)
def test_zips_without_a_complete_split_are_refused(tmp_path, capsys, names, words):
    with zipfile.ZipFile(tmp_path / "tunes.zip", "w") as file:
        for name in names:
            file.writestr(name, scale())
    assert archive.main([str(tmp_path / "tunes.zip"), str(tmp_path / "data/tunes")]) == 2
    assert_one_line_error(capsys, words)
    assert list((tmp_path / "data").iterdir()) == []


def test_unpacking_keeps_subfolders_and_lets_others_read(tmp_path):
    names = ["train/a.mid", "train/one/a.mid", "train/two/test/a.mid", "valid/one/a.mid", "test/a.mid"]
    with zipfile.ZipFile(tmp_path / "tunes.zip", "w") as file:
        for i, name in enumerate(names):
            file.writestr(f"Nottingham/{name}", scale(40 + i))
    before = os.umask(0o027)
    try:
        counts = archive.unpack(tmp_path / "tunes.zip", tmp_path / "tunes")
    finally:
        os.umask(before)
    assert counts == {"train": 3, "valid": 1, "test": 1}
    folder = tmp_path / "tunes"
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.mid")) == sorted(names)
    assert {p.stat().st_mode & 0o777 for p in (folder, *folder.rglob("*"))} == {0o750, 0o640}
    one, two = (load_corpus(source, SECONDS, 0).tunes for source in (tmp_path / "tunes.zip", folder))
    assert {split: [len(t) for t in tunes] for split, tunes in one.items()} == {
        split: [len(t) for t in tunes] for split, tunes in two.items()
    }


def test_two_processes_may_unpack_at_once(tmp_path, monkeypatch):
    zipped, target = tmp_path / "tunes.zip", tmp_path / "data/tunes"
    with zipfile.ZipFile(zipped, "w") as file:
        for split in corpus.SPLITS:
            file.writestr(f"{split}/a.mid", scale())
    original = archive.read_tokens

    def begins_a_second_one(data, grid):
        monkeypatch.setattr(archive, "read_tokens", original)
        archive.unpack(zipped, target)
        return original(data, grid)

    monkeypatch.setattr(archive, "read_tokens", begins_a_second_one)
    assert archive.unpack(zipped, target) == {"train": 1, "valid": 1, "test": 1}
    assert sorted(p.name for p in target.iterdir()) == sorted(corpus.SPLITS)
    assert [p.name for p in target.parent.iterdir()] == ["tunes"]
