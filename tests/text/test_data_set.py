"""Runs on text, from the lines to the lines that come out, at tiny sizes."""

import math

import numpy as np
import pytest
import torch
from helpers.cli import assert_one_line_error, call, folders, json_lines, run, same, scalars, snapshot, trained_state
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

import main
import sample
from data_loader import make_data
from generator import Generator
from running.settings import resolve
from text import END, measures

SHORT = "--pretrain_g_epochs 5 --pretrain_d_epochs 2 --total_epochs 3 --eval_every 2 --sample_every 4 --save_every 2".split()
WORDS = [f"the {a} {b}" + " again" * (i % 3) for i, (a, b) in enumerate((a, b) for a in ("cat", "dog", "cow") for b in "abcdefgh")]


@pytest.fixture(autouse=True)
def _own_cache_and_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """A file of lines of 3 to 5 words, each line twice."""
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    path.write_text("".join(f"{line}\n" for line in WORDS * 2))
    return path


@pytest.fixture(scope="module")
def vocab(lines):
    """The size of their vocabulary: the tiny runs give another one, which a text would refuse."""
    launch = resolve({"dataset": "Text", "data_path": str(lines), "seq_len": 5})
    return str(launch.args.vocab_size)


@pytest.fixture(scope="module")
def finished(lines, vocab, tmp_path_factory):
    """A short run: `train` and `eval` below its folder."""
    folder = tmp_path_factory.mktemp("run")
    assert run("--dataset", "Text", "--vocab_size", vocab, *SHORT, "--data_path", str(lines), *folders(folder)) == 0
    return folder


