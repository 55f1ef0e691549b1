"""Collections of tunes: folders and zips, their split, what is skipped, and the cache."""

import csv
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import ROOT
from helpers.limits import at_most
from helpers.nasty_files import midi_in_smpte_frames, midi_of_short_events
from helpers.tunes import scale, split_folder, tune

from music import corpus
from music.corpus import CorpusError, load_corpus, windows
from music.midi import Grid
from support.cache import read_cache, write_cache

SECONDS, EIGHTH = Grid(), Grid("eighth")


NOTTINGHAM = ROOT.parent / "shared/data/nottingham"


needs_nottingham = pytest.mark.skipif(not NOTTINGHAM.is_dir(), reason="needs the Nottingham tunes beside the project")


def test_a_folder_keeps_its_split(tmp_path):
    found = load_corpus(split_folder(tmp_path / "tunes"), SECONDS, 0)
    assert {split: len(tunes) for split, tunes in found.tunes.items()} == {"train": 3, "valid": 1, "test": 2}
    assert [len(tokens) for tokens in found.tunes["train"]] == [40, 41, 42]
    assert found.names["test"] == ["test/test_0.mid", "test/test_1.mid"]
    assert found.skipped == []


def test_a_folder_without_a_split_is_split_by_file(tmp_path):
    (tmp_path / "tunes").mkdir()
    for i in range(30):
        (tmp_path / "tunes" / f"{i:02d}.mid").write_bytes(scale(35 + i))
    one, two, other = (load_corpus(tmp_path / "tunes", SECONDS, seed) for seed in (1, 1, 2))
    assert {split: len(names) for split, names in one.names.items()} == {"train": 24, "valid": 3, "test": 3}
    assert sorted(name for names in one.names.values() for name in names) == [f"{i:02d}.mid" for i in range(30)]
    assert one.names == two.names
    assert one.names != other.names


def test_copies_of_a_tune_stay_together(tmp_path):
    (tmp_path / "tunes").mkdir()
    for i in range(30):
        (tmp_path / "tunes" / f"{i:02d}.mid").write_bytes(scale(35 + i % 10))
    for seed in range(3):
        found = load_corpus(tmp_path / "tunes", SECONDS, seed)
        assert {split: len(names) for split, names in found.names.items()} == {"train": 24, "valid": 3, "test": 3}
        lengths = [{len(tokens) for tokens in tunes} for tunes in found.tunes.values()]
        assert sum(map(len, lengths)) == len(set.union(*lengths)) == 10
    for path in sorted((tmp_path / "tunes").iterdir())[2:]:
        path.write_bytes(scale(35))
    with pytest.raises(CorpusError, match="holds 2 different tunes: a split into train, valid and test needs at least 3"):
        load_corpus(tmp_path / "tunes", SECONDS, 0)


def test_a_zip_reads_like_its_folder(tmp_path):
    folder = split_folder(tmp_path / "tunes")
    zipped = shutil.make_archive(str(tmp_path / "tunes"), "zip", tmp_path, "tunes")
    one, two = load_corpus(folder, SECONDS, 0), load_corpus(tmp_path / "tunes.zip", SECONDS, 0)
    assert zipped.endswith("tunes.zip")
    for split in corpus.SPLITS:
        assert [t.tolist() for t in one.tunes[split]] == [t.tolist() for t in two.tunes[split]]


def test_broken_files_among_good_ones_are_skipped_by_name(tmp_path):
    folder = split_folder(tmp_path / "tunes")
    (folder / "train/words.mid").write_text("la la la")
    (folder / "train/cut.mid").write_bytes(scale()[:50])
    (folder / "test/drums.mid").write_bytes(tune((40, 0, 1), drum=True))
    found = load_corpus(folder, SECONDS, 0)
    assert dict(found.skipped) == {
        "train/words.mid": "not a readable MIDI file",
        "train/cut.mid": "not a readable MIDI file",
        "test/drums.mid": "drums only",
    }
    assert len(found.tunes["train"]) == 3


def test_files_that_would_take_too_much_are_skipped_by_name(tmp_path):
    folder = split_folder(tmp_path / "tunes")
    with (folder / "train/sparse.mid").open("wb") as file:
        file.truncate(3 * 2**30)
    (folder / "train/events.mid").write_bytes(midi_of_short_events(500_000))
    (folder / "train/film.mid").write_bytes(midi_in_smpte_frames())
    os.mkfifo(folder / "train/pipe.mid")  # no file, as a folder named so would be none
    with at_most(seconds=5):
        found = load_corpus(folder, SECONDS, 0)
    assert dict(found.skipped) == {
        "train/sparse.mid": "larger than 2,000,000 bytes",
        "train/events.mid": "more than 200,000 events",
        "train/film.mid": "its times are in frames of a film, not in beats",
    }
    assert len(found.tunes["train"]) == 3


