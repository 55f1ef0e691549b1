"""The flags: how they are declared and read, what --help says of them, and the presets."""

import json

import pytest
import torch
from helpers.cli import TINY, call, folders, json_lines, run

import main
from data_sources import SOURCES
from generator import GENERATOR_INIT
from oracle import ORACLE_INIT
from running.flags import BY_NAME, FLAGS, ORIGINAL, PAPER, PRESETS, SMOKE, TUNED, build_parser, preset_settings
from running.settings import resolve
from support.command_line import boolean


@pytest.mark.parametrize(
    ("text", "value"), [([], True), (["True"], True), (["False"], False), (["false"], False), (["0"], False), (["1"], True)]
)
def test_switches_may_have_a_value(text, value):
    assert vars(build_parser().parse_args(["--log_generation", *text])) == {"log_generation": value}


def test_the_flags_of_the_original_command_line_exist():
    names = (
        "seed is_train evaluate pretrain_g_epochs total_epochs log_generation log_dir eval_log_dir dataset batch_size g_emb_dim "
        "g_hidden_dim d_emb_dim pretrain_d_epochs vocab_size seq_len train_size g_lr d_lr grad_clip g_steps d_steps d_epochs "
        "rollout_num rollout_update_rate eval_every eval_samples final_eval_samples save_every device threads"
    )
    assert set(names.split()) <= {flag.name for flag in FLAGS}


