"""The oracle's files: the authors' parameters, exact round trips, and files that do not fit."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.attacks import touch
from helpers.cli import assert_one_line_error, folders, run, same, snapshot, trained_state
from helpers.limits import at_most
from helpers.nasty_oracles import NPZS, oracle_npz

from metrics import entropy
from oracle import NAMES, load_oracle, make_oracle, save_oracle
from support.errors import UserError

AUTHORS = Path(__file__).resolve().parents[2] / "shared" / "data" / "oracle"


needs_authors = pytest.mark.skipif(not AUTHORS.is_dir(), reason="needs the authors' oracle beside the project")


def arrays(vocab_size=11, emb_dim=3, hidden=4, seed=0):
    """Random arrays of an oracle's shapes, by name."""
    rng = np.random.default_rng(seed)
    shapes = {"emb": (vocab_size, emb_dim), "Wo": (hidden, vocab_size), "bo": (vocab_size,)}
    for gate in ("i", "f", "og", "c"):
        shapes |= {f"W{gate}": (emb_dim, hidden), f"U{gate}": (hidden, hidden), f"b{gate}": (hidden,)}
    return {name: rng.normal(size=shapes[name]).astype(np.float32) for name in NAMES}


def reference_nll(weights, tokens):
    """−log p of each token in float64, from the gate equations: (B, T) -> (B, T)."""
    w = {name: values.astype(np.float64) for name, values in weights.items()}
    rows = np.arange(len(tokens))
    hidden = cell = np.zeros((len(tokens), len(w["Ui"])))
    last, result = np.zeros(len(tokens), dtype=int), []

    def gate(name, x):
        return x @ w[f"W{name}"] + hidden @ w[f"U{name}"] + w[f"b{name}"]

    for column in tokens.T:
        x = w["emb"][last]
        i, f, o = (1 / (1 + np.exp(-gate(name, x))) for name in ("i", "f", "og"))
        cell = f * cell + i * np.tanh(gate("c", x))
        hidden = o * np.tanh(cell)
        logits = hidden @ w["Wo"] + w["bo"]
        logits -= logits.max(axis=1, keepdims=True)
        result.append(np.log(np.exp(logits).sum(axis=1)) - logits[rows, column])
        last = column
    return np.stack(result, axis=1)


def write(path, weights, protocol=2):
    """The authors' form: a pickled list."""
    path.write_bytes(pickle.dumps([weights[name] for name in NAMES], protocol=protocol))
    return path