@pytest.mark.parametrize("zipped", [False, True])
def test_files_outside_the_split_are_left_out_and_named(tmp_path, zipped):
    folder = source = split_folder(tmp_path / "tunes/Nottingham").parent
    for name in ("a.mid", "Nottingham/b.mid", "Nottingham/extra/c.mid"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(scale())
    if zipped:
        source = shutil.make_archive(str(tmp_path / "zipped"), "zip", folder)
    found = load_corpus(Path(source), SECONDS, 0)
    assert {split: len(tunes) for split, tunes in found.tunes.items()} == {"train": 3, "valid": 1, "test": 2}
    assert all(f"/{split}/" in name for split in corpus.SPLITS for name in found.names[split])
    strays = ("Nottingham/b.mid", "Nottingham/extra/c.mid", "a.mid")
    assert sorted(found.skipped) == [(name, "outside the folders train, valid and test") for name in strays]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"valid": None}, "has train and test, but no folder valid with MIDI files"),
        ({"test": b"la"}, r"no usable MIDI file in test \(test/test_0.mid: not a readable MIDI file\)"),
        ({"train": b"la", "valid": None}, "no usable MIDI file in train .*, and no folder valid"),
        ({"valid": None, "test": None}, "has train, but no folder valid with MIDI files, and no folder test"),
    ],
)
def test_a_split_that_lacks_a_part_is_refused(tmp_path, broken, words):
    folder = split_folder(tmp_path / "tunes")
    for split, data in broken.items():
        for path in (folder / split).iterdir():
            path.unlink() if data is None else path.write_bytes(data)
    for i in range(4):
        (folder / f"stray_{i}.mid").write_bytes(scale())
    with pytest.raises(CorpusError, match=words):
        load_corpus(folder, SECONDS, 0)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no MIDI file"),
        ({"notes.txt": b"la"}, "holds no MIDI file"),
        ({"a.mid": b"la", "b.mid": b"la"}, "no usable MIDI file: a.mid: not a readable MIDI file and 1 more"),
        ({"a.mid": scale(), "b.mid": scale()}, "at least 3"),
    ],
)
def test_folders_without_data_are_refused_with_a_reason(tmp_path, files, words):
    (tmp_path / "tunes").mkdir()
    for name, data in files.items():
        (tmp_path / "tunes" / name).write_bytes(data)
    with pytest.raises(CorpusError, match=words):
        load_corpus(tmp_path / "tunes", SECONDS, 0)


def test_the_cache_notices_changed_files(tmp_path, monkeypatch):
    folder = split_folder(tmp_path / "tunes")
    reads = []
    original = corpus.read_tokens
    monkeypatch.setattr(corpus, "read_tokens", lambda data, grid: reads.append(1) or original(data, grid))
    (folder / "train/words.mid").write_text("la la la")
    first = load_corpus(folder, SECONDS, 0)
    assert len(reads) == 7
    second = load_corpus(folder, SECONDS, 0)
    assert len(reads) == 7
    assert [t.tolist() for t in first.tunes["train"]] == [t.tolist() for t in second.tunes["train"]]
    assert first.skipped == second.skipped
    (folder / "train/train_1.mid").write_bytes(scale(50))
    (folder / "train/new.mid").write_bytes(scale(60))
    (folder / "test/test_0.mid").unlink()
    third = load_corpus(folder, SECONDS, 0)
    assert len(reads) == 9
    assert sorted(len(t) for t in third.tunes["train"]) == [40, 42, 50, 60]
    assert len(third.tunes["test"]) == 1
    load_corpus(folder, EIGHTH, 0)
    assert len(reads) == 9 + 7
    for path in (tmp_path / "cache/seqgan").iterdir():
        path.write_bytes(b"broken")
    assert [t.tolist() for t in load_corpus(folder, SECONDS, 0).tunes["train"]] == [t.tolist() for t in third.tunes["train"]]


def test_files_that_could_not_be_read_are_tried_again(tmp_path, monkeypatch):
    folder = split_folder(tmp_path / "tunes")
    (folder / "train/words.mid").write_text("la la la")
    original, reads = corpus.read_regular, []

    def denied(path, limit):
        reads.append(path.name)
        if path.name == "train_1.mid":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path, limit)

    monkeypatch.setattr(corpus, "read_regular", denied)
    words = ("train/words.mid", "not a readable MIDI file")
    for num_reads in (7, 8):  # the second time only what could not be read
        found = load_corpus(folder, SECONDS, 0)
        assert sorted(found.skipped) == [("train/train_1.mid", "Permission denied"), words]
        assert len(reads) == num_reads
    monkeypatch.setattr(corpus, "read_regular", original)
    found = load_corpus(folder, SECONDS, 0)
    assert len(found.tunes["train"]) == 3
    assert found.skipped == [words]