def test_help_explains_every_flag_with_its_default(capsys):
    assert call(main.main, "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for flag in FLAGS:
        assert f"--{flag.name}" in text
        if flag.default is not None:
            assert f"(default: {flag.default})" in text
    for symbol in ("V,", "T,", "B,", "E,", "H,", "N,", "k,", "β ← θ"):
        assert symbol in text


def test_paper_preset_runs_at_a_small_size(tmp_path):
    flags = [*folders(tmp_path), "--preset", "paper", "--train_size", "18", "--total_epochs", "2"]
    assert run(*flags, "--pretrain_g_epochs", "2", "--pretrain_d_epochs", "2") == 0
    config = json.loads((tmp_path / "train/config.json").read_text())["args"]
    assert (config["policy_loss"], config["d_l2"], config["oracle_init"]) == ("sum", 0.2, "normal")


def test_smoke_preset_runs_every_phase_unchanged(tmp_path, monkeypatch):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    assert call(main.main, "--preset", "smoke", *folders(tmp_path)) == 0
    assert threads == [1]
    rows = json_lines(tmp_path / "train/training.jsonl")
    assert [row["phase"] for row in rows] == ["pretrain_g"] * 10 + ["pretrain_d"] * 3 + ["adversarial"] * 5
    assert rows[9]["loss"] < rows[0]["loss"] - 0.3  # a pass over 128 sequences is enough to learn
    final = json.loads((tmp_path / "train/final.json").read_text())
    assert (final["step"], final["samples"]) == (15, 500)


def test_smoke_preset_differs_from_the_papers_in_sizes_only(capsys):
    paper, smoke = preset_settings("paper"), preset_settings("smoke")
    assert {name for name in paper if smoke[name] != paper[name]} == SMOKE.keys()
    assert smoke["d_filters"] == [[1, 8], [2, 8], [4, 8]]
    assert smoke["policy_loss"] == "sum" and smoke["train_size"] == 128
    assert call(main.main, "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--preset {default,original,paper,smoke,tuned}" in text
    assert "in seconds that everything works" in text
    assert "(default: 5000) [smoke: 50]" in text
    assert "(default: 1000) [paper: 120, smoke: 10, tuned: 3000]" in text


def test_the_tests_override_every_size():
    """A size that is missing in TINY would be the default one, and make every test slow."""
    sizes = {flag.name for flag in FLAGS if flag.name.endswith(("_dim", "_size", "_len", "_num", "_samples"))}
    assert sizes - {"train_size"} <= {name.removeprefix("--") for name in TINY}


def test_presets_hold_the_numbers_of_the_paper_and_of_the_original():
    original, paper = preset_settings("original"), preset_settings("paper")
    shared = {"vocab_size": 5000, "seq_len": 20, "g_lr": 0.01, "grad_clip": 5, "d_lr": 1e-4, "d_keep_prob": 0.75, "rollout_num": 16}
    shared |= {"g_steps": 1, "d_steps": 5, "d_epochs": 3, "pretrain_d_epochs": 50, "rollout_update_rate": 0, "g_emb_dim": 32}
    for preset in (original, paper):
        assert {name: preset[name] for name in shared} == shared
    only_original = {
        "batch_size": 32,
        "g_hidden_dim": 50,
        "oracle_emb_dim": 20,
        "oracle_hidden_dim": 50,
        "d_emb_dim": 32,
        "d_l2": 0,
    }
    only_original |= {"train_size": 0, "pretrain_g_epochs": 1000, "total_epochs": 1000, "policy_loss": "mean", "eval_every": 10}
    only_original |= {"eval_samples": 1000, "d_filters": [[3, 50], [5, 80], [5, 80], [5, 100]], "g_init": "glorot"}
    only_paper = {"batch_size": 64, "g_hidden_dim": 32, "oracle_emb_dim": 32, "oracle_hidden_dim": 32, "d_emb_dim": 64, "d_l2": 0.2}
    only_paper |= {"train_size": 10_000, "pretrain_g_epochs": 120, "total_epochs": 200, "policy_loss": "sum", "eval_every": 5}
    only_paper |= {"eval_samples": 10_000, "final_eval_samples": 100_000, "g_init": "normal", "oracle_init": "normal"}
    assert {name: original[name] for name in only_original} == only_original
    assert {name: paper[name] for name in only_paper} == only_paper
    assert sum(number for _, number in paper["d_filters"]) == 1720
    assert [width for width, _ in paper["d_filters"]] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20]


@pytest.mark.parametrize(
    ("flag", "table"), [("g_init", GENERATOR_INIT), ("oracle_init", ORACLE_INIT), ("dataset", SOURCES), ("preset", PRESETS)]
)
def test_the_choices_of_a_flag_are_the_keys_of_its_table(flag, table):
    assert BY_NAME[flag].type == tuple(table)


def test_a_flag_is_declared_once():
    assert len({flag.name for flag in FLAGS}) == len(FLAGS)


@pytest.mark.parametrize("block", [ORIGINAL, PAPER, SMOKE, TUNED])
def test_a_preset_changes_flags_that_exist_to_values_that_they_accept(block):
    for name, value in block.items():
        kind = BY_NAME[name].type
        if value is None:  # as another flag says
            assert name in ("policy_lr", "policy_batch")
        elif isinstance(kind, tuple):
            assert value in kind
        elif kind is boolean:
            assert isinstance(value, bool)
        else:
            kind(str(value))


def test_what_a_flag_requires_is_a_value_of_another_flag():
    for flag in FLAGS:
        if flag.requires is not None:
            other, values = flag.requires
            assert values
            assert set(values) <= set(BY_NAME[other].type)


def test_presets_differ_where_their_blocks_say():
    default, original, paper, smoke, tuned = (preset_settings(name) for name in PRESETS)
    assert {name for name in default if default[name] != original[name]} == ORIGINAL.keys()
    assert {name for name in default if default[name] != tuned[name]} == TUNED.keys()
    assert {name for name in default if default[name] != paper[name]} == PAPER.keys()
    assert {name for name in paper if paper[name] != smoke[name]} == SMOKE.keys()


@pytest.mark.parametrize(
    ("preset", "seq_len", "widths"),
    [
        ("paper", 20, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20]),
        ("paper", 32, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 24, 32]),
        ("paper", 28, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20]),
        ("paper", 7, [1, 2, 3, 4, 5, 6, 7]),
        ("default", 4, [3]),
        ("smoke", 3, [1, 2]),
    ],
)
def test_filters_wider_than_the_sequences_are_left_out_of_a_preset(preset, seq_len, widths):
    args = resolve({"preset": preset, "seq_len": seq_len}).args
    assert [width for width, _ in args.d_filters] == widths


def test_data_that_d_could_learn_by_heart_have_an_adversarial_phase_of_their_own_in_the_default_preset_only():
    tunes, paper = (resolve({"dataset": "Nottingham", "preset": preset}).args for preset in ("default", "paper"))
    assert (tunes.pretrain_g_epochs, tunes.total_epochs, tunes.pretrain_d_epochs, tunes.kl_weight) == (500, 500, 300, 1.0)
    assert (paper.pretrain_g_epochs, paper.total_epochs, paper.pretrain_d_epochs, paper.kl_weight) == (120, 200, 50, 0.0)
    assert resolve({"dataset": "Nottingham", "total_epochs": 7}).args.total_epochs == 7
