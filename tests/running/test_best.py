"""best.pt: the models of the evaluation with the lowest NLL_valid, and who may read it."""

import json
import math

import pytest
import torch
from helpers.cli import assert_one_line_error, call, folders, json_lines, run, same, snapshot, trained_state
from helpers.small_runs import small_state

import main
import sample
from data_loader import make_data
from data_set import DataSet
from running.best import Best
from running.checkpoint import load_models
from train_state import make_generator

OVERFIT = "--pretrain_g_epochs 14 --total_epochs 0 --train_size 8 --g_lr 0.1 --eval_every 2".split()


def looked(*values):
    """A `Best` that has seen these NLL_valid at steps 0, 1, ..., and the state's first weight at each of them."""
    state, _ = small_state()
    best = Best()
    for step, value in enumerate(values):
        with torch.no_grad():
            state.generator.output.bias.fill_(step)
            state.discriminator.output.bias.fill_(step)
        state.optimizers["discriminator"].state[state.discriminator.output.bias] = {}  # it is being trained
        best.look(value, {"phase": "pretrain_g", "epoch": step, "step": step}, state)
    return best, state


def test_a_training_that_has_not_helped_is_told():
    assert looked(2.0, 2.5)[0].summary().endswith("last.pt: 2.5000; no epoch lowered NLL_valid: is there enough data?")
    for values in ((2.0, 1.5, 1.7), (2.0,)):
        assert "lowered" not in looked(*values)[0].summary()


@pytest.mark.parametrize(
    ("values", "step", "waited"),
    [
        ([3.0, 2.0, 2.5], 1, 1),
        ([3.0, 2.0, 2.0, 2.0], 1, 2),  # an equal value is no improvement
        ([3.0, math.nan, 4.0], 0, 2),
        ([math.nan, 3.0], 1, 0),
        ([3.0, -1.0], 1, 0),
    ],
)
def test_the_lowest_number_wins_and_the_first_of_equal_ones(values, step, waited):
    best, _ = looked(*values)
    assert best.where["step"] == step and best.nll_valid == values[step] and best.waited == waited
    for model in ("generator", "discriminator"):  # as they were then, not as they are
        assert (best.models[model]["output.bias"] == step).all()


def test_an_untrained_discriminator_is_not_kept():
    state, _ = small_state()
    best = Best()
    best.look(1.0, {"phase": "pretrain_g", "epoch": 0, "step": 0}, state)
    assert best.models.keys() == {"generator"}


def test_restored_weights_are_a_copy_that_training_on_does_not_change():
    best, state = looked(3.0, 2.0, 4.0)
    discriminator = state.discriminator.output.bias.clone()
    best.restore_generator(state)
    assert (state.generator.output.bias == 1).all()
    assert torch.equal(state.discriminator.output.bias, discriminator)
    with torch.no_grad():
        state.generator.output.bias.fill_(9)
    assert (best.models["generator"]["output.bias"] == 1).all()


@pytest.fixture(scope="module")
def overfit(tmp_path_factory):
    """A run whose NLL_valid is lowest in the middle. Tests only read it."""
    folder = tmp_path_factory.mktemp("overfit")
    assert run(*OVERFIT, *folders(folder)) == 0
    return folder / "train"


def test_best_pt_holds_the_weights_of_the_lowest_nll_valid_in_the_log(overfit):
    rows = json_lines(overfit / "metrics.jsonl")
    lowest = min(rows, key=lambda row: row["nll_valid"])
    assert rows[0]["step"] < lowest["step"] < rows[-1]["step"]
    payload = torch.load(overfit / "best.pt", weights_only=True)
    assert payload["where"] == {name: lowest[name] for name in ("phase", "epoch", "step")}
    assert payload["nll_valid"] == lowest["nll_valid"] and payload["latest"]["nll_valid"] == rows[-1]["nll_valid"]
    saved = load_models(overfit, "best")
    generator = make_generator(saved.args)
    generator.load_state_dict(saved.generator)
    data = make_data(saved.args, torch.device("cpu"))
    assert data.nll_valid(generator) == pytest.approx(lowest["nll_valid"], rel=1e-6)
    last = load_models(overfit, "last").generator  # without --patience the best weights do not come back
    generator.load_state_dict(last)
    assert data.nll_valid(generator) == pytest.approx(rows[-1]["nll_valid"], rel=1e-6)
    assert not torch.equal(data.valid, data.held_out[: len(data.valid)])
    trained = set(map(tuple, data.train.tolist()))
    assert not all(tuple(row) in trained for row in data.valid.tolist())


