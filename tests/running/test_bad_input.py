"""Flags and values that are refused, each with one line on stderr and nothing written."""

import pytest
import torch
from helpers.cli import assert_one_line_error, call, folders, run, snapshot

import main

BAD_INPUT = {
    "unknown dataset": (["--dataset", "Beethoven"], "Beethoven"),
    "zero size": (["--batch_size", "0"], "--batch_size: must be at least 1, not 0"),
    "negative size": (["--vocab_size", "-3"], "--vocab_size: must be at least 1, not -3"),
    "no number": (["--seq_len", "long"], "'long' is not a whole number"),
    "negative epochs": (["--total_epochs", "-1"], "--total_epochs"),
    "no learning rate": (["--g_lr", "0"], "must be above 0"),
    "learning rate is not a number": (["--d_lr", "nan"], "must be above 0"),
    "neither true nor false": (["--evaluate", "maybe"], "neither True nor False"),
    "unknown flag": (["--learning_rate", "1"], "--learning_rate"),
    "abbreviated flag": (["--vocab", "10"], "--vocab"),
    "filter wider than T": (["--d_filters", "2x4,6x4"], "width 6 does not fit sequences of --seq_len 5"),
    "broken filters": (["--d_filters", "3x"], "WIDTHxNUMBER"),
    "training set below a batch": (["--train_size", "3"], "does not fill one batch"),
    "tf32 without CUDA": (["--d_precision", "tf32", "--device", "cpu"], "--d_precision tf32"),
    "unknown device": (["--device", "abacus"], "choose auto, cpu, cuda or cuda:N"),
    "unsupported device": (["--device", "meta"], "choose auto, cpu, cuda or cuda:N"),
    "nothing to do": (["--is_train", "False", "--evaluate", "False", "--log_dir", "x"], "nothing"),
    "nothing to resume": (["--resume", "--log_dir", "x"], "nothing to resume"),
    "resume what": (["--resume"], "--log_dir or --run_name"),
    "nothing to evaluate": (["--is_train", "False", "--log_dir", "x"], "no last.pt"),
    "contradiction": (["--resume", "--overwrite", "--log_dir", "x"], "choose one"),
    "no folder for the oracle": (["--save_oracle", "nowhere/o.npz"], "--save_oracle nowhere/o.npz: there is no folder nowhere"),
    "no name": (["--run_name", ""], "no name for a folder"),
    "threads": (["--threads", "99999999999"], "at most 1024"),
    "a size without end": (["--vocab_size", str(2**63 - 1)], "--vocab_size: must be at most 2147483647, not 9223372036854775807"),
    "a count without end": (["--final_eval_samples", str(10**20)], "--final_eval_samples: must be at most 2147483647"),
    "a seed without end": (["--seed", "9" * 401], "--seed: must be at most 9223372036854775807, not 99999999999999999999..."),
    "an oracle's seed without end": (["--oracle_seed", str(2**63)], "--oracle_seed: must be at most 9223372036854775807"),
    "filters without end": (["--d_filters", "1x100000000000000000000"], "--d_filters: widths and numbers must be at most"),
    "sizes whose product has no end": (["--vocab_size", "2147483647", "--g_emb_dim", "2147483647"], "out of memory"),
    "judges of an evaluation": (["--is_train", "False", "--judges", "2", "--log_dir", "x"], "python judges.py RUN"),
    "neither true nor false nor auto": (["--resume", "logs/train/x"], "'logs/train/x' is neither True nor False nor auto"),
    "an oracle of an evaluation": (["--is_train", "False", "--save_oracle", "o.npz", "--log_dir", "x"], "belongs to a training"),
    "rewards less themselves": (["--reward", "constant", "--baseline", "state", "--kl_weight", "1"], "leaves nothing"),
    "a state without roll-outs": (["--baseline", "state", "--rollout_num", "0"], "--baseline leave_one_out needs none"),
    "tunes without music": (["--data_dir", "x"], "--data_dir has no effect without --dataset Nottingham"),
    "untrained discriminator": (["--d_steps", "0", "--pretrain_d_epochs", "0"], "never trained"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_ends_with_one_line(name, capsys, tmp_path):
    flags, words = BAD_INPUT[name]
    assert run(*flags) == 2
    assert_one_line_error(capsys, words)
    assert snapshot(tmp_path) == {}


def test_the_largest_allowed_seed_works(tmp_path):
    short = ["--pretrain_g_epochs", "1", "--pretrain_d_epochs", "1", "--total_epochs", "1"]
    assert run(*short, "--seed", str(2**63 - 1), *folders(tmp_path)) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda_is_refused(capsys, tmp_path):
    assert run("--device", "cuda") == 2
    assert_one_line_error(capsys, "--device cuda", "no CUDA device")
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("flag", ["--log_dir", "--eval_log_dir"])
def test_a_log_folder_that_is_a_file_or_below_one_is_refused(flag, capsys, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert run(flag, "file/logs", "--total_epochs", "0") == 2
    assert_one_line_error(capsys, "file/logs")
    assert run(flag, "file", "--total_epochs", "0") == 2
    assert_one_line_error(capsys, f"{flag} file is no folder")
    assert snapshot(tmp_path) == {"file": b"mine"}


def test_a_run_that_is_refused_late_leaves_no_folders(tmp_path, capsys):
    (tmp_path / "few.txt").write_text("".join(f"{word} {word}\n" for word in "abcdefgh"))
    (tmp_path / "there").mkdir()
    flags = ["--dataset", "Text", "--data_path", "few.txt", "--train_size", "64", "--batch_size", "64", "--seq_len", "2"]
    flags += ["--d_filters", "1x4"]
    before = sorted(tmp_path.iterdir())
    for log_dir, eval_log_dir in (("a/b", "there"), ("c/d", "c/d/eval"), ("there/e", "f/g")):
        assert call(main.main, *flags, "--log_dir", log_dir, "--eval_log_dir", eval_log_dir) == 2
        assert_one_line_error(capsys, "do not fill one batch")
        assert sorted(tmp_path.iterdir()) == before and not list((tmp_path / "there").iterdir())


def test_sizes_beyond_the_memory_end_with_one_line(tmp_path, capsys):
    assert run("--vocab_size", "2147483647", "--g_emb_dim", "1000", *folders(tmp_path)) == 2
    assert_one_line_error(capsys, "out of memory")


def test_a_run_name_that_is_no_utf_8_is_refused(tmp_path, capsys):
    assert run("--run_name", "bad\udcff") == 2
    assert_one_line_error(capsys, "UTF-8")
    assert snapshot(tmp_path) == {}
