"""float32 numbers as sums of two of TF32, which tensor cores multiply.

x is high + low, each rounded to the 11 bits that TF32 keeps, with a relative error of about 2^-23. Three products, high·high +
high·low + low·high, are then as exact as one of float32 numbers, and several times faster on GPUs with tensor cores. These cut off
what they add to a large sum, so that a product is summed from 0 and added to the total outside of them: on an H200 the largest
error of D's features at the paper's sizes is then 3.5e-6, by torch in float32 4.5e-6, and with one sum for everything it would be
1.2e-4.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

NUMBERS = 1024  # of a program


def split(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The high and the low part of each number: contiguous float32 (...) -> two of the same shape."""
    high, low = torch.empty_like(numbers), torch.empty_like(numbers)
    _split[triton.cdiv(numbers.numel(), NUMBERS),](numbers, high, low, numbers.numel(), NUMBERS=NUMBERS)
    return high, low


@triton.jit(do_not_specialize=["number"])
def _split(numbers, high, low, number, NUMBERS: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * NUMBERS + tl.arange(0, NUMBERS)
    first, second = parts(tl.load(numbers + at, mask=at < number, other=0.0))
    tl.store(high + at, first, mask=at < number)
    tl.store(low + at, second, mask=at < number)


@triton.jit
def parts(x):
    """The high and the low part of each number of a block; products of infinite ones are NaN."""
    high = _rounded(x)
    return high, _rounded(x - high)


@triton.jit
def _rounded(x):
    """The nearest number with 11 bits; what is not a number stays so."""
    bits = (x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000
    return tl.where(x != x, x, bits.to(tl.float32, bitcast=True))


@triton.jit
def product(high, low, other_high, other_low, total):
    """`total` plus the product of two blocks given by their parts."""
    own = tl.dot(low, other_high, tl.zeros_like(total), input_precision="tf32")
    own = tl.dot(high, other_low, own, input_precision="tf32")
    return total + tl.dot(high, other_high, own, input_precision="tf32")
