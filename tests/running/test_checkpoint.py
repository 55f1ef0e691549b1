"""Files are whole or absent, and reading one runs no code."""

import os
import pickle

import numpy as np
import pytest
import torch

from running.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from support.errors import UserError
from support.files import write_atomically


class Malicious:
    """Unpickling it would make a folder."""

    def __reduce__(self):
        return os.mkdir, ("was_run",)


def test_round_trip(tmp_path):
    payload = {"weights": torch.arange(3.0), "nested": {"a": [1, 2.5, None, "x", True]}, "rng": torch.Generator().get_state()}
    save_checkpoint(tmp_path / "last.pt", payload)
    loaded = load_checkpoint(tmp_path / "last.pt")
    assert loaded.pop("format") == FORMAT
    assert torch.equal(loaded.pop("weights"), payload["weights"])
    assert loaded["nested"] == payload["nested"]
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    with pytest.raises(pickle.UnpicklingError):
        save_checkpoint(tmp_path / "last.pt", {"loss": np.float64(1.0)})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"new")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(path, fail)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


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
def test_no_code_runs_from_a_checkpoint(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    write({"format": FORMAT, "x": Malicious()}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "was_run").exists()