def test_nll_test_does_not_choose(tmp_path, monkeypatch):
    """NLL_valid is made to rise while NLL_test falls, and to fall once where NLL_test does not."""
    plan, weights = [5.0, 3.0, 3.5, 2.0, 2.0, math.nan, 4.0], []

    def nll_valid(_self, generator):
        weights.append(generator.output.weight.detach().clone())
        return plan[len(weights) - 1]

    monkeypatch.setattr(DataSet, "nll_valid", nll_valid)
    assert run("--pretrain_g_epochs", "6", "--total_epochs", "0", "--eval_every", "1", *folders(tmp_path)) == 0
    rows = json_lines(tmp_path / "train/metrics.jsonl")
    assert min(range(7), key=lambda i: rows[i]["nll_test"]) == 6
    payload = torch.load(tmp_path / "train/best.pt", weights_only=True)
    assert payload["where"]["step"] == 3
    assert torch.equal(payload["models"]["generator"]["output.weight"], weights[3])
    config = json.loads((tmp_path / "train/config.json").read_text())["args"]
    assert payload["args"] == config


def test_a_run_without_evaluations_has_no_best(tmp_path, capsys):
    assert run("--pretrain_g_epochs", "2", "--total_epochs", "0", "--evaluate", "False", *folders(tmp_path)) == 0
    log_dir = tmp_path / "train"
    assert not (log_dir / "best.pt").exists()
    capsys.readouterr()
    assert call(sample.main, str(log_dir)) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 10 and "last.pt" in captured.err
    assert call(sample.main, str(log_dir), "--which", "best") == 2
    assert_one_line_error(capsys, "no best.pt", "--which last")


def text(capsys, *flags):
    """What sample.py prints, and what it says of the models."""
    capsys.readouterr()
    assert call(sample.main, *map(str, flags), "--num", "20") == 0
    return capsys.readouterr()


def test_sample_draws_from_the_best_unless_told_otherwise_and_says_so(overfit, tmp_path, capsys):
    default, best, last = text(capsys, overfit), text(capsys, overfit, "--which", "best"), text(capsys, overfit, "--which", "last")
    assert default.out == best.out == text(capsys, overfit / "best.pt").out
    assert last.out == text(capsys, overfit / "last.pt").out != best.out
    assert "best.pt" in default.err and default.err == best.err and default.err.count("\n") == 1
    step = torch.load(overfit / "best.pt", weights_only=True)["where"]["step"]
    assert f"epoch {step} of G" in default.err and "NLL_valid" in default.err
    assert f"{overfit / 'last.pt'}: epoch 14 of G" in last.err
    (tmp_path / "older").mkdir()  # of a version without best.pt
    (tmp_path / "older/last.pt").write_bytes((overfit / "last.pt").read_bytes())
    assert text(capsys, tmp_path / "older").out == last.out


def test_which_is_refused_for_a_file(overfit, capsys):
    for name in ("best.pt", "last.pt"):
        assert call(sample.main, str(overfit / name), "--which", "last") == 2
        assert_one_line_error(capsys, "--which", name)


