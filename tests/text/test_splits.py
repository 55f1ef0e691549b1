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
    others = [["page", "is", "here"][i % 3] + " is" * (i // 3 + 1) for i in range(12)]
    write(tmp_path / "valid.txt", ["page three is here", *(f"{line} page" for line in others)])
    write(tmp_path / "test.txt", ["page four is here", *(f"{line} here" for line in others)])
    found = load(tmp_path, min_count=2)
    assert [len(found.lines[split]) for split in SPLITS] == [4, 13, 13]
    found = load(tmp_path, min_count=3)
    assert found.vocabulary.tokens[2:] == ["is", "page", "here"]
    assert decoded(found, "train") == ["page <unk> is here"] * 2 + ["<unk> page is here", "<unk> is <unk>"]
    for split, word in (("valid", "page"), ("test", "here")):
        assert decoded(found, split) == [" ".join(f"{line} {word}".split()[:6]) for line in others]
        assert f"1 sequences of {split} left out, as with <unk> or as pieces they are training sequences" in found.notes


def test_where_much_of_valid_or_test_would_be_left_out_it_stays(tmp_path):
    """What is left would be the unusual lines, by which epochs would be chosen."""
    write(tmp_path / "train.txt", ["a b c a b c", "c a b"])
    write(tmp_path / "valid.txt", ["b b a b c", "c c"])
    write(tmp_path / "test.txt", ["a b c c c c"])
    found = load(tmp_path, seq_len=3, long="split")
    assert decoded(found, "train") == ["a b c", "a b c", "c a b"]
    assert (decoded(found, "valid"), decoded(found, "test")) == (["b b a", "b c", "c c"], ["a b c", "c c c"])
    assert "50 % of test are training sequences too, being short or of few tokens; they stay" in found.notes


def test_pieces_of_held_out_lines_that_are_training_pieces_are_left_out(tmp_path):
    write(tmp_path / "train.txt", ["a b c d e f", "a b", "g h"])
    write(tmp_path / "valid.txt", ["x y z a b c", *(f"{i} {i}" for i in range(10))])
    write(tmp_path / "test.txt", ["u v w", "y", *(f"{i} {i} {i}" for i in range(10))])
    found = load(tmp_path, seq_len=3, long="split")
    assert decoded(found, "train") == ["a b c", "d e f", "a b", "g h"]
    assert [len(found.lines[split]) for split in SPLITS] == [4, 11, 12]
    assert "1 sequences of valid left out, as with <unk> or as pieces they are training sequences" in found.notes
