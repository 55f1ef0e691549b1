"""Names from strangers in messages."""

import pytest
from helpers.cli import call, folders, run
from helpers.tunes import MUSIC, split_folder

import main
from support.one_line import one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two  lines\n of text", "two lines of text"),
        ("ü 曲 ♪", "ü 曲 ♪"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\u202eb\udcff", r"a\u202eb\udcff"),
    ],
)
def test_a_text_on_one_line_cannot_steer_a_terminal(text, shown):
    assert one_line(text) == shown


def test_names_of_files_are_escaped_in_errors_and_notes(tmp_path, capsys):
    tunes = split_folder(tmp_path / "tunes")
    (tunes / "train/\x1b[2J.mid").write_bytes(b"no tune")
    flags = [*MUSIC, "--data_dir", str(tunes), "--pretrain_g_epochs", "1", "--total_epochs", "0", *folders(tmp_path)]
    assert run(*flags) == 0
    assert r"train/\x1b[2J.mid (not a readable MIDI file)" in capsys.readouterr().err
    assert call(main.main, "--data_dir", "a\x1b[2Jb", "--dataset", "Nottingham", *folders(tmp_path / "x")) == 2
    assert r"a\x1b[2Jb" in capsys.readouterr().err
