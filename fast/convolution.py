"""The convolutions of D in compiled code (fast/convolution.c), with gradients, on a CPU.

The largest response of a filter comes from one window of a sequence, and so does all of its gradient. Autograd would multiply with
all windows, of which the others have a gradient of zero. The plain way is in `discriminator.Discriminator`; tests hold both to the
same values and gradients. Of windows with equal responses the first one gets the gradient, which torch divides among them: the
same where equal responses come from equal tokens.

Shapes: B sequences, T tokens each, E embedding, w width and f number of the filters of one kind, F filters in all.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fast.kernel import PANEL, Convolution, Convolutions, Kernel, threads_for
from support.threads import scratch


def largest_responses(kernel: Kernel, embedded: Tensor, filters: Sequence[tuple[int, Tensor, Tensor]]) -> Tensor:
    """ReLU of each filter's largest response over all windows, bias included, with first derivatives.

    Args:
        kernel: from `native.kernel_for`.
        embedded: embedded tokens, float32 (B, T, E).
        filters: of each kind the width w, at most T, the weights (f, E·w) and the biases (f,).

    Returns:
        (B, F), kind after kind.

    Raises:
        RuntimeError: a filter is wider than the sequences.
    """
    widths = tuple(width for width, *_ in filters)
    if max(widths) > embedded.shape[1]:
        raise RuntimeError(f"filters of width {max(widths)} for sequences of {embedded.shape[1]} tokens")
    return _LargestResponses.apply(kernel, widths, embedded, *(tensor for _, *tensors in filters for tensor in tensors))


class _LargestResponses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: Kernel, widths: tuple[int, ...], embedded: Tensor, *parameters: Tensor) -> Tensor:
        embedded, parameters = embedded.contiguous(), tuple(parameter.contiguous() for parameter in parameters)
        features = embedded.new_empty(len(embedded), sum(map(len, parameters[1::2])))
        places = torch.empty(features.shape, dtype=torch.int32)
        kinds = _kinds(widths, embedded, parameters, features, places)
        _on_threads(kernel.convolve, kinds, embedded)
        ctx.save_for_backward(embedded, features, places, *parameters)
        ctx.kernel, ctx.widths = kernel, widths
        return features

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        embedded, features, places, *parameters = ctx.saved_tensors
        gradient, embedded_gradient = gradient.contiguous(), torch.zeros_like(embedded)
        gradients = [torch.empty_like(parameter) for parameter in parameters]
        kinds = _kinds(ctx.widths, embedded, parameters, features, places)
        for kind, weights, biases in zip(kinds, gradients[::2], gradients[1::2], strict=True):
            kind.gradient = gradient.data_ptr() + (kind.features - features.data_ptr())  # the same column
            kind.weight_gradient, kind.bias_gradient = weights.data_ptr(), biases.data_ptr()
            kind.embedded_gradient = embedded_gradient.data_ptr()
        _on_threads(ctx.kernel.convolution_gradients, kinds, embedded)
        return None, None, embedded_gradient, *gradients


def _kinds(
    widths: tuple[int, ...], embedded: Tensor, parameters: Sequence[Tensor], features: Tensor, places: Tensor
) -> list[Convolution]:
    kinds, sizes, first = [], (*embedded.shape, features.shape[1]), 0
    for width, weights, biases in zip(widths, parameters[::2], parameters[1::2], strict=True):
        own = (results.data_ptr() + first * results.element_size() for results in (features, places))
        given = (weights.data_ptr(), biases.data_ptr(), embedded.data_ptr(), *own)
        kinds.append(Convolution(*given, None, None, None, None, len(biases), width, *sizes))
        first += len(biases)
    return kinds


def _on_threads(function: Callable[..., None], kinds: list[Convolution], embedded: Tensor) -> None:
    batch, length, inputs = embedded.shape
    numbers = PANEL * (2 * batch + inputs * max(kind.width for kind in kinds))
    products = sum(batch * (length - kind.width + 1) * inputs * kind.width * kind.filters for kind in kinds)
    threads = threads_for(products)
    space = scratch("convolution", (threads * numbers,), embedded)
    convolutions = Convolutions((Convolution * len(kinds))(*kinds), len(kinds), numbers, space.data_ptr())
    function(ctypes.byref(convolutions), threads)
