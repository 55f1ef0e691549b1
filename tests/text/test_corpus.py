"""Lines to numbers and back, splits, vocabularies, and text that can't be used."""

import os

import numpy as np
import pytest
from helpers.limits import at_most
from helpers.nasty_files import TEXTS, lines_of_large_numbers
from helpers.texts import LETTERS, NoBar, decoded, load, write
from hypothesis import given, settings
from hypothesis import strategies as st

from support.cache import read_cache, write_cache
from text import END, UNKNOWN, corpus
from text.corpus import SPLITS, CorpusError, Reading, load_corpus
from text.tokens import JOINER, SPLITTERS, split_characters
from text.vocabulary import Vocabulary


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


any_line = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\r\0"), max_size=40)


@settings(max_examples=300, deadline=None)
@given(any_line)
def test_characters_join_to_the_line(line):
    assert "".join(split_characters(line)) == line
    tokens = dict.fromkeys(split_characters(line))
    vocabulary = Vocabulary("chars", [t for t in tokens if t not in ("<end>", "<unk>")])
    assert vocabulary.decode(vocabulary.encode(line)[0]) == line


@settings(max_examples=300, deadline=None)
@given(st.lists(any_line, min_size=1, max_size=5))
def test_words_are_what_stands_between_blanks(words):
    line = " ".join(words)
    tokens = SPLITTERS["words"](line)
    assert JOINER["words"].join(tokens) == " ".join(part for part in line.replace("\t", " ").split(" ") if part)
    assert not any(" " in token or "\t" in token for token in tokens)


def test_a_reader_counts_one_character():
    for one in ("e\u0301", "👍🏽", "👨\u200d👩\u200d👧", "❤\ufe0f", "క్", "z\u0301\u0323"):
        assert split_characters(f"a{one}b") == ["a", one, "b"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n"), min_size=1), unique=True, max_size=9)
)
def test_a_vocabulary_survives_its_file(tokens):
    vocabulary = Vocabulary("chars", [token for token in tokens if token not in ("<end>", "<unk>")])
    again = Vocabulary.from_text("chars", vocabulary.to_text())
    assert again.tokens == vocabulary.tokens
    assert again.numbers == vocabulary.numbers


@pytest.mark.parametrize("text", ["", "a\nb\n", "<end>\n<unk>\na\na\n", "<end>\n<unk>\na"])
def test_other_files_are_no_vocabularies(text):
    with pytest.raises(ValueError, match="vocabulary"):
        Vocabulary.from_text("words", text)


@pytest.mark.parametrize(
    ("kind", "text"), [("letters", "<end>\n<unk>\na\n"), (["words"], "<end>\n"), (5, "a"), ("words", b"a"), ("words", 5)]
)
def test_a_vocabulary_of_another_type_is_none(kind, text):
    with pytest.raises(ValueError, match="not a vocabulary"):
        Vocabulary.from_text(kind, text)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_come_back_as_they_were(tmp_path, end):
    found = load(write(tmp_path / "a.txt", LETTERS, end))
    assert sorted(line for split in SPLITS for line in decoded(found, split)) == sorted(LETTERS)
    assert {split: len(found.lines[split]) for split in SPLITS} == {"train": 96, "valid": 12, "test": 12}
    assert found.lines["train"].dtype == np.uint8
    assert found.variable_length
    assert not load(tmp_path / "a.txt", seq_len=3).variable_length


def test_the_vocabulary_is_by_frequency_in_the_training_lines(tmp_path):
    write(tmp_path / "train.txt", ["a b b", "b c c", "d e <end>", "b <unk> e"])
    write(tmp_path / "valid.txt", ["z z z z z z"])
    write(tmp_path / "test.txt", ["a z"])
    assert load(tmp_path).vocabulary.tokens == ["<end>", "<unk>", "b", "c", "e", "a", "d"]
    assert load(tmp_path, min_count=2).vocabulary.tokens == ["<end>", "<unk>", "b", "c", "e"]
    assert load(tmp_path, max_vocab=4).vocabulary.tokens == ["<end>", "<unk>", "b", "c"]
    found = load(tmp_path, max_vocab=4)
    assert found.lines["train"][2].tolist() == [UNKNOWN, UNKNOWN, UNKNOWN, END, END, END]  # no word of the text ends a line


