"""The LSTM step and the draw of a token in Triton, on a GPU: what fast/lstm.c and fast/draw.c compute on a CPU.

A draw is two launches. The first computes the logits of COLUMNS tokens at a time and stores their largest and the sum of their
exponentials, never the V numbers of a row. The second inverts the cumulative distribution: it chooses a group of tokens by the
sums, computes the logits of that group again, and chooses a token. The tokens are in the order of fast/categorical.py, so the
draws are torch's, except where a uniform number lies within rounding of the boundary between two of them.

Shapes: M rows, K draws a row, H hidden units, V tokens, G groups of COLUMNS tokens.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fast.triton_split import parts, product, split

MOST_HIDDEN = 64  # units; the weights of more would not fit into the registers
MOST_TOKENS = 2**18  # the sums of more groups would not fit either
ROWS, COLUMNS = 64, 64  # of a tile of logits: rows and tokens
STEP_ROWS = 16  # of a tile of LSTM steps
PROGRAMS = 600  # of one launch, about: a few for each multiprocessor of a large GPU


class TritonLayer:
    """An output layer on a GPU, laid out for drawing.

    Args:
        weight: output weights, (V, H) with H ≤ MOST_HIDDEN.
        bias: (V,).
        temperature: divides the logits.
        order: the tokens in the order of the cumulative distribution, (V,), on the same device.
    """

    def __init__(self, weight: Tensor, bias: Tensor, temperature: float, order: Tensor):
        self.order = order
        self.weights = weight.detach().index_select(0, order) / temperature  # (V, H)
        self.parts = split(self.weights)
        self.bias = bias.detach().index_select(0, order) / temperature
        self.groups = triton.cdiv(len(bias), COLUMNS)

    def draw(self, rows: Tensor, uniforms: Tensor) -> Tensor:
        """One token for each uniform number: rows (M, ≥ H), uniforms (M,) or (M, K) in [0, 1) float64 -> int64 like uniforms."""
        num, (vocab_size, hidden_dim) = len(rows), self.weights.shape
        drawn = torch.empty(uniforms.shape, dtype=torch.int64, device=rows.device)
        if not drawn.numel():
            return drawn
        uniforms = uniforms.contiguous()
        largest, sums = rows.new_empty(2, num, self.groups).unbind()
        tiles = triton.cdiv(num, ROWS)
        each = triton.cdiv(self.groups, max(1, PROGRAMS // tiles))  # groups of a program
        hidden = max(16, triton.next_power_of_2(hidden_dim))
        sizes = (hidden_dim, vocab_size, self.groups)
        _group_sums[tiles, triton.cdiv(self.groups, each)](
            *(rows, rows.stride(0), *self.parts, self.bias, largest, sums, num, *sizes, each),
            ROWS=ROWS, COLUMNS=COLUMNS, HIDDEN=hidden, num_stages=2,
        )  # fmt: skip
        _choose[drawn.numel(),](
            *(rows, rows.stride(0), self.weights, self.bias, self.order, largest, sums, uniforms, drawn),
            *(drawn.numel() // num, *sizes),
            GROUPS=triton.next_power_of_2(self.groups), COLUMNS=COLUMNS, HIDDEN=hidden, num_warps=2,
        )  # fmt: skip
        return drawn


def lstm_step(tokens: Tensor, padded: Tensor, cell: Tensor, table: Tensor, recurrent: Tensor) -> None:
    """Read one token a row, in place.

    Args:
        tokens: (M,).
        padded: the hidden state in its first H columns, (M, ≥ H) with H ≤ MOST_HIDDEN.
        cell: (M, H).
        table: the input's part of the gates i, f, o, g for each token, (V, 4H).
        recurrent: (H, 4H).
    """
    num, hidden_dim = cell.shape
    if num:
        _step[triton.cdiv(num, STEP_ROWS),](
            *(tokens, tokens.stride(0), padded, padded.stride(0), cell, cell.stride(0), table, recurrent, num, hidden_dim),
            ROWS=STEP_ROWS, HIDDEN=max(16, triton.next_power_of_2(hidden_dim)), num_warps=8,
        )  # fmt: skip


@triton.jit(do_not_specialize=["num", "groups", "each", "vocab"])
def _group_sums(
    rows, stride, weights, weights_low, bias, largest, sums, num, hidden, vocab, groups, each,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, HIDDEN: tl.constexpr,
):  # fmt: skip
    row, unit, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, HIDDEN), tl.arange(0, COLUMNS)
    there = row.to(tl.int64)
    state = tl.load(rows + there[:, None] * stride + unit[None, :], mask=(row < num)[:, None] & (unit < hidden)[None, :], other=0.0)
    high, low = parts(state)
    first = tl.program_id(1) * each
    for group in range(first, min(first + each, groups)):
        token = group * COLUMNS + column
        known = token < vocab
        taps, given = token.to(tl.int64)[None, :] * hidden + unit[:, None], known[None, :] & (unit < hidden)[:, None]
        factors, factors_low = tl.load(weights + taps, mask=given, other=0.0), tl.load(weights_low + taps, mask=given, other=0.0)
        logits = product(high, low, factors, factors_low, tl.zeros((ROWS, COLUMNS), tl.float32))
        logits += tl.load(bias + token, mask=known, other=float("-inf"))[None, :]
        top = tl.max(logits, axis=1)
        total = tl.where(top == float("-inf"), 0.0, tl.sum(tl.exp(logits - top[:, None]), axis=1))
        tl.store(largest + there * groups + group, top, mask=row < num)
        tl.store(sums + there * groups + group, total, mask=row < num)


@triton.jit(do_not_specialize=["draws", "groups", "vocab"])
def _choose(
    rows, stride, weights, bias, order, largest, sums, uniforms, drawn, draws, hidden, vocab, groups,
    GROUPS: tl.constexpr, COLUMNS: tl.constexpr, HIDDEN: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(0).to(tl.int64)
    row = number // draws
    group, column, unit = tl.arange(0, GROUPS), tl.arange(0, COLUMNS), tl.arange(0, HIDDEN)
    below_one = tl.full((), 0.9999999999999998, tl.float64)  # so that rounding can't reach the total; a plain number is float32
    tops = tl.load(largest + row * groups + group, mask=group < groups, other=float("-inf"))
    parts = tl.load(sums + row * groups + group, mask=group < groups, other=0.0)
    parts = (parts * tl.exp(tops - tl.max(tops, axis=0))).to(tl.float64)
    totals = tl.cumsum(parts, axis=0)
    target = tl.max(totals, axis=0) * tl.load(uniforms + number) * below_one
    # The first group whose total exceeds the target; where weights are not numbers, some group.
    chosen = tl.min(tl.where((totals > target) & (parts > 0), group, GROUPS), axis=0)
    chosen = tl.minimum(chosen, groups - 1)
    before = tl.max(tl.where(group < chosen, totals, 0.0), axis=0)
    share = (target - before) / tl.sum(tl.where(group == chosen, parts, 0.0), axis=0)
    share = tl.minimum(tl.maximum(share, 0.0), 1.0)  # of the group's weight: the sum below differs from that above by rounding
    token = chosen * COLUMNS + column
    known = token < vocab
    taps = weights + token.to(tl.int64)[:, None] * hidden + unit[None, :]
    factors = tl.load(taps, mask=known[:, None] & (unit < hidden)[None, :], other=0.0)
    state = tl.load(rows + row * stride + unit, mask=unit < hidden, other=0.0)
    logits = tl.sum(factors * state[None, :], axis=1) + tl.load(bias + token, mask=known, other=float("-inf"))
    inner = tl.exp(logits - tl.max(logits, axis=0)).to(tl.float64)
    within = tl.cumsum(inner, axis=0)
    target = tl.max(within, axis=0) * share * below_one
    place = tl.min(tl.where((within > target) & (inner > 0), column, COLUMNS), axis=0)
    tl.store(drawn + number, tl.load(order + tl.minimum(chosen * COLUMNS + place, vocab - 1)))


@triton.jit(do_not_specialize=["num"])
def _step(
    tokens, token_stride, padded, stride, cell, cell_stride, table, recurrent, num, hidden, ROWS: tl.constexpr, HIDDEN: tl.constexpr
):  # fmt: skip
    row, unit = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, HIDDEN)
    there = row.to(tl.int64)
    inside = (row < num)[:, None] & (unit < hidden)[None, :]
    square = (unit < hidden)[:, None] & (unit < hidden)[None, :]
    states = padded + there[:, None] * stride + unit[None, :]
    cells = cell + there[:, None] * cell_stride + unit[None, :]
    state = tl.load(states, mask=inside, other=0.0)
    entry = table + tl.load(tokens + there * token_stride, mask=row < num, other=0)[:, None] * (4 * hidden) + unit[None, :]
    taps = recurrent + unit[:, None] * (4 * hidden) + unit[None, :]
    high, low = parts(state)
    gate = tl.load(entry, mask=inside, other=0.0)
    gate = tl.sigmoid(product(high, low, *parts(tl.load(taps, mask=square, other=0.0)), gate))
    forget = tl.load(entry + hidden, mask=inside, other=0.0)
    forget = tl.sigmoid(product(high, low, *parts(tl.load(taps + hidden, mask=square, other=0.0)), forget))
    output = tl.load(entry + 2 * hidden, mask=inside, other=0.0)
    output = tl.sigmoid(product(high, low, *parts(tl.load(taps + 2 * hidden, mask=square, other=0.0)), output))
    candidate = tl.load(entry + 3 * hidden, mask=inside, other=0.0)
    candidate = product(high, low, *parts(tl.load(taps + 3 * hidden, mask=square, other=0.0)), candidate)
    new = forget * tl.load(cells, mask=inside, other=0.0) + gate * _tanh(candidate)
    tl.store(cells, new, mask=inside)
    tl.store(states, output * _tanh(new), mask=inside)


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1