def test_best_pt_of_a_text_run_brings_its_vocabulary(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = tmp_path / "lines.txt"
    lines.write_text("".join(f"the {a} is {b} again\n" for a in ("cat", "dog", "cow") for b in "abcdefgh") * 2)
    flags = "--dataset Text --seq_len 5 --batch_size 4 --d_filters 1x4 --g_hidden_dim 4 --g_lr 0.05 --eval_every 1".split()
    flags += "--pretrain_g_epochs 6 --total_epochs 0 --eval_samples 20 --final_eval_samples 20 --threads 1".split()
    assert call(main.main, *flags, "--data_path", str(lines), *folders(tmp_path)) == 0
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/best.pt").write_bytes((tmp_path / "train/best.pt").read_bytes())
    got = text(capsys, tmp_path / "alone/best.pt")
    assert got.out == text(capsys, tmp_path / "train").out
    assert any(word in got.out for word in ("cat", "dog", "cow"))


@pytest.mark.parametrize("verb", ["start_from", "start_from as last.pt", "resume", "evaluate"])
def test_best_pt_is_no_run_to_go_on_with(verb, overfit, tmp_path, capsys):
    (tmp_path / "train").mkdir()
    for name in ("metrics.jsonl", "training.jsonl"):
        (tmp_path / "train" / name).write_bytes((overfit / name).read_bytes())
    (tmp_path / "train/last.pt").write_bytes((overfit / "best.pt").read_bytes())
    before, source = snapshot(tmp_path), overfit / "best.pt" if verb == "start_from" else tmp_path / "train"
    flags = {"resume": ["--resume", *folders(tmp_path)], "evaluate": ["--is_train", "False", *folders(tmp_path)]}
    assert call(main.main, *flags.get(verb, ["--start_from", str(source), *folders(tmp_path / "new")])) == 2
    assert_one_line_error(capsys, "holds models to draw from", "last.pt")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("format", 0, "format 0"),
        ("kind", "worst", "not a checkpoint of a run"),
        ("kind", None, "not a checkpoint of a run"),
        *((part, None, "not a checkpoint of a run") for part in ("args", "data", "where", "models", "latest", "nll_valid")),
        ("where", {"phase": "pretrain_g", "epoch": 1}, "not a checkpoint of a run"),
        ("models", {"discriminator": {}}, "not a checkpoint of a run"),
        ("models", {"generator": {}, "discriminator": {}}, "not a checkpoint of a run"),
        ("latest", {"nll_valid": "low"}, "not a checkpoint of a run"),
    ],
)
def test_a_best_pt_with_other_or_missing_parts_is_refused(part, value, words, overfit, tmp_path, capsys):
    payload = torch.load(overfit / "best.pt", weights_only=True)
    payload[part] = value
    if value is None:
        del payload[part]
    torch.save(payload, tmp_path / "best.pt")
    for source in (tmp_path, tmp_path / "best.pt"):
        assert call(sample.main, str(source)) == 2
        assert_one_line_error(capsys, words)


def test_a_truncated_best_pt_is_refused_and_last_pt_still_read(overfit, tmp_path, capsys):
    (tmp_path / "best.pt").write_bytes((overfit / "best.pt").read_bytes()[:-1000])
    (tmp_path / "last.pt").write_bytes((overfit / "last.pt").read_bytes())
    assert call(sample.main, str(tmp_path)) == 2
    assert_one_line_error(capsys, "best.pt")
    assert text(capsys, tmp_path, "--which", "last").out == text(capsys, overfit, "--which", "last").out


def test_a_new_run_in_the_folder_keeps_neither_best_nor_judges_of_the_old_one(tmp_path):
    flags = ["--pretrain_g_epochs", "1", "--total_epochs", "0", "--evaluate", "False"]
    (tmp_path / "train").mkdir()
    for name in ("best.pt", "judges.pt", "judges.json"):
        (tmp_path / "train" / name).write_text("of the old run")
        before = snapshot(tmp_path)
        assert run(*flags, *folders(tmp_path)) == 2  # each of them alone is a run's file
        assert snapshot(tmp_path) == before
    assert run(*flags, "--overwrite", *folders(tmp_path)) == 0
    assert not [path for path in (tmp_path / "train").iterdir() if path.name.startswith(("best", "judges"))]


def test_the_best_of_a_source_counts_in_a_run_that_starts_from_it(overfit, tmp_path):
    """The same validation sequences: its lowest NLL_valid stays the one to beat."""
    rest = ["--pretrain_d_epochs", "0", "--total_epochs", "1", "--reward", "random", "--eval_every", "1"]
    assert run("--start_from", str(overfit), *rest, *folders(tmp_path)) == 0
    one, two = (torch.load(folder / "best.pt", weights_only=True) for folder in (overfit, tmp_path / "train"))
    assert one["where"] == two["where"] and same(one["models"], two["models"])
    assert two["latest"]["nll_valid"] == json_lines(tmp_path / "train/metrics.jsonl")[-1]["nll_valid"]


def test_an_nll_valid_of_other_sequences_is_not_compared(overfit, tmp_path):
    rest = ["--pretrain_d_epochs", "0", "--total_epochs", "1", "--reward", "random", "--eval_every", "1", "--eval_samples", "7"]
    assert run("--start_from", str(overfit), *rest, *folders(tmp_path)) == 0
    saved, best = load_models(tmp_path / "train", "best"), torch.load(tmp_path / "train/best.pt", weights_only=True)
    data = make_data(saved.args, torch.device("cpu"), trained_state(tmp_path / "train")["data"])
    generator = make_generator(saved.args)
    generator.load_state_dict(saved.generator)
    assert len(data.valid) == 7
    assert best["nll_valid"] == pytest.approx(data.nll_valid(generator), rel=1e-6)
    assert best["nll_valid"] != torch.load(overfit / "best.pt", weights_only=True)["nll_valid"]