@pytest.mark.parametrize(
    ("long", "lines", "note"),
    [
        ("cut", ["1 2 3"], "cut to 3 tokens"),
        ("split", ["1 2 3", "4 5 6", "7"], "split into pieces of 3 tokens"),
        ("drop", [], "left out, having more than 3 tokens"),
    ],
)
def test_long_lines_are_cut_split_or_dropped_and_counted(tmp_path, long, lines, note):
    for split in SPLITS:
        write(tmp_path / f"{split}.txt", [f"{split} 8", "1 2 3 4 5 6 7" if split == "train" else f"{split} 9"])
    found = load(tmp_path, kind="words", seq_len=3, long=long)
    assert decoded(found, "train") == ["train 8", *lines]
    assert any(f"1 of 6 lines {note}" in each for each in found.notes)


def test_numbers_are_read_as_other_programs_write_them(tmp_path):
    found = load(write(tmp_path / "a.txt", [f"{i} {i + 7} 0{i % 3}" for i in range(30)]), kind="ids")
    assert set(found.vocabulary.tokens[2:]) <= {str(i) for i in range(37)}
    assert {line.split()[2] for line in decoded(found, "train")} <= {"0", "1", "2", "<unk>"}


@pytest.mark.parametrize(
    ("content", "changes", "words"),
    [
        (b"", {}, "no line of text"),
        (b"\n \n\n", {}, "no line of text"),
        (b"one line\n", {}, "1 different lines; a split into train, valid and test needs at least 3"),
        (b"a b\nc\0d\n", {}, "is not text: it has a zero byte at 5"),
        ("a b\nçé\n".encode("latin1"), {}, "is not UTF-8 text: byte 4, in line 2"),
        (b"\xef\xbb\xbfab\n\xff\n", {}, "is not UTF-8 text: byte 6, in line 2"),
        (b"1 2\n3 x\n", {"kind": "ids"}, "line 2: 'x' is not a whole number"),
        (b"1 2\n3 -4\n", {"kind": "ids"}, "line 2: '-4' is not a whole number"),
        (b"1 2\n3 1.5\n", {"kind": "ids"}, "line 2: '1.5' is not a whole number"),
        (b"a\na a\na a a\na a a a\n", {}, "fewer than 2 tokens"),
        (b"a b c\nd e f\ng h i\n", {"seq_len": 2, "long": "drop"}, "no line of at most --seq_len 2 tokens is left for train"),
        (b"a b\n" + b"x" * 1_000_000 + b"\nc d\n", {}, "line 2: longer than 100,000 bytes"),
    ],
)
def test_text_that_cannot_be_used_says_why(tmp_path, content, changes, words):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(CorpusError, match=words):
        load(tmp_path / "a.txt", **changes)


@pytest.mark.parametrize("name", TEXTS)
def test_no_text_takes_more_memory_than_a_line_may(tmp_path, name):
    content, kind = TEXTS[name]()
    (tmp_path / "a.txt").write_bytes(content)
    del content
    with (
        at_most(seconds=5, megabytes=5),
        pytest.raises(CorpusError, match=r"is not text|is not UTF-8|longer than 100,000 bytes") as caught,
    ):
        load(tmp_path / "a.txt", kind=kind)
    assert len(str(caught.value)) < 300


def test_the_longest_line_is_read_whole(tmp_path):
    longest = "x" * corpus.MAX_LINE_BYTES
    write(tmp_path / "train.txt", [f"\ufeff{longest}", longest, "a"], end="\r\n")
    for split in ("valid", "test"):
        write(tmp_path / f"{split}.txt", [f"of {split}"])
    assert load(tmp_path).vocabulary.tokens[2:] == [longest, "a"]
    (tmp_path / "b.txt").write_text(f"a\nb\n{longest}x")
    with pytest.raises(CorpusError, match="line 3: longer than"):
        load(tmp_path / "b.txt")


def test_large_numbers_are_tokens_like_others(tmp_path):
    (tmp_path / "a.txt").write_bytes(lines_of_large_numbers())
    found = load(tmp_path / "a.txt", kind="ids")
    assert {len(token) for token in found.vocabulary.tokens[2:]} == {1, 5_000}
    assert sum(len(lines) for lines in found.lines.values()) == 11