@pytest.mark.parametrize("form", ["npz", 0, 1, 2, 3, 4, 5])
def test_every_form_gives_the_density_of_the_gate_equations(form, tmp_path):
    """The gates have different weights each, so that an exchanged pair shows."""
    weights = arrays()
    path = tmp_path / "oracle"
    if form == "npz":
        with path.open("wb") as file:
            np.savez(file, **weights)
    else:
        write(path, weights, form)
    oracle = load_oracle(path)
    tokens = torch.randint(11, (50, 7), generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(oracle.nll(tokens).numpy(), reference_nll(weights, tokens.numpy()), atol=1e-5)
    assert not any(p.requires_grad for p in oracle.parameters())


@pytest.mark.parametrize("protocol", [2, 5])
def test_fortran_order_and_other_byte_order_are_read_right(protocol, tmp_path):
    weights = arrays()
    odd = {name: np.asfortranarray(values).astype(">f4", order="K") for name, values in weights.items()}
    a, b = load_oracle(write(tmp_path / "a", weights)), load_oracle(write(tmp_path / "b", odd, protocol))
    assert same(a.state_dict(), b.state_dict())


def test_saving_is_exact_and_deterministic(tmp_path):
    oracle = make_oracle(11, 3, 4, "glorot", torch.Generator().manual_seed(1))
    save_oracle(oracle, tmp_path / "a.npz")
    save_oracle(oracle, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert same(load_oracle(tmp_path / "a.npz").state_dict(), oracle.state_dict())
    save_oracle(oracle, tmp_path / "a.npz")  # the same again is no conflict
    with pytest.raises(UserError, match="something else"):
        save_oracle(make_oracle(11, 3, 4, "glorot", torch.Generator().manual_seed(2)), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert archive.files == list(NAMES)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.pop("bo"),
        lambda w: w.update(bo=w["bo"][:-1]),
        lambda w: w.update(Ui=w["Ui"][:, :-1]),
        lambda w: w.update(Wo=w["Wo"].T),
        lambda w: w.update(emb=w["emb"].astype(np.float64)),
        lambda w: w.update(emb=w["emb"][0]),
        lambda w: w.update(emb=w["emb"][:0]),
        lambda w: w["bc"].fill(np.nan),
        lambda w: w.update(bi=np.array([touch("nowhere")], dtype=object)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, tmp_path):
    weights = arrays()
    change(weights)
    buffer = io.BytesIO()
    np.savez(buffer, **weights)
    (tmp_path / "bad.npz").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="--oracle_params"):
        load_oracle(tmp_path / "bad.npz")


def damaged(name):
    """A compressed oracle, broken in one way."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays())
    data = bytearray(buffer.getvalue())
    local, central = data.index(b"PK\x03\x04"), data.index(b"PK\x01\x02")
    content = (
        local
        + 30
        + int.from_bytes(data[local + 26 : local + 28], "little")
        + int.from_bytes(data[local + 28 : local + 30], "little")
    )
    if name == "bits":
        data[content : content + 40] = bytes(byte ^ 0xFF for byte in data[content : content + 40])
    elif name == "method":
        data[local + 8] = data[central + 10] = 99
    elif name == "encrypted":
        data[local + 6] |= 1
        data[central + 8] |= 1
    elif name == "member":
        with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
            for array in NAMES:
                archive.writestr(f"{array}.npy", b"no array")
        data = buffer.getvalue()
    return bytes(data)


@pytest.mark.parametrize("name", ["bits", "method", "encrypted", "member"])
def test_broken_archives_end_with_one_line(name, tmp_path, capsys):
    (tmp_path / "bad.npz").write_bytes(damaged(name))
    before = snapshot(tmp_path)
    assert run("--oracle_params", str(tmp_path / "bad.npz"), *folders(tmp_path)) == 2
    assert_one_line_error(capsys, "--oracle_params", "bad.npz")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", NPZS)
def test_no_archive_takes_more_time_or_memory_than_its_size_justifies(name, tmp_path):
    (tmp_path / "bad.npz").write_bytes(NPZS[name]())
    with at_most(seconds=5, megabytes=5), pytest.raises(UserError, match="--oracle_params") as caught:
        load_oracle(tmp_path / "bad.npz")
    assert len(str(caught.value)) < 400


def test_arrays_in_any_order_and_compressed_are_read(tmp_path):
    weights = arrays()
    fortran = {name: np.asfortranarray(values) for name, values in weights.items()}
    np.savez(tmp_path / "a.npz", **weights)
    np.savez(tmp_path / "b.npz", **fortran)
    np.savez_compressed(tmp_path / "c.npz", extra=np.zeros(3), **fortran)
    states = [load_oracle(tmp_path / f"{name}.npz").state_dict() for name in "abc"]
    assert same(states[0], states[1]) and same(states[0], states[2])
    (tmp_path / "zeros.npz").write_bytes(oracle_npz())  # compresses well, and is small
    assert load_oracle(tmp_path / "zeros.npz").vocab_size == 11


def test_what_is_no_regular_file_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with open("sparse", "wb") as file:
        file.truncate(3 * 2**30)
    for name, words in (("pipe", "not a regular file"), (".", "Is a directory"), ("sparse", "larger than 268,435,456 bytes")):
        with at_most(seconds=5, megabytes=1), pytest.raises(UserError, match=f"--oracle_params {name}: {words}"):
            load_oracle(name)
    with at_most(seconds=5), pytest.raises(UserError, match="something else in it"):
        save_oracle(make_oracle(11, 3, 4, "glorot", torch.Generator().manual_seed(1)), Path("pipe"))


def test_a_run_on_an_oracle_from_a_file_equals_the_run_on_that_oracle(tmp_path):
    shape = ["--pretrain_g_epochs", "2", "--total_epochs", "1", "--pretrain_d_epochs", "1"]
    seeded, loaded = tmp_path / "seeded", tmp_path / "loaded"
    file = tmp_path / "oracle.npz"
    assert run(*shape, *folders(seeded), "--oracle_seed", "5", "--save_oracle", str(file)) == 0
    assert run(*shape, *folders(loaded), "--oracle_params", str(file)) == 0
    assert same(trained_state(seeded / "train"), trained_state(loaded / "train"))
    file.unlink()  # a run that goes on has the oracle in its checkpoint
    assert run("--resume", *folders(loaded), "--total_epochs", "2", "--save_oracle", str(file)) == 0
    assert load_oracle(file).vocab_size == 20


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--oracle_params", "missing.npz"], ["missing.npz", "No such file"]),
        (["--oracle_params", "."], ["--oracle_params"]),
        (["--oracle_params", "good.npz"], ["--vocab_size 20", "11"]),
        (["--oracle_params", "good.npz", "--vocab_size", "11"], ["--oracle_emb_dim 4", "3"]),
        (["--oracle_params", "good.npz", "--oracle_seed", "3"], ["--oracle_seed"]),
        (["--oracle_params", "good.npz", "--oracle_init", "normal"], ["--oracle_init"]),
        (["--oracle_params", "good.npz", "--dataset", "Nottingham"], ["--dataset LSTM"]),
        (["--save_oracle", "good.npz"], ["something else"]),
        (["--save_oracle", "no/such/folder.npz"], ["--save_oracle no/such/folder.npz: there is no folder no/such"]),
    ],
)
def test_bad_flags_end_with_one_line_and_write_nothing(flags, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "good.npz", **arrays())
    before = snapshot(tmp_path)
    assert run(*flags, *folders(tmp_path)) == 2
    assert_one_line_error(capsys, *words)
    assert snapshot(tmp_path) == before


@needs_authors
def test_the_authors_three_files_give_one_oracle():
    states = [load_oracle(AUTHORS / f"target_params{end}").state_dict() for end in (".npz", ".pkl", "_py3.pkl")]
    assert same(states[0], states[1]) and same(states[0], states[2])


@needs_authors
def test_the_authors_oracle_has_its_entropy_and_density():
    oracle = load_oracle(AUTHORS / "target_params.npz")
    value, error = entropy(oracle, 4000, 20, torch.Generator().manual_seed(0))
    assert value == pytest.approx(5.743, abs=0.02) and error < 0.01
    with np.load(AUTHORS / "target_params.npz", allow_pickle=False) as archive:
        weights = dict(archive)
    tokens = torch.randint(5000, (40, 20), generator=torch.Generator().manual_seed(1))
    tokens = torch.cat([tokens, oracle.sample(40, 20, torch.Generator().manual_seed(2))])
    np.testing.assert_allclose(oracle.nll(tokens).numpy(), reference_nll(weights, tokens.numpy()), atol=1e-5, rtol=1e-5)
