"""Which lines of a text are trained on: copies, cut and split lines, unknown words."""

import pytest
from helpers.texts import LETTERS, decoded, load, write

from text.splits import SPLITS, CorpusError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_split_is_seeded_and_equal_lines_stay_together(tmp_path):
    path = write(tmp_path / "a.txt", LETTERS + LETTERS[:60] + [f"{line} " for line in LETTERS[:30]])
    one, two, other = load(path, seed=1), load(path, seed=1), load(path, seed=2)
    assert decoded(one, "test") == decoded(two, "test") != decoded(other, "test")
    for found in (one, other):
        sets = [set(decoded(found, split)) for split in SPLITS]
        assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
        assert len(set.union(*sets)) == 120
        assert "90 lines occur before: copies are in the split of the first" in found.notes


def test_lines_that_are_the_same_once_cut_stay_together(tmp_path):
    path = write(tmp_path / "a.txt", [f"{line} {tail}" for line in LETTERS for tail in "xyz"])
    found = load(path, seq_len=3, long="cut")
    sets = [set(decoded(found, split)) for split in SPLITS]
    assert not sets[0] & sets[1] and not sets[0] & sets[2]


def test_a_given_split_is_kept_and_its_copies_leave_the_training_lines(tmp_path):
    write(tmp_path / "train.txt", ["a b", "c d", "e f", "a b", "c  d"])
    write(tmp_path / "valid.txt", ["a b", "v"])
    write(tmp_path / "test.txt", ["c d", "w c"])
    found = load(tmp_path)
    assert decoded(found, "train") == ["e f"]
    assert decoded(found, "valid") == ["<unk> <unk>", "<unk>"]  # the vocabulary is that of the training lines that are left
    assert found.notes[0] == "4 lines of train left out, as valid or test has them too"


def test_valid_has_no_line_of_test_as_it_chooses_the_epoch_that_is_kept(tmp_path):
    write(tmp_path / "train.txt", ["a b", "c d", "e f"])
    write(tmp_path / "valid.txt", ["e", "f e", "a"])
    write(tmp_path / "test.txt", ["f e", "b", "a"])
    found = load(tmp_path)
    assert [decoded(found, split) for split in SPLITS] == [["a b", "c d", "e f"], ["e"], ["f e", "b", "a"]]
    assert found.notes == ["2 lines of valid left out, as test has them too"]
    write(tmp_path / "valid.txt", ["b", "a"])
    with pytest.raises(CorpusError, match="no line is left for valid; 2 lines of valid left out, as test has them too"):
        load(tmp_path)


def test_held_out_lines_that_unknown_words_make_equal_to_training_lines_are_left_out(tmp_path):
    write(tmp_path / "train.txt", ["page one is here", "page two is here", "a page is here", "one is two"])
    write(tmp_path / "valid.txt", ["page three is here", "here is a page", "is nine"])
    write(tmp_path / "test.txt", ["page four is here", "a is here", "is ten"])
    found = load(tmp_path, min_count=2)
    assert found.vocabulary.tokens[2:] == ["is", "page", "here", "one", "two"]
    found = load(tmp_path, min_count=3)
    assert found.vocabulary.tokens[2:] == ["is", "page", "here"]
    assert decoded(found, "train") == ["page <unk> is here"] * 2 + ["<unk> page is here", "<unk> is <unk>"]
    assert decoded(found, "valid") == ["here is <unk> page", "is <unk>"]
    assert decoded(found, "test") == ["<unk> is here", "is <unk>"]
    for split in ("valid", "test"):
        assert f"1 lines of {split} left out, as with <unk> they are training lines" in found.notes
    write(tmp_path / "test.txt", ["page five is here"])
    with pytest.raises(CorpusError, match=r"no line is left for test; .*with <unk> they are training lines"):
        load(tmp_path, min_count=3)


def test_pieces_of_long_lines_are_in_one_split_only(tmp_path):
    write(tmp_path / "train.txt", ["a b c d e f", "a b", "g h", "d e f"])
    write(tmp_path / "valid.txt", ["x y z a b c", "g h i"])
    write(tmp_path / "test.txt", ["d e f x y z"])
    found = load(tmp_path, kind="words", seq_len=3, long="split")
    assert decoded(found, "train") == ["a b", "g h"]  # lines that go on otherwise are no copies
    assert [len(found.lines[split]) for split in SPLITS] == [2, 2, 2]
    assert "3 pieces of train left out, as valid or test has them too" in found.notes
    assert "1 pieces of valid left out, as test has them too" in found.notes
