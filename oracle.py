"""The oracle G_oracle: an LSTM with fixed random weights that stands for the real world (paper, "Synthetic Data Experiments").

Because its density is known, the quality of generated sequences can be measured exactly, up to sampling error. Its weights are
drawn from a seed, or read from a file: the authors' own, or one that `save_oracle` wrote.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from generator import Generator
from support.authors_pickle import read_arrays
from support.errors import UserError
from support.files import regular_size, write_atomically
from support.npz import StoredArray, open_npz

# Standard deviations of the oracle's weights: "glorot" in the TensorFlow code whose sizes `default` has, "normal" in the authors'.
ORACLE_INIT = {
    "glorot": dict(embedding_std=1.0, output_std=1.0, output_bias_std=1.0, lstm_std=None),
    "normal": dict(embedding_std=1.0, output_std=1.0, output_bias_std=1.0, lstm_std=1.0),
}
# The arrays of the authors' file, in its order. Gates: i input, f forget, og output, c candidate; a gate is x·W + h·U + b.
GATES = ("i", "f", "og", "c")
NAMES = ("emb", *(f"{kind}{gate}" for gate in GATES for kind in "WUb"), "Wo", "bo")
TORCH_GATES = ("i", "f", "c", "og")  # nn.LSTM's order
LARGEST_NPZ = 2**30  # bytes, of the file and of what is in it


def make_oracle(vocab_size: int, emb_dim: int, hidden_dim: int, init: str, rng: torch.Generator) -> Generator:
    """A random oracle, not trainable. `init` is a key of ORACLE_INIT; `rng` a CPU random stream."""
    oracle = Generator(vocab_size, emb_dim, hidden_dim).initialise(rng, **ORACLE_INIT[init])
    return oracle.requires_grad_(False)


@torch.no_grad()
def load_oracle(path: str | Path) -> Generator:
    """An oracle from a file, not trainable.

    Args:
        path: `.npz` with the arrays of NAMES, or the authors' pickle (a list of them in that order) from Python 2 or 3.
            Nothing in the file is executed.

    Raises:
        UserError: the file is missing, broken or too large, or its arrays are not those of one LSTM.
    """
    path = Path(path)
    try:
        arrays, sizes = _read(path)
        for name, values in arrays.items():
            if not np.isfinite(values).all():
                raise ValueError(f"{name} holds values that are not finite")
    except OSError as error:
        raise UserError(f"--oracle_params {path}: {error.strerror or error}") from error
    except MemoryError:
        raise
    except Exception as error:  # a broken file can make the readers raise anything
        raise UserError(f"--oracle_params {path}: {str(error) or 'not an oracle'}") from error
    oracle = Generator(*sizes)
    weights = {name: torch.tensor(values) for name, values in arrays.items()}
    oracle.embed.weight.copy_(weights["emb"])
    for kind, parameter in (("W", oracle.lstm.weight_ih_l0), ("U", oracle.lstm.weight_hh_l0), ("b", oracle.lstm.bias_ih_l0)):
        parameter.copy_(torch.cat([weights[f"{kind}{gate}"].t() for gate in TORCH_GATES]))
    oracle.lstm.bias_hh_l0.zero_()
    oracle.output.weight.copy_(weights["Wo"].t())
    oracle.output.bias.copy_(weights["bo"])
    return oracle.requires_grad_(False)


def save_oracle(oracle: Generator, path: Path) -> None:
    """Write an oracle as `.npz`, in the form that `load_oracle` reads; equal oracles give equal bytes.

    Raises:
        UserError: the file is there already, with something else in it.
        OSError: the file can't be written.
    """
    lstm, hidden = oracle.lstm, oracle.lstm.hidden_size
    arrays = {"emb": oracle.embed.weight, "Wo": oracle.output.weight.t(), "bo": oracle.output.bias}
    for kind, values in (("W", lstm.weight_ih_l0), ("U", lstm.weight_hh_l0), ("b", lstm.bias_ih_l0 + lstm.bias_hh_l0)):
        arrays |= {f"{kind}{gate}": part.t() for gate, part in zip(TORCH_GATES, values.split(hidden), strict=True)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in NAMES:
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(arrays[name].detach().cpu().numpy()), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())  # ZipInfo's date is fixed
    data = buffer.getvalue()
    if path.exists():
        if not (path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data):
            raise UserError(f"--save_oracle {path}: there is a file already, with something else in it")
        return
    write_atomically(path, lambda file: file.write(data))


def _read(path: Path) -> tuple[dict[str, np.ndarray], tuple[int, int, int]]:
    """The arrays of a file by name; and V, E and H."""
    regular_size(path)
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if is_zip:
        with open_npz(path, NAMES, LARGEST_NPZ) as stored:
            sizes = _check_shapes(stored)  # before anything is unpacked
            return {name: array.read() for name, array in stored.items()}, sizes
    values = read_arrays(path)
    if len(values) != len(NAMES):
        raise ValueError(f"{len(values)} arrays, not {len(NAMES)}")
    arrays = dict(zip(NAMES, values, strict=True))
    return arrays, _check_shapes(arrays)


def _check_shapes(arrays: Mapping[str, np.ndarray | StoredArray]) -> tuple[int, int, int]:
    """V, E and H of the arrays; raises ValueError where they do not fit each other."""
    if len(arrays["emb"].shape) != 2 or len(arrays["Ui"].shape) != 2:
        raise ValueError("emb and Ui must have two dimensions")
    (vocab_size, emb_dim), hidden = arrays["emb"].shape, arrays["Ui"].shape[0]
    shapes = {"emb": (vocab_size, emb_dim), "Wo": (hidden, vocab_size), "bo": (vocab_size,)}
    for gate in GATES:
        shapes |= {f"W{gate}": (emb_dim, hidden), f"U{gate}": (hidden, hidden), f"b{gate}": (hidden,)}
    if not min(vocab_size, emb_dim, hidden):
        raise ValueError("an array is empty")
    for name, shape in shapes.items():
        if arrays[name].dtype != np.float32:
            raise ValueError(f"{name} is {arrays[name].dtype}, not float32")
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has shape {arrays[name].shape}, not {shape}")
    return vocab_size, emb_dim, hidden
