"""The functions of the compiled library, fast/kernels.c, and models laid out for them.

Shapes: M rows, K draws a row, T tokens of a sequence, E embedding, H hidden units, V tokens, V' columns with the surplus ones.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from support.threads import scratch

PANEL, MAX_PANELS, CHUNK = 32, 4, 192  # as in draw.c
ROWS, STEP_ROWS = 12, 6  # the largest of draw.c and lstm.c
UNITS, GATES = 16, 64  # as in lstm.c
COPY = 12  # products that take as long as copying a number from one order to another
PRODUCTS_OF_THREADS = 3_000_000  # fewer take one thread about as long as the others take to start


class Kernel(NamedTuple):
    """The functions of the compiled library; their calls release Python's lock. Those of training use torch's threads."""

    lay_out: Callable[..., None]
    lay_out_cell: Callable[..., None]
    draw: Callable[..., None]
    finish: Callable[..., None]
    convolve: Callable[..., None]
    convolution_gradients: Callable[..., None]
    cross_entropy: Callable[..., None]
    lstm_forward: Callable[..., None]
    lstm_backward: Callable[..., None]


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


class _Entropy(ctypes.Structure):
    """`entropy` of cross_entropy.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("output", "rows", "targets", "losses", "gradients", "factors", "space")),
        *((name, ctypes.c_int64) for name in ("stride", "count", "apart")),
    )


class Lstm(ctypes.Structure):
    """`lstm` of lstm_gradients.c. Addresses that a call does not need may be missing."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "recurrent", "read", "gates", "cells", "states")),
        *((name, ctypes.c_void_p) for name in ("gradient", "gate_gradients", "space")),
        *((name, ctypes.c_int64) for name in ("inputs", "hidden", "sequences", "length")),
    )


class Convolution(ctypes.Structure):
    """`convolution` of convolution.c: the filters of one width. Addresses that a call does not need may be missing."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "biases", "embedded", "features", "places")),
        *((name, ctypes.c_void_p) for name in ("gradient", "weight_gradient", "bias_gradient", "embedded_gradient")),
        *((name, ctypes.c_int64) for name in ("filters", "width", "sequences", "length", "inputs", "stride")),
    )


class Convolutions(ctypes.Structure):
    """`convolutions` of convolution.c."""

    _fields_ = (
        ("kinds", ctypes.POINTER(Convolution)),
        ("number", ctypes.c_int64),
        ("apart", ctypes.c_int64),
        ("space", ctypes.c_void_p),
    )


def kernel_of(library: Path) -> Kernel:
    """The kernel in a compiled library; raises OSError where there is none."""
    number, address = ctypes.c_int64, ctypes.c_void_p
    layer, cell, rows = ctypes.POINTER(_Layer), ctypes.POINTER(_Cell), [address, number]
    arguments = Kernel(
        lay_out=[layer, address, address, ctypes.c_float, address, number],
        lay_out_cell=[address] * 5 + [number] * 2,
        draw=[layer, *rows, number, address, number, address, address, address],
        finish=[layer, cell, *rows, address, number, *rows, number, address, *rows, address],
        convolve=[ctypes.POINTER(Convolutions), number],
        convolution_gradients=[ctypes.POINTER(Convolutions), number],
        cross_entropy=[ctypes.POINTER(_Entropy), number],
        lstm_forward=[ctypes.POINTER(Lstm), number],
        lstm_backward=[ctypes.POINTER(Lstm), number],
    )
    try:
        loaded = ctypes.CDLL(str(library))
        kernel = Kernel(*(getattr(loaded, name) for name in Kernel._fields))
        use_team = loaded.use_team
    except AttributeError as error:
        raise OSError(str(error)) from None
    for function, types in ((use_team, [address]), *zip(kernel, arguments, strict=True)):
        function.argtypes, function.restype = types, None
    use_team(torchs_team())
    os.register_at_fork(after_in_child=partial(use_team, None))
    return kernel


def torchs_team() -> int | None:
    """The address of the function that starts torch's threads (threads.c); None where its OpenMP library has none."""
    return ctypes.cast(getattr(ctypes.CDLL(None), "GOMP_parallel", None), ctypes.c_void_p).value