def test_a_damaged_cache_is_rebuilt(tmp_path):
    folder = split_folder(tmp_path / "tunes")
    first = [t.tolist() for t in load_corpus(folder, SECONDS, 0).tunes["train"]]
    (cache,) = (tmp_path / "cache/seqgan").iterdir()
    whole = cache.read_bytes()
    for damaged in (b"", b"broken", whole[:-9], whole[:99], whole[:-1] + b"\0"):
        cache.write_bytes(damaged)
        assert [t.tolist() for t in load_corpus(folder, SECONDS, 0).tunes["train"]] == first
        assert cache.read_bytes() == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda index, tokens: (index, tokens + 60),  # no keys of a piano
        lambda index, tokens: (index, tokens.astype(np.uint16)),
        lambda index, tokens: (index, tokens.reshape(1, -1)),
        lambda index, tokens: (index, tokens[:-1]),
        lambda index, tokens: (index[:-1], tokens),
        lambda index, tokens: ([[5, *entry[1:]] for entry in index], tokens),
        lambda index, tokens: ([[name, stamp, -length, reason] for name, stamp, length, reason in index], tokens),
        lambda index, tokens: ([[*entry[:3], 7] for entry in index], tokens),
        lambda index, tokens: ([[*entry[:3], None] for entry in index], tokens),
        lambda index, tokens: ([[*entry[:2], 40.0, ""] for entry in index], tokens),
        lambda index, tokens: ({"a": 1}, tokens),
    ],
)
def test_a_cache_of_something_else_counts_as_none(tmp_path, change):
    """Its checksum is right: an earlier version, or another program, may have written it."""
    folder = split_folder(tmp_path / "tunes")
    first = load_corpus(folder, SECONDS, 0)
    (cache,) = (tmp_path / "cache/seqgan").iterdir()
    arrays = read_cache(cache)
    index, tokens = change(json.loads(arrays["index"].tobytes()), arrays["tokens"])
    write_cache(cache, {"index": np.frombuffer(json.dumps(index).encode(), dtype=np.uint8), "tokens": tokens})
    again = load_corpus(folder, SECONDS, 0)
    assert again.names == first.names and again.skipped == first.skipped
    for split in corpus.SPLITS:
        assert [t.tolist() for t in again.tunes[split]] == [t.tolist() for t in first.tunes[split]]


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(load_corpus(split_folder(tmp_path / "tunes"), SECONDS, 0).tunes["train"]) == 3


def test_windows_are_all_positions_of_every_tune():
    tunes = [np.arange(5, dtype=np.uint8), np.arange(10, 12, dtype=np.uint8), np.arange(20, 23, dtype=np.uint8)]
    assert windows(tunes, 3).tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [20, 21, 22]]
    assert windows(tunes, 2, stride=2).tolist() == [[0, 1], [2, 3], [10, 11], [20, 21]]
    assert windows(tunes, 9).shape == (0, 9)


@needs_nottingham
def test_nottingham_agrees_with_its_manifest():
    found = load_corpus(NOTTINGHAM / "Nottingham.zip", SECONDS, 0)
    tokens = {
        name.split("/", 1)[-1]: t for split in corpus.SPLITS for name, t in zip(found.names[split], found.tunes[split], strict=True)
    }
    rows = list(csv.DictReader((NOTTINGHAM / "MANIFEST.csv").open()))
    assert len(rows) == len(tokens) == 1037
    assert found.skipped == []
    for row in rows:
        t = tokens[f"{row['split']}/{row['file']}"]
        frames, sounding = int(row["melody_frames_0.4s"]), int(row["melody_sounding_frames_0.4s"])
        assert 0 <= len(t) - frames <= 1
        assert abs((t == 0).sum() - (frames - sounding)) <= 1
        pitches = t[t > 0].astype(int) + 20
        assert int(row["melody_lo"]) <= pitches.min()
        assert pitches.max() <= int(row["melody_hi"])


def test_a_folder_of_many_files_is_not_searched_to_its_end(tmp_path, monkeypatch):
    """A checkpoint may name the whole disk as the folder of its tunes."""
    source = split_folder(tmp_path / "tunes", train=1, valid=1, test=1)
    monkeypatch.setattr(corpus, "MAX_MEMBERS", 5)  # three folders and a file in each are six
    with pytest.raises(CorpusError, match="has more than 5 files and folders in it"):
        load_corpus(source, Grid(), 1)
