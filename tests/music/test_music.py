"""MIDI to tokens and back, collections of tunes, and what is measured on them."""

import csv
import errno
import io
import os
import random
import shutil
import zipfile
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest
from helpers.cli import ROOT, assert_one_line_error
from helpers.tunes import scale, split_folder, tune

from music import VOCAB_SIZE, archive, corpus, measures
from music.corpus import CorpusError, load_corpus, windows
from music.midi import Grid, MidiError, decode, midi_bytes, read_tokens
from music.show import SAMPLE_RATE, note_names, piano_rolls, sound
from support.errors import UserError

SECONDS, EIGHTH = Grid(), Grid("eighth")
NOTTINGHAM = ROOT.parent / "shared/data/nottingham"
needs_nottingham = pytest.mark.skipif(not NOTTINGHAM.is_dir(), reason="needs the Nottingham tunes beside the project")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("grid", [SECONDS, EIGHTH, Grid("seconds", 0.1), Grid("seconds", 0.37)])
def test_every_token_sequence_round_trips(grid):
    rng = np.random.default_rng(0)
    cases = [rng.integers(0, high, size).tolist() for high in (2, 3, VOCAB_SIZE) for size in (1, 2, 32, 200) for _ in range(5)]
    cases += [[], [0], [0, 0, 0], [5, 0, 0], [0, 0, 5], [88] * 9, list(range(VOCAB_SIZE))]
    for tokens in cases:
        assert read_tokens(midi_bytes(np.array(tokens, dtype=int), grid), grid).tolist() == tokens


@pytest.mark.parametrize("grid", [SECONDS, EIGHTH])
def test_songs_are_as_another_reader_sees_them(grid):
    """mido: notes within the piano, longer than nothing, in one voice, and the whole T frames long."""
    tokens = np.random.default_rng(1).integers(0, VOCAB_SIZE, 32)
    tokens[-3:] = 0
    song = mido.MidiFile(file=io.BytesIO(midi_bytes(tokens, grid)))
    assert song.length == pytest.approx(32 * grid.seconds, abs=0.01)
    now, sounding, notes = 0.0, {}, []
    for message in song:
        now += message.time
        if message.type == "note_on" and message.velocity:
            sounding[message.note] = now
        elif message.type in ("note_on", "note_off"):
            notes.append((message.note, sounding.pop(message.note), now))
    assert not sounding
    assert all(21 <= note <= 108 for note, _, _ in notes)
    assert all(end - start > 0.9 * grid.seconds for _, start, end in notes)
    changes = np.flatnonzero(np.diff(tokens, prepend=-1))
    assert [note - 20 for note, _, _ in sorted(notes, key=lambda n: n[1])] == [t for t in tokens[changes] if t]


def test_equal_neighbours_become_one_held_note():
    notes = decode(np.array([0, 40, 40, 40, 0, 40, 41]), SECONDS).instruments[0].notes
    assert [(n.pitch, round(n.start, 3), round(n.end, 3)) for n in notes] == [(60, 0.4, 1.6), (60, 2.0, 2.4), (61, 2.4, 2.8)]


def test_a_frame_holds_what_sounds_at_its_start():
    data = tune((60, 0.0, 0.39), (62, 0.41, 0.79), (64, 0.9, 1.1), (65, 1.25, 2.0))
    assert read_tokens(data, SECONDS).tolist() == [40, 42, 0, 0, 45]


def test_the_highest_of_several_notes_is_the_melody():
    assert read_tokens(tune((60, 0, 1.2), (72, 0.4, 0.8), (50, 0, 1.2)), SECONDS).tolist() == [40, 52, 40]


def test_notes_off_the_piano_are_rests():
    assert read_tokens(tune((20, 0, 0.4), (21, 0.4, 0.8), (108, 0.8, 1.2), (109, 1.2, 1.6)), SECONDS).tolist() == [0, 1, 88, 0]


def test_eighth_notes_follow_the_tempo():
    midi = pretty_midi.PrettyMIDI(initial_tempo=90)
    piano = pretty_midi.Instrument(0)
    eighth = 60 / 90 / 2
    piano.notes = [pretty_midi.Note(90, 60 + i, i * eighth, (i + 1) * eighth) for i in range(12)]
    midi.instruments.append(piano)
    data = io.BytesIO()
    midi.write(data)
    assert read_tokens(data.getvalue(), EIGHTH).tolist() == [40 + i for i in range(12)]


