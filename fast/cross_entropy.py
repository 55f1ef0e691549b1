"""The output layer and its cross-entropy in one function, in chunks of rows that fit the cache.

Autograd would keep the logits of all B·T tokens and read them several times more. Here the gradient is computed together with
the loss: a chunk's logits become its probabilities, then its gradient, in the same memory. The plain way is
`F.cross_entropy(hidden @ Wᵀ + b, targets)`; tests hold both to the same values and gradients.

Shapes: M = B·T tokens, H hidden units, V tokens in the vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from fast.categorical import chunk_rows
from fast.kernel import CHUNK, Kernel, NativeLayer
from fast.native import kernel_for
from support.threads import run_all, scratch, slices

LOWEST_LOG_PROBABILITY = -80.0  # exp of less is near the denormals, slow on a CPU; as a gradient it changes no float32 weight
NATIVE_ROWS = 1920  # that one thread gives to the kernel at a time
GRADIENTS = 2_000_000  # of logits that the kernel leaves in memory: more don't stay in the caches until they are read


def weighted_nll(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Σ_i weights_i · −log softmax(hidden_i Wᵀ + b)[target_i], with first derivatives for hidden, weight and bias.

    Args:
        hidden: (M, H).
        weight: W, (V, H).
        bias: b, (V,).
        targets: int64 (M,).
        weights: (M,); no derivative is taken for them.

    Returns:
        A scalar, in nats.

    Raises:
        RuntimeError: a target is not a token.
    """
    kernel = kernel_for(weight)
    if kernel is not None and hidden.dtype == bias.dtype == weight.dtype:
        return _NativeWeightedNll.apply(kernel, hidden, weight, bias, targets, weights)
    return _WeightedNll.apply(hidden, weight, bias, targets, weights)


@torch.no_grad()
def token_nll(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """−log softmax(hidden_i Wᵀ + b)[target_i], without gradients: (M, H) and (M,) -> (M,), in nats; arguments as above."""
    result = torch.empty_like(hidden[:, 0])
    kernel = kernel_for(weight)
    layer = None if kernel is None else NativeLayer(kernel, weight, bias)
    matrix = torch.cat([weight.t(), bias[None]]) if layer is None else None  # (H + 1, V)

    def task(rows: slice) -> None:
        part, index = hidden[rows], targets[rows]
        if layer is not None:
            result[rows] = layer.log_sums(part) - ((part * weight[index]).sum(dim=1) + bias[index])
            return
        padded = torch.nn.functional.pad(part, (0, 1), value=1.0)
        logits = scratch("logits", (len(padded), len(weight)), matrix)
        torch.mm(padded, matrix, out=logits)
        target = logits.gather(1, index[:, None])
        largest = logits.amax(dim=1, keepdim=True)
        weights = logits.sub_(largest).clamp_(min=LOWEST_LOG_PROBABILITY).exp_()
        result[rows] = (weights.sum(dim=1, keepdim=True).log_() + (largest - target))[:, 0]

    size = 2 * chunk_rows(len(weight), weight.device) if layer is None else NATIVE_ROWS
    run_all([partial(task, rows) for rows in slices(len(hidden), size)], weight.device)
    return result


class _WeightedNll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        rows = chunk_rows(len(weight), weight.device)
        # The bias as one more row of the matrix, with a constant 1 in the hidden state: half the time on a CPU.
        matrix = torch.cat([weight.t(), bias[None]])  # (H + 1, V)
        padded = torch.nn.functional.pad(hidden, (0, 1), value=1.0)  # (M, H + 1)
        weights = weights[:, None]
        weighted = padded * weights  # H + 1 products a row instead of V
        matrix_gradient = torch.zeros_like(matrix)
        hidden_gradient = torch.empty_like(hidden)
        losses = []
        for first in range(0, len(hidden), rows):
            part = slice(first, first + rows)
            index = targets[part, None]
            logits = scratch("logits", (len(index), len(weight)), weight)
            torch.mm(padded[part], matrix, out=logits)
            torch.log_softmax(logits, 1, out=logits)
            losses.append(logits.gather(1, index))
            gradient = logits.clamp_(min=LOWEST_LOG_PROBABILITY).exp_()  # of the logits: probabilities, less 1 at the target
            gradient.scatter_add_(1, index, gradient.new_full((1, 1), -1.0).expand_as(index))
            matrix_gradient.addmm_(weighted[part].t(), gradient)
            torch.mm(gradient, weight, out=hidden_gradient[part])
        ctx.save_for_backward(hidden_gradient.mul_(weights), matrix_gradient)
        return -(torch.cat(losses) * weights).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden_gradient, matrix_gradient = ctx.saved_tensors
        matrix_gradient = matrix_gradient * gradient
        return hidden_gradient * gradient, matrix_gradient[:-1].t(), matrix_gradient[-1], None, None


class _NativeWeightedNll(torch.autograd.Function):
    """The same; the kernel computes the logits and their gradients in one pass, torch the products with these."""

    @staticmethod
    def forward(ctx: Any, kernel: Kernel, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        hidden, weight, targets = hidden.contiguous(), weight.contiguous(), targets.long().contiguous()
        if not ((targets >= 0) & (targets < len(weight))).all():  # the kernel would write elsewhere
            raise RuntimeError(f"a target is none of {len(weight)} tokens")
        layer = NativeLayer(kernel, weight, bias)
        padded = torch.nn.functional.pad(hidden, (0, 1), value=1.0)  # (M, H + 1)
        losses, factors = torch.empty(len(hidden), dtype=torch.float64), hidden.new_empty(len(hidden))
        hidden_gradient, matrix_gradient = torch.empty_like(hidden), hidden.new_zeros(hidden.shape[1] + 1, len(weight))
        rows = CHUNK * max(1, GRADIENTS // (CHUNK * layer.columns))
        for part in slices(len(hidden), rows):
            gradients = layer.cross_entropy(hidden[part], targets[part], losses[part], factors[part])
            shares = (factors[part] * weights[part])[:, None]
            torch.mm(gradients, weight, out=hidden_gradient[part]).mul_(shares)
            matrix_gradient.addmm_((padded[part] * shares).t(), gradients)
        ctx.save_for_backward(hidden_gradient, matrix_gradient)
        return (losses * weights).sum().float()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden_gradient, matrix_gradient = ctx.saved_tensors
        weight_gradient = gradient.new_empty(matrix_gradient.shape[1], hidden_gradient.shape[1])  # laid out as the weight is
        torch.mul(matrix_gradient[:-1].t(), gradient, out=weight_gradient)
        return None, hidden_gradient * gradient, weight_gradient, matrix_gradient[-1] * gradient, None, None
