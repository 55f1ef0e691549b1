"""Checkpoints: exact, refused where they are broken, and reading one runs no code."""

import os
import pickle

import numpy as np
import pytest
import torch
from helpers.cli import assert_one_line_error, call, folders, snapshot

import main
import sample
from running.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from support.errors import UserError


class Malicious:
    """Unpickling it would make a folder."""

    def __reduce__(self):
        return os.mkdir, ("was_run",)


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    payload = {"weights": torch.arange(3.0), "nested": {"a": [1, 2.5, None, "x", True]}, "rng": torch.Generator().get_state()}
    save_checkpoint(tmp_path / "last.pt", payload)
    loaded = load_checkpoint(tmp_path / "last.pt")
    assert loaded.pop("format") == FORMAT
    assert torch.equal(loaded.pop("weights"), payload["weights"])
    assert loaded["nested"] == payload["nested"]
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_values_that_could_not_be_read_back_are_not_written(tmp_path):
    with pytest.raises(pickle.UnpicklingError):
        save_checkpoint(tmp_path / "last.pt", {"loss": np.float64(1.0)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_checkpoints_are_refused(tmp_path, share):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"weights": torch.arange(1000.0)})
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"last\.pt"):
        load_checkpoint(path)


def test_other_files_and_formats_are_refused(tmp_path):
    path = tmp_path / "last.pt"
    with pytest.raises(UserError, match="no checkpoint"):
        load_checkpoint(path)
    path.write_text("hello")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        load_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="not a checkpoint"):
        load_checkpoint(path)
    torch.save({"format": FORMAT + 1}, path)
    with pytest.raises(UserError, match=f"format {FORMAT + 1}"):
        load_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_malicious_checkpoint_runs_no_code(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    write({"format": FORMAT, "x": Malicious()}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    "damage", ["truncated", "g_hidden_dim", "vocab_size", "oracle_hidden_dim", "d_emb_dim", "other format", "empty", "no run"]
)
def test_a_broken_checkpoint_is_refused_and_nothing_is_lost(finished, capsys, tmp_path, damage):
    (tmp_path / "train").mkdir()
    for name in ("last.pt", "metrics.jsonl", "training.jsonl"):
        (tmp_path / "train" / name).write_bytes((finished / "train" / name).read_bytes())
    path = tmp_path / "train/last.pt"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-2000])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        payload = torch.load(path, weights_only=True)
        payload["folders"]["log"] = str(tmp_path / "train")
        if damage in payload["args"]:
            payload["args"][damage] = 9
        elif damage == "no run":
            del payload["data"]
        else:
            payload["format"] = 0
        torch.save(payload, path)
    before = snapshot(tmp_path)
    assert call(main.main, "--resume", *folders(tmp_path)) == 2
    assert_one_line_error(capsys, "checkpoint")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *((part, []) for part in ("args", "state", "data", "marks", "folders", "last_evaluation")),
        *((part, {}) for part in ("args", "state", "marks", "folders")),
        ("args", {1: 2}),
        ("state", {"counts": []}),
        ("state", {"counts": {"epochs_done": {"pretrain_g": 1, "pretrain_d": None, "adversarial": 0}}}),
        ("folders", {"log": 1, "eval": 2}),
        ("marks", {"log": [], "eval": {}}),
        ("last_evaluation", {"nll_oracle": "low"}),
    ],
)
def test_a_checkpoint_with_a_part_of_another_kind_is_refused(finished, capsys, tmp_path, part, value):
    payload = torch.load(finished / "train/last.pt", weights_only=True)
    (tmp_path / "train").mkdir()
    torch.save({**payload, part: value}, tmp_path / "train/last.pt")
    before = snapshot(tmp_path)
    log_dir, new = str(tmp_path / "train"), folders(tmp_path / "new")
    for flags in (
        ["--resume", "--log_dir", log_dir],
        ["--is_train", "False", "--log_dir", log_dir],
        ["--start_from", log_dir, *new],
    ):
        assert call(main.main, *flags) == 2
        assert_one_line_error(capsys, "last.pt is not a checkpoint of a run")
    assert call(sample.main, log_dir) == 2
    assert_one_line_error(capsys, "last.pt is not a checkpoint of a run")
    assert snapshot(tmp_path) == before