@pytest.mark.parametrize("tokens", [[-1], [89], [0, 500]])
def test_tokens_that_are_no_notes_are_refused(tokens):
    with pytest.raises(ValueError, match="0 to 88"):
        decode(np.array(tokens), SECONDS)


def test_frames_too_short_for_midi_are_refused():
    with pytest.raises(ValueError, match="too short"):
        decode(np.array([1]), Grid("seconds", 0.001))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a readable"),
        (b"La la la, a song in words\n" * 20, "not a readable"),
        (scale()[:60], "not a readable"),
        (tune(), "no notes"),
        (tune((40, 0, 1), drum=True), "drums only"),
    ],
)
def test_files_without_a_melody_say_why(data, reason):
    with pytest.raises(MidiError, match=reason):
        read_tokens(data, SECONDS)


def test_500_corruptions_never_end_in_a_traceback():
    rng = random.Random(0)
    originals = [scale(), tune((60, 0, 1), (64, 1, 2)), midi_bytes(np.arange(30), EIGHTH)]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(500):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.choice([1, 2, 5, 20])):
            kind, place = rng.randrange(4), rng.randrange(len(data))
            if kind == 0:
                data[place] = rng.randrange(256)
            elif kind == 1:
                del data[max(1, place) : place + rng.randrange(1, 9)]
            elif kind == 2:
                data[place:place] = rng.randbytes(rng.randrange(1, 9))
            else:
                data = data[: max(30, place)]
        try:
            tokens = read_tokens(bytes(data), rng.choice([SECONDS, EIGHTH]))
            assert tokens.max(initial=0) < VOCAB_SIZE
            outcomes["read"] += 1
        except MidiError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 5  # the corruptions are neither all harmless nor all fatal


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


@pytest.mark.parametrize("zipped", [False, True])
def test_strays_beside_a_split_are_left_out_and_named(tmp_path, zipped):
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
def test_folders_without_data_say_what_is_wrong(tmp_path, files, words):
    (tmp_path / "tunes").mkdir()
    for name, data in files.items():
        (tmp_path / "tunes" / name).write_bytes(data)
    with pytest.raises(CorpusError, match=words):
        load_corpus(tmp_path / "tunes", SECONDS, 0)


@pytest.mark.parametrize("name", ["../evil.mid", "tunes/../../evil.mid", "/evil.mid", "..\\evil.mid", "C:/evil.mid"])
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


def damage(path, name, kind):
    """Overwrite a member of a zip where it lies, or say of it that it is encrypted or of an unknown compression."""
    with zipfile.ZipFile(path) as file:
        info, start_of_list = file.getinfo(name), file.start_dir
    data = bytearray(path.read_bytes())
    entry = next(
        i for i in range(start_of_list, len(data)) if data[i : i + 4] == b"PK\1\2" and data[i + 46 :].startswith(name.encode())
    )
    if kind == "bytes":
        first = info.header_offset + 30 + len(name)
        data[first : first + info.compress_size] = b"\xff" * info.compress_size
    elif kind == "encrypted":
        data[entry + 8] |= 1
        data[info.header_offset + 6] |= 1
    elif kind == "compression":
        data[entry + 10] = data[info.header_offset + 8] = 97
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        *((method, "bytes") for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)),
        (zipfile.ZIP_DEFLATED, "encrypted"),
        (zipfile.ZIP_DEFLATED, "compression"),
    ],
)
def test_a_damaged_member_of_a_zip_is_one_unreadable_tune(tmp_path, method, kind):
    path = tmp_path / "tunes.zip"
    with zipfile.ZipFile(path, "w", method) as file:
        for name in ("train/a.mid", "train/b.mid", "valid/a.mid", "test/a.mid"):
            file.writestr(name, scale())
    damage(path, "train/b.mid", kind)
    found = load_corpus(path, SECONDS, 0)
    assert found.names["train"] == ["train/a.mid"]
    assert found.skipped == [("train/b.mid", "damaged or encrypted in the zip")]
    with pytest.raises(UserError, match=r"train/b\.mid: damaged or encrypted"):
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
def test_zips_that_would_make_an_unfit_folder_are_refused(tmp_path, capsys, names, words):
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


def test_two_runs_may_unpack_at_once(tmp_path, monkeypatch):
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


