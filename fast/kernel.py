"""The functions of the compiled library, fast/kernels.c, and models laid out for them.

Shapes: M rows, K draws a row, T tokens of a sequence, E embedding, H hidden units, V tokens, P panels of 32 columns.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from support.threads import scratch

PANEL, MAX_PANELS, CHUNK = 32, 4, 192  # as in draw.c
UNITS, STEP_ROWS = 16, 6  # as in lstm.c
NO_WEIGHT = -1e30  # the bias of surplus columns


class Kernel(NamedTuple):
    """The functions of the compiled library; their calls release Python's lock."""

    draw: Callable[..., None]
    finish: Callable[..., None]
    convolve: Callable[..., None]
    convolution_gradients: Callable[..., None]


class _Layer(ctypes.Structure):
    """`layer` of draw.c."""

    _fields_ = (
        ("panels", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("groups", ctypes.c_int64),
        ("group_panels", ctypes.c_int64),
        ("hidden", ctypes.c_int64),
        ("vocab", ctypes.c_int64),
        ("bound", ctypes.c_float),
    )


class _Cell(ctypes.Structure):
    """`cell` of lstm.c."""

    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("embedding", ctypes.c_void_p),
        ("inputs", ctypes.c_int64),
        ("hidden", ctypes.c_int64),
        ("end_token", ctypes.c_int64),
    )


class Convolution(ctypes.Structure):
    """`convolution` of convolution.c: the filters of one width. Addresses that a call does not need may be missing.

    Attributes:
        owners: the tensors at these addresses, kept as long as this is.
    """

    owners: tuple[Tensor, ...]
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "biases", "embedded", "features", "places")),
        *((name, ctypes.c_void_p) for name in ("gradient", "weight_gradient", "bias_gradient", "embedded_gradient")),
        *((name, ctypes.c_int64) for name in ("filters", "width", "sequences", "length", "inputs", "stride")),
    )


def kernel_of(library: Path) -> Kernel:
    """The kernel in a compiled library; raises OSError where there is none."""
    number, address = ctypes.c_int64, ctypes.c_void_p
    layer, cell, rows = ctypes.POINTER(_Layer), ctypes.POINTER(_Cell), [address, number]
    try:
        loaded = ctypes.CDLL(str(library))
        kernel = Kernel(loaded.draw, loaded.finish, loaded.convolve, loaded.convolution_gradients)
    except AttributeError as error:
        raise OSError(str(error)) from None
    kernel.draw.argtypes = [layer, *rows, number, address, number, address, address, address]
    kernel.finish.argtypes = [layer, cell, *rows, address, number, *rows, number, address, *rows, address]
    for function in (kernel.convolve, kernel.convolution_gradients):
        function.argtypes = [ctypes.POINTER(Convolution), number, number, number, address]
    for function in kernel:
        function.restype = None
    return kernel