def threads_for(products: int) -> int:
    """How many threads so many products are worth: one, or all of torch's, since OpenMP would end and restart some for others."""
    return 1 if products < PRODUCTS_OF_THREADS else torch.get_num_threads()


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
        weight, bias = weight.detach().contiguous(), bias.detach().contiguous()
        vocab_size, hidden_dim = weight.shape
        group_panels = min(MAX_PANELS, max(1, round(math.sqrt(vocab_size) / PANEL)))
        groups = math.ceil(vocab_size / (group_panels * PANEL))
        self.columns = groups * group_panels * PANEL  # V'
        self.panels = weight.new_empty(self.columns * (hidden_dim + 1))
        self.order = None if order is None else order.contiguous()
        self.kernel = kernel
        sizes = (groups, group_panels, hidden_dim, vocab_size)
        self.layer = _Layer(self.panels.data_ptr(), None if order is None else self.order.data_ptr(), *sizes)
        scale = 1 / (temperature * math.log(2))  # weights are powers of 2
        bounds = weight.new_empty(groups * group_panels)
        given = (weight.data_ptr(), bias.data_ptr(), scale, bounds.data_ptr())
        kernel.lay_out(ctypes.byref(self.layer), *given, threads_for(COPY * self.panels.numel()))
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

    def cross_entropy(self, rows: Tensor, targets: Tensor, losses: Tensor, factors: Tensor) -> Tensor:
        """−log softmax of the targets, and its gradients for the logits, on torch's threads. For layers without an order.

        Args:
            rows: h, contiguous (M, H).
            targets: int64 (M,).
            losses: float64 (M,), receives the losses, in nats.
            factors: float32 (M,), receives a factor for each row.

        Returns:
            (M, V) in memory that the next call overwrites: times the factors, the gradients of the losses.
        """
        threads = threads_for(len(rows) * self.panels.numel())
        gradients = scratch("gradients of logits", (len(rows) + ROWS, self.columns), self.panels)
        space = scratch("cross entropy", (threads * self.space,), self.panels)
        tensors = (rows, targets, losses, gradients, factors, space)
        addresses = (tensor.data_ptr() for tensor in tensors)
        entropy = _Entropy(ctypes.addressof(self.layer), *addresses, rows.stride(0), len(rows), self.columns)
        self.kernel.cross_entropy(ctypes.byref(entropy), threads)
        return gradients[: len(rows), : self.layer.vocab]

    def _run(self, rows: Tensor, uniforms: int | None, draws: int, tokens: int | None, log_sums: int | None) -> None:
        """Call the kernel for rows whose numbers lie side by side; the others are addresses."""
        space = scratch("native draws", (self.space,), self.panels)
        given = (rows.data_ptr(), rows.stride(0), len(rows), uniforms, draws, tokens, log_sums)
        self.kernel.draw(ctypes.byref(self.layer), *given, space.data_ptr())


def cell_weights(kernel: Kernel, weights: Sequence[Tensor]) -> Tensor:
    """The weights of an LSTM cell, laid out for the kernel.

    Args:
        kernel: from `native.kernel_for`.
        weights: as `nn.LSTM` has them: for the inputs (4H, E), for the hidden state (4H, H), and two biases (4H,).
    """
    weights = [weight.detach().contiguous() for weight in weights]
    inputs, hidden_dim = weights[0].shape[1], weights[1].shape[1]
    blocks = weights[0].new_empty(math.ceil(hidden_dim / UNITS), 1 + inputs + hidden_dim, GATES)
    kernel.lay_out_cell(blocks.data_ptr(), *(weight.data_ptr() for weight in weights), inputs, hidden_dim)
    return blocks


class NativeLstm:
    """An LSTM with its output layer, laid out for the kernel. Several threads may draw from it at once.

    Args:
        layer: the output layer.
        embedding: float32 (V, E).
        weights: as `cell_weights` takes them.
        end_token: the token after which only that one follows, or −1.
    """

    def __init__(self, layer: NativeLayer, embedding: Tensor, weights: Sequence[Tensor], end_token: int):
        self.weights = cell_weights(layer.kernel, weights)
        self.embedding = embedding.contiguous()
        self.output = layer
        hidden_dim = weights[1].shape[1]
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