def test_the_cache_notices_changes(tmp_path, monkeypatch):
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
    original, reads = Path.read_bytes, []

    def denied(path):
        reads.append(path.name)
        if path.name == "train_1.mid":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", denied)
    words = ("train/words.mid", "not a readable MIDI file")
    for num_reads in (7, 8):  # the second time only what could not be read
        found = load_corpus(folder, SECONDS, 0)
        assert sorted(found.skipped) == [("train/train_1.mid", "Permission denied"), words]
        assert len(reads) == num_reads
    monkeypatch.setattr(Path, "read_bytes", original)
    found = load_corpus(folder, SECONDS, 0)
    assert len(found.tunes["train"]) == 3
    assert found.skipped == [words]


def test_a_damaged_cache_is_built_anew(tmp_path):
    folder = split_folder(tmp_path / "tunes")
    first = [t.tolist() for t in load_corpus(folder, SECONDS, 0).tunes["train"]]
    cache = corpus.cache_file(folder, SECONDS)
    whole = cache.read_bytes()
    damage(cache, "index.npy", "bytes")
    overwritten = cache.read_bytes()
    for damaged in (b"", b"broken", whole[:-9], whole[:99], overwritten):
        cache.write_bytes(damaged)
        assert [t.tolist() for t in load_corpus(folder, SECONDS, 0).tunes["train"]] == first
        assert len(corpus._read_cache(cache)) == 6


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
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


def test_framewise_mse_is_the_mean_over_all_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, (6, 4)), rng.integers(0, 9, (5, 4))
    pairs = [(x - y) ** 2 for t in range(4) for x in a[:, t] for y in b[:, t] if x and y]
    assert measures.framewise_mse(a, b) == pytest.approx(np.mean(pairs))
    assert np.isnan(measures.framewise_mse(np.zeros((2, 3), int), b[:, :3]))


def test_histograms_count_what_they_say():
    tokens = np.array([[40, 40, 42, 0, 40, 52], [1, 88, 0, 0, 4, 3]])
    classes = measures.pitch_class_histogram(tokens)
    assert classes.sum() == pytest.approx(1)
    assert classes[0] == pytest.approx(6 / 9)  # 40 and 52 are C4 and C5, 88 is C8, 4 is C1
    steps = measures.interval_histogram(tokens)  # +2, then +12 after the rest; +87 and −1 in the other
    assert {i - 12: round(v, 3) for i, v in enumerate(steps) if v} == {2: 0.25, 12: 0.5, -1: 0.25}
    assert measures.total_variation(steps, steps) == 0
    assert measures.total_variation(np.array([1, 0]), np.array([0, 1])) == 1


def test_copies_are_whole_windows():
    training = np.array([[1, 2, 3], [4, 5, 6]])
    assert measures.copied_share(np.array([[1, 2, 3], [1, 2, 4], [4, 5, 6], [2, 3, 4]]), training) == 0.5


def test_sound_has_the_songs_length_and_pitch():
    wave = sound(np.array([49] * 5 + [0] * 5), SECONDS)  # A4, 2 s, then 2 s of silence
    assert wave.dtype == np.float32
    assert len(wave) == 4 * SAMPLE_RATE
    assert 0.1 < np.abs(wave).max() <= 1
    spectrum = np.abs(np.fft.rfft(wave[: 2 * SAMPLE_RATE]))
    assert spectrum.argmax() / 2 == pytest.approx(440, abs=3)
    assert np.abs(wave[int(2.5 * SAMPLE_RATE) :]).max() < 0.02
    assert not sound(np.zeros(3, int), SECONDS).any()


def test_piano_rolls_show_each_note_where_it_belongs():
    image = piano_rolls(np.array([[0, 60, 37], [49, 49, 49]]))
    assert image.shape == (2 * 24 * 4 + 6, 3 * 12)  # two tunes, two octaves from token 37 on
    assert (image[:4, 12:24] == 0).all()  # token 60 in frame 2, on top
    assert (image[92:96, 24:] == 0).all()  # token 37 in frame 3, at the bottom
    assert (image[:96, :12] > 200).all()  # a rest
    assert (image[102 + 44 : 102 + 48] == 0).all()  # token 49, held
    assert piano_rolls(np.zeros((1, 4), int)).min() > 200


def test_note_names():
    assert note_names(np.array([40, 0, 1, 88])) == "C4 . A0 C8"
