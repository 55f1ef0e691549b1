"""The divergence of two output layers' token distributions, with its gradient, in chunks of rows that fit the cache.

As in fast/cross_entropy.py the gradient is computed together with the value, so that the logits of all B·T tokens are never kept.
The plain way is `(p * (log p − log q)).sum()` of two log-softmaxes; a test holds both to the same values and gradients.

Shapes: M = B·T tokens, H hidden units (of each model), V tokens in the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fast.categorical import chunk_rows


def weighted_kl(
    hidden: Tensor, output: nn.Linear, other_hidden: Tensor, other: nn.Linear, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Σ_i weights_i · KL(p_i ‖ q_i), p_i = softmax(output(hidden_i)) and q_i = softmax(other(other_hidden_i)).

    Args:
        hidden: (M, H); it and the output layer get first derivatives.
        output: the output layer of p.
        other_hidden: (M, H'); no derivative is taken for q.
        other: the output layer of q.
        weights: (M,); no derivative is taken for them.

    Returns:
        The sum, a scalar, and KL(p_i ‖ q_i) of each row without a derivative, (M,), both in nats.
    """
    return _WeightedKl.apply(hidden, output.weight, output.bias, other_hidden, other.weight, other.bias, weights)


class _WeightedKl(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        other_hidden: Tensor,
        other_weight: Tensor,
        other_bias: Tensor,
        weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        rows = chunk_rows(len(weight), weight.device)
        hidden_gradient, weight_gradient, bias_gradient = (torch.zeros_like(t) for t in (hidden, weight, bias))
        divergences = []
        for first in range(0, len(hidden), rows):
            part = slice(first, first + rows)
            log_p = torch.addmm(bias, hidden[part], weight.t()).log_softmax(dim=1)  # (R, V)
            log_ratio = torch.addmm(other_bias, other_hidden[part], other_weight.t()).log_softmax(dim=1).neg_().add_(log_p)
            p = log_p.exp_()
            divergence = (p * log_ratio).sum(dim=1, keepdim=True)  # (R, 1)
            divergences.append(divergence[:, 0])
            gradient = log_ratio.sub_(divergence).mul_(p).mul_(weights[part, None])  # of the logits
            torch.mm(gradient, weight, out=hidden_gradient[part])
            weight_gradient.addmm_(gradient.t(), hidden[part])
            bias_gradient.add_(gradient.sum(dim=0))
        each = torch.cat(divergences)
        ctx.save_for_backward(hidden_gradient, weight_gradient, bias_gradient)
        ctx.mark_non_differentiable(each)
        return (each * weights).sum(), each

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, _of_each: Tensor) -> tuple[Tensor | None, ...]:
        return (*(saved * gradient for saved in ctx.saved_tensors), None, None, None, None)
