"""The LSTM over whole sequences in compiled code (fast/lstm_gradients.c), with gradients, on a CPU.

The plain way is `nn.LSTM`; tests hold both to the same values and gradients.

Shapes: B sequences, T tokens each, E embedding, H hidden units.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fast.kernel import GATES, STEP_ROWS, Kernel, Lstm, cell_weights, threads_for
from support.threads import scratch


def hidden_states(kernel: Kernel, embedded: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The hidden state after each step, from zero states, with first derivatives.

    Args:
        kernel: from `native.kernel_for`.
        embedded: float32 (B, T, E).
        weights: as `nn.LSTM` has them: for the inputs (4H, E), for the hidden state (4H, H), and two biases (4H,).

    Returns:
        (B, T, H).
    """
    return _HiddenStates.apply(kernel, embedded, *weights)


class _HiddenStates(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: Kernel, embedded: Tensor, *weights: Tensor) -> Tensor:
        (batch, length, inputs), hidden_dim = embedded.shape, weights[1].shape[1]
        read = embedded.new_zeros(batch, length, 1 + inputs + hidden_dim)
        read[:, :, 0] = 1
        read[:, :, 1 : 1 + inputs] = embedded
        gates = embedded.new_empty(batch, length, 4 * hidden_dim)
        cells, states = (embedded.new_empty(batch, length, hidden_dim) for _ in range(2))
        packed = cell_weights(kernel, weights)
        _call(kernel.lstm_forward, cells.shape, inputs, weights=packed, read=read, gates=gates, cells=cells, states=states)
        ctx.save_for_backward(read, gates, cells, *weights[:2])
        ctx.kernel = kernel
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        read, gates, cells, input_weight, recurrent = ctx.saved_tensors
        gate_gradients, inputs, hidden_dim = torch.empty_like(gates), input_weight.shape[1], recurrent.shape[1]
        size = 4 * hidden_dim * math.ceil(hidden_dim / GATES) * GATES + torch.get_num_threads() * 2 * STEP_ROWS * hidden_dim
        given = dict(recurrent=recurrent.contiguous(), gates=gates, cells=cells, gradient=gradient.contiguous())
        space = scratch("lstm", (size,), gates)
        _call(ctx.kernel.lstm_backward, cells.shape, inputs, **given, gate_gradients=gate_gradients, space=space)
        gate_gradients = gate_gradients.flatten(0, 1)  # (B·T, 4H)
        bias, *weights = torch.mm(gate_gradients.t(), read.flatten(0, 1)).split([1, inputs, hidden_dim], dim=1)
        embedded_gradient = torch.mm(gate_gradients, input_weight).view(*read.shape[:2], inputs)
        biases = (bias[:, 0] if needed else None for needed in ctx.needs_input_grad[4:])
        return None, embedded_gradient, *weights, *biases


def _call(function: Callable[..., None], shape: torch.Size, inputs: int, **tensors: Tensor) -> None:
    batch, length, hidden_dim = shape
    addresses = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    lstm = Lstm(**addresses, inputs=inputs, hidden=hidden_dim, sequences=batch, length=length)
    function(ctypes.byref(lstm), threads_for(batch * length * 4 * hidden_dim * (inputs + hidden_dim)))