class NativeLayer:
    """An output layer, laid out for the kernel. Several threads may draw from it at once.

    Args:
        kernel: from `native.kernel_for`.
        weight: output weights W, float32 (V, H).
        bias: output bias b, (V,).
        temperature: the logits are divided by it.
        order: the tokens in the order of the cumulative sum, int64 (V,); None means 0 to V − 1.
    """

    def __init__(self, kernel: Kernel, weight: Tensor, bias: Tensor, temperature: float = 1.0, order: Tensor | None = None):
        order = torch.arange(len(weight)) if order is None else order
        vocab_size, hidden_dim = weight.shape
        group_panels = min(MAX_PANELS, max(1, round(math.sqrt(vocab_size) / PANEL)))
        groups = math.ceil(vocab_size / (group_panels * PANEL))
        scale = 1 / (temperature * math.log(2))  # weights are powers of 2
        rows = weight.new_zeros(groups * group_panels * PANEL, hidden_dim + 1)
        torch.mul(bias.detach()[order], scale, out=rows[:vocab_size, 0])
        torch.mul(weight.detach()[order], scale, out=rows[:vocab_size, 1:])
        bound = rows.norm(dim=1).max().item()
        rows[vocab_size:, 0] = NO_WEIGHT
        self.panels = rows.view(-1, PANEL, hidden_dim + 1).transpose(1, 2).contiguous()  # (P, H + 1, 32)
        self.order = order.contiguous()
        self.kernel = kernel
        self.layer = _Layer(self.panels.data_ptr(), self.order.data_ptr(), groups, group_panels, hidden_dim, vocab_size, bound)
        self.space = CHUNK * (hidden_dim + groups)

    def draw(self, rows: Tensor, uniforms: Tensor) -> Tensor:
        """One token for each uniform number: float64 (M,) or (M, K); h is the first H numbers of a row, (M, H or more)."""
        tokens = torch.empty(uniforms.shape, dtype=torch.int64)
        numbers = uniforms.contiguous()
        self._run(rows, numbers.data_ptr(), numbers.numel() // max(1, len(rows)), tokens.data_ptr(), None)
        return tokens

    def log_sums(self, rows: Tensor) -> Tensor:
        """Logarithm of Σ_v exp(logit_v) of each row, in nats: (M, H or more) -> float64 (M,)."""
        sums = torch.empty(len(rows), dtype=torch.float64)
        self._run(rows, None, 0, None, sums.data_ptr())
        return sums

    def _run(self, rows: Tensor, uniforms: int | None, draws: int, tokens: int | None, log_sums: int | None) -> None:
        """Call the kernel for rows whose numbers lie side by side; the others are addresses."""
        space = scratch("native draws", (self.space,), self.panels)
        given = (rows.data_ptr(), rows.stride(0), len(rows), uniforms, draws, tokens, log_sums)
        self.kernel.draw(ctypes.byref(self.layer), *given, space.data_ptr())


class NativeLstm:
    """An LSTM with its output layer, laid out for the kernel. Several threads may draw from it at once.

    Args:
        layer: the output layer.
        embedding: float32 (V, E).
        weights: the biases of the gates, then their weights for the embedding and for the hidden state, (1 + E + H, 4, H); gates
            in the order i, f, o, g.
        end_token: the token after which only that one follows, or −1.
    """

    def __init__(self, layer: NativeLayer, embedding: Tensor, weights: Tensor, end_token: int):
        hidden_dim = weights.shape[2]
        units_of_log_2 = torch.tensor([1.0, 1.0, 1.0, 2.0])[:, None] / math.log(2)  # tanh(x) = 2 sigmoid(2x) − 1
        blocks = torch.nn.functional.pad(weights * units_of_log_2, (0, -hidden_dim % UNITS)).unflatten(2, (-1, UNITS))
        self.weights = blocks.permute(2, 0, 1, 3).contiguous()  # (blocks, 1 + E + H, 4, 16)
        self.embedding = embedding.contiguous()
        self.output = layer
        self.cell = _Cell(self.weights.data_ptr(), self.embedding.data_ptr(), embedding.shape[1], hidden_dim, end_token)
        self.space = layer.space + STEP_ROWS * hidden_dim

    def finish(self, tokens: Tensor, first: int, last: Tensor, padded: Tensor, cell: Tensor, uniforms: Tensor) -> None:
        """`fast.decoder.Decoder.finish`; the states are h, the first H numbers of a row of `padded`, and the cells, (M, H)."""
        space, last = scratch("native draws", (self.space,), self.weights), last.contiguous()
        states = (padded.data_ptr(), padded.stride(0), cell.data_ptr(), len(tokens))
        sequences = (tokens.data_ptr(), tokens.shape[1], first, last.data_ptr())
        numbers = (uniforms.data_ptr(), uniforms.stride(0))
        self.output.kernel.finish(
            ctypes.byref(self.output.layer), ctypes.byref(self.cell), *states, *sequences, *numbers, space.data_ptr()
        )
