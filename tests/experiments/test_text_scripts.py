"""Poems and sentences from files, and the scripts of the paper's Tables 2 and 3."""

import importlib
import json
import os
import subprocess
import sys

import pytest
from helpers.cli import ROOT, assert_one_line_error, call
from helpers.fake_runs import write_run

import report

sys.path.append(str(ROOT / "experiments"))

poems = importlib.import_module("poems")
sentences = importlib.import_module("sentences")

QUATRAIN = "秦川雄帝宅，函谷壮皇居。绮殿千寻起，离宫百雉余。"


def test_poems_lose_blanks_and_punctuation_and_other_lengths_are_counted(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text(f"{' '.join(QUATRAIN)}\n{QUATRAIN}明\n\n")
    (tmp_path / "in/b.txt").write_text(QUATRAIN[::-1])
    out = tmp_path / "out.txt"
    assert call(poems.main, str(tmp_path / "in"), "--out", str(out)) == 0
    plain = QUATRAIN.replace("，", "").replace("。", "")
    assert out.read_text() == f"{plain}\n{plain[::-1]}\n"
    assert "2 poems of 20 characters; 1 of other lengths left out" in capsys.readouterr().out


def test_sentences_end_at_marks_and_empty_lines_and_are_counted(tmp_path, capsys):
    text = "Yes we can, and we\nwill! Short one.\n\nA heading without an end\n\nIs this  it? " + "word " * 21 + "end."
    (tmp_path / "a.txt").write_text(text)
    out = tmp_path / "out.txt"
    assert call(sentences.main, str(tmp_path / "a.txt"), "--out", str(out)) == 0
    assert out.read_text() == "Yes we can, and we will!\nA heading without an end\nIs this it?\n"
    assert "3 sentences of 3 to 20 words; 2 others left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "content", "words"),
    [
        (poems, "几\n".encode(), "no poem has 20 characters"),
        (poems, b"\xff", "not UTF-8 text: byte 0"),
        (sentences, b"No.", "no sentence has 3 to 20 words"),
        (sentences, None, "no text file"),
    ],
)
def test_bad_input_ends_with_one_line(command, content, words, tmp_path, capsys):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    assert call(command.main, str(tmp_path / "a.txt"), "--out", str(tmp_path / "out.txt")) == 2
    assert_one_line_error(capsys, words)
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize(("command", "text"), [(poems, QUATRAIN), (sentences, "It was a start.")])
def test_neither_the_users_texts_nor_another_file_are_replaced(command, text, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    source, out = tmp_path / "in/a.txt", tmp_path / "out.txt"
    source.write_text(text)
    out.write_text("mine")
    for given, told in ((source, "one of the texts"), (tmp_path / "in/b.txt", None), (tmp_path / "in/b.txt", "one of the texts")):
        assert call(command.main, str(tmp_path / "in"), "--out", str(given), "--overwrite") == (2 if told else 0)
        if told:
            assert_one_line_error(capsys, told)
        capsys.readouterr()
    assert source.read_text() == text
    assert call(command.main, str(source), "--out", str(out)) == 2
    assert_one_line_error(capsys, f"{out} exists: choose another name, or --overwrite")
    assert out.read_text() == "mine"
    assert call(command.main, str(source), "--out", str(out), "--overwrite") == 0
    assert out.read_text() != "mine"


# Stands for python: notes main.py's flags and leaves a finished run; everything else is run for real.
STUB = """#!{python}
import json, pathlib, subprocess, sys
sys.path[:0] = [{tests!r}]
from helpers.fake_runs import evaluation, write_run
script, flags = sys.argv[1], sys.argv[2:]
if not script.endswith("main.py"):
    sys.exit(subprocess.run([{python!r}, script, *flags]).returncode)
given = dict(zip(flags, flags[1:]))
with open("calls.jsonl", "a") as file:
    file.write(json.dumps(given) + "\\n")
numbers = {{"bleu2": 0.5, "bleu3": 0.3 + int(given["--seed"]) / 10, "bleu4": 0.2, "real_bleu2": 0.6}}
write_run(pathlib.Path(given["--log_dir"]), [evaluation(0, 1.0, 6.0, **numbers)], {{"nll_test": 6.0, **numbers}}, dataset="Text",
    seed=int(given["--seed"]))
"""


@pytest.mark.parametrize(
    ("script", "text", "table", "kind"),
    [("poems.sh", f"{QUATRAIN}\n" * 3, "0.667 | -0.167", "chars"), ("speeches.sh", "It was a start. " * 9, "0.519 |", "words")],
)
def test_the_scripts_train_every_row_once_and_print_the_paper_beside(script, text, table, kind, tmp_path):
    (tmp_path / "text.txt").write_text(text)
    stub = tmp_path / "python"
    stub.write_text(STUB.format(python=sys.executable, tests=str(ROOT / "tests")))
    stub.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if name not in ("RUNS", "ORACLE")}
    for expected in (3, 0):  # the second time everything is finished
        (tmp_path / "calls.jsonl").write_text("")
        done = subprocess.run(
            ["bash", str(ROOT / "experiments" / script), "text.txt", "--threads", "1"],
            cwd=tmp_path,
            env={**clean, "PYTHON": str(stub), "SEEDS": "2", "SWEEP": "no"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        calls = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
        assert len(calls) == expected
        assert table in done.stdout
        for given in calls:
            assert (given["--dataset"], given["--tokens"], given["--threads"]) == ("Text", kind, "1")
            assert (tmp_path / given["--data_path"]).is_file()
            assert ("--start_from" in given) == ("mle" not in given["--log_dir"])
    (tmp_path / "other.txt").write_text(text)
    environment = {**clean, "PYTHON": str(stub), "SEEDS": "2", "SWEEP": "no"}
    for name, status in (("other.txt", 2), (str(tmp_path / "text.txt"), 0)):  # the latter is the same by another name
        command = ["bash", str(ROOT / "experiments" / script), name]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == status
        assert done.stderr.count("\n") == (1 if status else 0)
        assert ("text.txt, " in done.stderr and "RUNS" in done.stderr) == bool(status)


def test_the_table_of_speeches_has_two_numbers_of_the_paper_and_the_real_lines(tmp_path, capsys):
    for seed in (1, 2):
        numbers = {"bleu3": 0.5 + seed / 100, "bleu4": 0.4 + seed / 100, "real_bleu3": 0.7, "nll_test": 4.0}
        row = {"phase": "adversarial", "epoch": 1, "step": 1, "bleu2": 0.6, **numbers}
        write_run(tmp_path / f"seqgan-{seed}", [row], seed=seed, dataset="Text")
    assert call(report.main, f"SeqGAN={tmp_path}/seqgan-*", "--table", "3") == 0
    out = capsys.readouterr().out
    assert "paper, BLEU-3 | difference, BLEU-3 | paper, BLEU-4 | difference, BLEU-4" in out
    assert "| 0.556 | -0.041 | 0.427 | -0.012 |" in out
    assert "real training data" in out and "0.700" in out
    assert call(report.main, f"SeqGAN={tmp_path}/seqgan-*") == 0  # by itself, without the paper's numbers
    assert "0.556" not in capsys.readouterr().out