def test_a_run_measures_and_keeps_what_the_docs_say(finished, vocab):
    rows = json_lines(finished / "train/metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 2, 4, 5, 6, 8]
    likeness = {*(f"bleu{n}" for n in (2, 3, 4, 5)), *(f"self_bleu{n}" for n in (2, 3, 4, 5))}
    likeness |= {*(f"distinct{n}" for n in (1, 2, 3, 4)), "distinct_tokens", "length", "length_distance"}
    expected = {"nll_test", "nll_test_error", "nll_test_line", "perplexity", "entropy_g", "copied", *likeness}
    for row in rows:
        assert expected | {f"real_{name}" for name in likeness} <= row.keys()
        assert row["perplexity"] == pytest.approx(math.exp(row["nll_test"]))
        assert "nll_oracle" not in row
    assert sorted(scalars(finished / "eval"))[0] == "nll_test"
    vocabulary = (finished / "train/vocabulary.txt").read_text().splitlines()
    assert vocabulary[:3] == ["<end>", "<unk>", "the"]
    assert len(vocabulary) == int(vocab)
    kept = sorted(path.name for path in (finished / "train/samples").iterdir())
    assert kept == ["best.txt", "epoch_0004.txt", "epoch_0005.txt", "epoch_0008.txt", "last.txt"]
    text = (finished / "train/samples/epoch_0008.txt").read_text().splitlines()
    assert len(text) == 20
    assert {word for line in text for word in line.split()} <= set(vocabulary[1:])


def test_a_stopped_run_resumes_to_the_same_end(lines, vocab, finished, tmp_path):
    flags = ["--dataset", "Text", "--vocab_size", vocab, *SHORT, "--data_path", str(lines), *folders(tmp_path)]
    assert run(*flags, "--total_epochs", "0") == 0
    assert call(main.main, "--resume", "--log_dir", str(tmp_path / "train"), "--total_epochs", "3") == 0
    assert same(trained_state(tmp_path / "train"), trained_state(finished / "train"))
    assert json_lines(tmp_path / "train/metrics.jsonl") == json_lines(finished / "train/metrics.jsonl")


def test_a_run_goes_on_only_with_its_own_text(lines, vocab, tmp_path, capsys):
    path = tmp_path / "mine.txt"
    path.write_bytes(lines.read_bytes())
    flags = ["--dataset", "Text", "--vocab_size", vocab, "--pretrain_g_epochs", "2", "--total_epochs", "0"]
    assert run(*flags, "--data_path", str(path), *folders(tmp_path)) == 0
    moved = path.rename(tmp_path / "moved.txt")
    again = ["--resume", "--log_dir", str(tmp_path / "train"), "--pretrain_g_epochs", "4"]
    capsys.readouterr()
    assert call(main.main, *again) == 2
    assert_one_line_error(capsys, "no text at")
    assert call(main.main, *again, "--data_path", str(moved)) == 0
    moved.write_text(moved.read_text().replace("cat", "hen"))
    before = snapshot(tmp_path / "train")
    capsys.readouterr()
    assert call(main.main, *again[:-1], "6", "--data_path", str(moved)) == 2
    assert_one_line_error(capsys, "not the text that this run began with")
    assert snapshot(tmp_path / "train") == before


def test_samples_are_lines_in_the_words_of_the_text(finished, tmp_path, capsys):
    log_dir = str(finished / "train")
    assert call(sample.main, log_dir, "--num", "30", "--out", str(tmp_path / "a.txt")) == 0
    assert call(sample.main, log_dir, "--num", "30", "--out", str(tmp_path / "ids.txt"), "--ids") == 0
    assert call(sample.main, log_dir, "--num", "30", "--out", str(tmp_path / "ids.npy")) == 0
    vocabulary = (finished / "train/vocabulary.txt").read_text().splitlines()
    numbers = np.load(tmp_path / "ids.npy")
    assert [list(map(int, line.split())) for line in (tmp_path / "ids.txt").read_text().splitlines()] == numbers.tolist()
    expected = [" ".join(vocabulary[n] for n in row[: measures.lengths_of(row[None])[0]]) for row in numbers]
    assert (tmp_path / "a.txt").read_text().splitlines() == expected
    assert len({len(line.split()) for line in expected}) > 1


def test_samples_go_on_from_a_beginning_whose_unknown_words_are_named(finished, capsys):
    log_dir = str(finished / "train")
    assert call(sample.main, log_dir, "--num", "5", "--prime", "the cat") == 0
    out, err = capsys.readouterr()
    assert all(line.startswith("the cat") for line in out.splitlines())
    assert all(len(line.split()) <= 5 for line in out.splitlines())  # the beginning counts among the T words
    assert err.startswith("drawn from ") and err.count("\n") == 1
    assert call(sample.main, log_dir, "--num", "2", "--prime", "the platypus") == 0
    out, err = capsys.readouterr()
    assert "platypus" in err and err.count("\n") == 2
    assert all(line.startswith("the <unk>") for line in out.splitlines())
    assert call(sample.main, log_dir, "--prime", " ") == 2
    assert_one_line_error(capsys, "nothing to go on from")
    assert call(sample.main, log_dir, "--out", "x.mid") == 2
    assert_one_line_error(capsys, ".txt, .npy")


def test_a_checkpoint_with_another_vocabulary_is_refused(finished, tmp_path, capsys):
    payload = torch.load(finished / "train/last.pt", weights_only=True)
    for changed in ("<end>\n<unk>\nthe\n", "nothing", 5):
        torch.save({**payload, "data": {**payload["data"], "vocabulary": changed}}, tmp_path / "x.pt")
        assert call(sample.main, str(tmp_path / "x.pt")) == 2
        assert_one_line_error(capsys, "vocabulary")


BAD = {
    "no path": ([], "needs --data_path"),
    "missing": (["--data_path", "none.txt"], "no text at none.txt"),
    "empty": (["--data_path", "empty.txt"], "no line of text"),
    "binary": (["--data_path", "binary.txt"], "zero byte at 1"),
    "encoding": (["--data_path", "latin.txt"], "not UTF-8 text: byte 1"),
    "ids": (["--data_path", "good.txt", "--tokens", "ids"], "is not a whole number"),
    "all too long": (["--data_path", "good.txt", "--seq_len", "2", "--long", "drop"], "no line of at most"),
    "a size of its own": (["--data_path", "good.txt", "--vocab_size", "7"], "--vocab_size 7: the text has"),
    "short lines": (["--data_path", "good.txt", "--variable_length", "False"], "--variable_length False"),
    "tokens of another kind": (["--data_path", "good.txt", "--tokens", "letters"], "--tokens"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_one_line_and_writes_nothing(name, tmp_path, capsys):
    flags, words = BAD[name]
    cwd = tmp_path / "cwd"
    (cwd / "good.txt").write_text("".join(f"{line}\n" for line in WORDS))
    (cwd / "empty.txt").write_text("\n")
    (cwd / "binary.txt").write_bytes(b"a\0b")
    (cwd / "latin.txt").write_bytes("né".encode("latin1"))
    before = snapshot(cwd)
    assert call(main.main, "--dataset", "Text", "--seq_len", "5", "--d_filters", "1x4", *flags) == 2
    assert_one_line_error(capsys, words)
    assert snapshot(cwd) == before


def test_flags_of_text_are_refused_elsewhere(capsys):
    assert call(main.main, "--data_path", "x.txt") == 2
    assert_one_line_error(capsys, "no effect without --dataset Text")


@pytest.mark.parametrize("preset", ["default", "paper", "smoke"])
def test_every_preset_works(preset, lines, vocab, tmp_path):
    flags = ["--dataset", "Text", "--data_path", str(lines), "--preset", preset, "--vocab_size", vocab, "--train_size", "12"]
    short = ["--pretrain_g_epochs", "1", "--pretrain_d_epochs", "1", "--total_epochs", "1"]
    assert run(*flags, *short, *folders(tmp_path)) == 0


def test_a_training_set_smaller_than_a_batch_is_refused_and_one_smaller_than_asked_for_is_told(lines, vocab, tmp_path, capsys):
    short = ["--pretrain_g_epochs", "1", "--total_epochs", "0"]
    flags = ["--dataset", "Text", "--data_path", str(lines), "--vocab_size", vocab, *short]
    assert run(*flags, "--train_size", "48", "--batch_size", "48", *folders(tmp_path)) == 2  # of 48 lines some are held out
    assert_one_line_error(capsys, "training lines do not fill one batch of --batch_size 48")
    assert not (tmp_path / "train/last.pt").exists()
    assert run(*flags, "--train_size", "300", "--batch_size", "4", *folders(tmp_path)) == 0
    assert "fewer than --train_size 300" in capsys.readouterr().out


def data_of(lines, **changes):
    launch = resolve({"dataset": "Text", "data_path": str(lines), "seq_len": 5, "eval_samples": 30, **changes})
    return make_data(launch.args, torch.device("cpu"), content=launch.content), launch.args


def test_lines_of_one_length_train_as_fixed_sequences(lines):
    data, args = data_of(lines, seq_len=3)
    assert (args.variable_length, data.end_token) == (False, None)
    assert data_of(lines)[1].variable_length is True


def test_training_and_held_out_lines_never_mix(lines):
    data, _ = data_of(lines)
    train = {tuple(row) for row in data.corpus.lines["train"].tolist()}
    assert {tuple(row) for row in data.fresh(500).tolist()} == train
    for held_out in (data.held_out, data.final_held_out(100)):
        assert not train & {tuple(row) for row in held_out.tolist()}
    fixed, _ = data_of(lines, train_size=8, batch_size=4)
    assert len(fixed.train) == 8 and {tuple(row) for row in fixed.train.tolist()} <= train


def test_real_lines_are_measured_once_each(tmp_path):
    """A line that is drawn twice is its own reference in self-BLEU."""
    lines = tmp_path / "lines.txt"
    lines.write_text("".join(f"a{i} b{i} c{i} d{i} e{i}\n" for i in range(60)))
    data, _ = data_of(lines, eval_samples=40)
    train = len(data.train_lines)
    assert data.reference["real_distinct1"] == 1 and data.reference["real_distinct_tokens"] == 40 * 5
    assert data.final_reference(1000)["real_distinct_tokens"] == train * 5
    assert data.final_reference(1000)["real_self_bleu2"] == data.final_reference(train)["real_self_bleu2"] < 0.1


def test_a_run_that_starts_from_another_measures_as_many_real_lines_as_its_own(lines, vocab, tmp_path):
    flags = ["--dataset", "Text", "--vocab_size", vocab, "--pretrain_g_epochs", "1", "--total_epochs", "0"]
    source, alone, new = (folders(tmp_path / name) for name in ("source", "alone", "new"))
    assert run(*flags, "--data_path", str(lines), "--eval_samples", "20", *source) == 0
    assert run(*flags, "--data_path", str(lines), "--eval_samples", "5", *alone) == 0
    assert run(*flags, "--start_from", str(tmp_path / "source/train"), "--eval_samples", "5", *new) == 0
    last = [json_lines(tmp_path / name / "train/metrics.jsonl")[-1] for name in ("source", "alone", "new")]
    real = [{name: value for name, value in row.items() if name.startswith("real_")} for row in last]
    assert real[2] == real[1] != real[0]


def test_measures_are_those_of_the_lines(lines):
    data, _ = data_of(lines)
    generator = Generator(data.vocab_size, 4, 4, end_token=END)
    samples = torch.tensor([[2, 3, 0, 0, 0], [2, 3, 4, 0, 0], [0, 0, 0, 0, 0], data.corpus.lines["train"][0].tolist()])
    values = data.measure(generator, samples, data.held_out)
    words = [[str(n) for n in row[: measures.lengths_of(row[None])[0]]] for row in samples.numpy()]
    references = [[str(n) for n in row[: measures.lengths_of(row[None])[0]]] for row in data.test]
    for order in (2, 3, 4, 5):
        smoothing, weights = SmoothingFunction().method1, [1 / order] * order
        scores = [sentence_bleu(references, line, weights, smoothing) if line else 0 for line in words]
        assert values[f"bleu{order}"] == pytest.approx(np.mean(scores))
    assert values["copied"] == 0.25
    assert values["length"] == pytest.approx(np.mean([len(line) for line in words]))
    pairs = [tuple(line[i : i + 2]) for line in words for i in range(len(line) - 1)]
    assert values["distinct2"] == pytest.approx(len(set(pairs)) / len(pairs))
    counted = generator.counted(data.held_out).sum()
    assert values["nll_test"] == pytest.approx((generator.nll(data.held_out).sum() / counted).item(), rel=1e-6)


def test_a_collapse_is_said_once_and_not_again_after_resuming(lines, vocab, tmp_path, capsys):
    flags = ["--dataset", "Text", "--vocab_size", vocab, "--data_path", str(lines), "--eval_every", "1", *folders(tmp_path)]
    sharp = ["--reward", "constant", "--reward_constant", "1000", "--policy_loss", "sum", "--g_lr", "0.3"]
    assert run(*flags, *sharp, "--pretrain_g_epochs", "3", "--total_epochs", "40") == 0
    assert capsys.readouterr().out.count("warning: the generator collapses") == 1
    assert call(main.main, "--resume", "--log_dir", str(tmp_path / "train"), "--total_epochs", "44") == 0
    assert "warning" not in capsys.readouterr().out
