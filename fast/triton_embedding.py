"""Rows of an embedding in Triton, with the gradient of the embedding, on a GPU.

torch's kernel for few rows takes them one after another. Here each token's first row adds up the gradients of all its rows,
always in the same order.

Shapes: M rows, V tokens in the vocabulary, E embedding.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_ROWS = 3072  # each row looks at all others; torch sorts more rows than these
ROWS, INPUTS = 64, 64  # of a program: rows at a time and numbers of a row


def embed(tokens: Tensor, weight: Tensor) -> Tensor:
    """The embedding of each token, with a first derivative: tokens (...), weight float32 (V, E) -> (..., E)."""
    if tokens.numel() > MOST_ROWS:
        return torch.nn.functional.embedding(tokens, weight)
    return _Embed.apply(tokens, weight)


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.vocab_size = len(weight)
        return torch.nn.functional.embedding(tokens, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        (tokens,) = ctx.saved_tensors
        rows, inputs = tokens.numel(), gradient.shape[-1]
        of_weight = gradient.new_zeros(ctx.vocab_size, inputs)
        _add_up[rows, triton.cdiv(inputs, INPUTS)](
            tokens.contiguous(), gradient.contiguous(), of_weight, rows, inputs, ROWS=ROWS, INPUTS=INPUTS
        )
        return None, of_weight


@triton.jit(do_not_specialize=["rows"])
def _add_up(tokens, gradient, of_weight, rows, inputs, ROWS: tl.constexpr, INPUTS: tl.constexpr):
    row, at = tl.program_id(0), tl.program_id(1) * INPUTS + tl.arange(0, INPUTS)
    token = tl.load(tokens + row)
    earlier = 0
    for done in range(0, row, ROWS):
        other = done + tl.arange(0, ROWS)
        earlier += tl.sum((tl.load(tokens + other, mask=other < row, other=-1) == token).to(tl.int32), axis=0)
    if earlier == 0:
        parts = tl.zeros((ROWS, INPUTS), tl.float32)
        for done in range(row, rows, ROWS):
            other = done + tl.arange(0, ROWS)
            same = tl.load(tokens + other, mask=other < rows, other=-1) == token
            parts += tl.load(
                gradient + other[:, None] * inputs + at[None, :], mask=same[:, None] & (at < inputs)[None, :], other=0.0
            )
        tl.store(of_weight + token * inputs + at, tl.sum(parts, axis=0), mask=at < inputs)