def test_pipes_and_other_files_that_have_no_end_are_refused(tmp_path):
    for split in ("valid", "test"):
        write(tmp_path / f"{split}.txt", LETTERS)
    os.mkfifo(tmp_path / "train.txt")
    with at_most(seconds=5):
        with pytest.raises(CorpusError, match=r"has valid\.txt and test\.txt, but no train\.txt"):
            load(tmp_path)
        for source in (tmp_path / "train.txt", "/dev/zero"):
            with pytest.raises(OSError, match="not a regular file"):
                load(tmp_path / source)


def test_sizes_that_no_line_has_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", LETTERS)
    with pytest.raises(CorpusError, match="no line has --seq_len 2147483647 tokens"):
        load(path, seq_len=2**31 - 1)
    assert len(load(path, max_vocab=2**31 - 1, min_count=1).vocabulary) == 18
    monkeypatch.setattr(corpus, "MAX_DIFFERENT", 10)
    with pytest.raises(CorpusError, match="more than 10 different tokens"):
        load(path, seq_len=5)


def test_folders_that_cannot_be_used_say_why(tmp_path):
    with pytest.raises(CorpusError, match="no text at"):
        load(tmp_path / "none")
    with pytest.raises(CorpusError, match=r"holds no \.txt file"):
        load(tmp_path)
    write(tmp_path / "train.txt", LETTERS)
    write(tmp_path / "test.txt", LETTERS)
    with pytest.raises(CorpusError, match=r"has train\.txt and test\.txt, but no valid\.txt"):
        load(tmp_path)
    write(tmp_path / "valid.txt", LETTERS)
    with pytest.raises(CorpusError, match="is left for train"):  # every line is in valid and test as well
        load(tmp_path)


def test_a_second_start_reads_the_cache_and_a_change_does_not(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", LETTERS)
    first = load(path)
    encode = corpus._encode
    monkeypatch.setattr(corpus, "_encode", lambda *_: 1 / 0)
    second = load(path)
    assert second.fingerprint() == first.fingerprint() and second.notes == first.notes
    with pytest.raises(ZeroDivisionError):
        load(path, seq_len=5)
    write(path, [*LETTERS, "new"])
    with pytest.raises(ZeroDivisionError):
        load(path)
    monkeypatch.setattr(corpus, "_encode", encode)
    load(path)
    for cache in (tmp_path / "cache/seqgan").iterdir():
        cache.write_bytes(b"broken")
    assert len(load(path).lines["train"]) == 97


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: {"test": arrays["test"] + 100},  # beyond the vocabulary
        lambda arrays: {"test": arrays["test"][:, :-1]},
        lambda arrays: {"test": arrays["test"][0]},
        lambda arrays: {"test": arrays["test"][:0]},
        lambda arrays: {"vocabulary": np.frombuffer(b"a\nb\n", dtype=np.uint8)},
        lambda arrays: {"vocabulary": np.frombuffer(b"<end>\n<unk>\n\xff\n", dtype=np.uint8)},
        lambda arrays: {"notes": np.frombuffer(b'["a", 5]', dtype=np.uint8)},
        lambda arrays: {"notes": np.frombuffer(b'{"a": 5}', dtype=np.uint8)},
        lambda arrays: {"notes": np.frombuffer(b"[" * 9999, dtype=np.uint8)},
        lambda arrays: {"other": arrays.pop("train")},
    ],
)
def test_a_cache_of_something_else_counts_as_none(tmp_path, change):
    """Its checksum is right: an earlier version, or another program, may have written it."""
    path = write(tmp_path / "a.txt", LETTERS)
    first = load(path)
    (cache,) = (tmp_path / "cache/seqgan").iterdir()
    whole = cache.read_bytes()
    arrays = read_cache(cache)
    arrays.update(change(arrays))
    write_cache(cache, arrays)
    assert cache.read_bytes() != whole
    again = load(path)
    assert again.fingerprint() == first.fingerprint() and again.notes == first.notes
    assert cache.read_bytes() == whole


def test_progress_counts_every_byte(tmp_path):
    bars = []
    path = write(tmp_path / "a.txt", LETTERS)
    load_corpus(path, Reading("words", 6), lambda size: bars.append(NoBar(size)) or bars[0])
    assert bars[0].total == path.stat().st_size
