"""The convolutions of D in Triton, with gradients, on a GPU: what fast/convolution.c computes on a CPU.

Two launches for all kinds of filters: the responses to all windows, as a product of windows with filters, and the largest of each
filter and sequence, with its place. Backward, all of a filter's gradient comes from that one window of each sequence. No sum
depends on the order in which programs run. The plain way is in `discriminator.Discriminator`; tests hold both to the same values
and gradients, on a CPU by Triton's interpreter. Of windows with equal responses the first one gets the gradient.

Shapes: B sequences, T tokens each, E embedding, w width and f number of the filters of one kind, F filters in all, W numbers in the
weights of all kinds, R responses of all filters to all windows.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fast.triton_split import product, split

Kinds = tuple[tuple[int, int], ...]  # of each kind, width and number of its filters
ROWS, COLUMNS, DEPTH = 64, 64, 32  # of a tile: windows, filters, and inputs of a window at a time
POSITIONS, FILTERS_AT_ONCE = 32, 64  # of a largest response: windows and filters at a time
SEQUENCES, NUMBERS = 16, 256  # of a gradient: sequences and numbers at a time
SHARES, FILTERS = 8, 8  # of the embeddings' gradient: parts of all filters that are summed apart, and filters at a time


class Layout(NamedTuple):
    """Where each filter is, on the device.

    Attributes:
        order: of the weights of all kinds, (W,): each filter's (E, w) as (w, E), in which the windows lie in memory.
        tiles: of the product, int32 (tiles, 6): width, first window, filters from here on in this kind, filters in this kind, place
            of the first filter's weights in E numbers, place of its first response.
        filters: int32 (4, F): of each filter the width, the place of its weights in E numbers, the place of its first response,
            and the step from one response to the next.
        responses: R.
    """

    order: Tensor
    tiles: Tensor
    filters: Tensor
    responses: int


def largest_responses(embedded: Tensor, filters: Sequence[tuple[int, Tensor, Tensor]], precision: str = "ieee") -> Tensor:
    """ReLU of each filter's largest response over all windows, bias included, with first derivatives.

    Args:
        embedded: embedded tokens, float32 (B, T, E).
        filters: of each kind the width w, at most T, the weights (f, E·w) and the biases (f,).
        precision: of the responses' products, "ieee" (float32) or "tf32".

    Returns:
        (B, F), kind after kind.

    Raises:
        RuntimeError: a filter is wider than the sequences.
    """
    kinds = tuple((width, len(biases)) for width, _, biases in filters)
    widest = max(width for width, _ in kinds)
    if widest > embedded.shape[1]:
        raise RuntimeError(f"filters of width {widest} for sequences of {embedded.shape[1]} tokens")
    weights = torch.cat([weights.flatten() for _, weights, _ in filters])
    biases = torch.cat([biases for *_, biases in filters])
    return _LargestResponses.apply(embedded.contiguous(), weights, biases, kinds, precision)


class _LargestResponses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embedded: Tensor, weights: Tensor, biases: Tensor, kinds: Kinds, precision: str) -> Tensor:
        layout = lay_out(kinds, embedded.shape, embedded.device)
        batch, length, inputs = embedded.shape
        filters = len(biases)
        packed = weights.index_select(0, layout.order)
        responses = embedded.new_empty(layout.responses)
        _responses[len(layout.tiles),](
            *(*split(embedded), *split(packed), responses, layout.tiles, batch, length, inputs),
            ROWS=ROWS, COLUMNS=COLUMNS, DEPTH=DEPTH, EXACT=precision == "ieee",
        )  # fmt: skip
        features = embedded.new_empty(batch, filters)
        places = torch.empty(features.shape, dtype=torch.int32, device=features.device)
        _largest[batch, triton.cdiv(filters, FILTERS_AT_ONCE)](
            *(responses, biases, features, places, layout.filters, length, filters), POSITIONS=POSITIONS, FILTERS=FILTERS_AT_ONCE
        )
        ctx.save_for_backward(embedded, packed, features, places)
        ctx.layout, ctx.widest = layout, max(width for width, _ in kinds)
        return features

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        embedded, packed, features, places = ctx.saved_tensors
        batch, length, inputs = embedded.shape
        filters = features.shape[1]
        given = (gradient.contiguous(), features, places, ctx.layout.filters)
        weight_gradient, bias_gradient = torch.empty_like(packed), packed.new_empty(filters)
        _weight_gradients[filters, triton.cdiv(ctx.widest * inputs, NUMBERS)](
            *(embedded, weight_gradient, bias_gradient, *given, batch, length, inputs, filters),
            SEQUENCES=SEQUENCES, NUMBERS=NUMBERS,
        )  # fmt: skip
        sums = packed.new_empty(SHARES, *embedded.shape)
        _embedded_gradients[batch, SHARES, triton.cdiv(length * inputs, NUMBERS)](
            *(packed, sums, *given, batch, length, inputs, filters, triton.cdiv(filters, SHARES)),
            FILTERS=FILTERS, NUMBERS=NUMBERS,
        )  # fmt: skip
        return sums.sum(dim=0), weight_gradient, bias_gradient, None, None


@functools.cache
def lay_out(kinds: Kinds, shape: torch.Size, device: torch.device) -> Layout:
    """The layout for embedded tokens of this shape, (B, T, E); the tiles that take longest come first."""
    batch, length, inputs = shape
    tiles, filters, order = [], [], []
    weight = response = 0  # places of the kind's first ones, of weights in E numbers: a place in memory is then a multiple of E
    for width, number in kinds:
        windows = batch * (length - width + 1)
        for first in range(0, number, COLUMNS):
            place = (number - first, number, weight + first * width, response + first)
            tiles += [(width, row, *place) for row in range(0, windows, ROWS)]
        filters += [(width, weight + f * width, response + f, number) for f in range(number)]
        order.append(weight * inputs + torch.arange(number * width * inputs).view(number, inputs, width).transpose(1, 2).flatten())
        weight += number * width
        response += number * windows
    tiles.sort(key=lambda tile: -tile[0])
    tables = (torch.tensor(tiles, dtype=torch.int32), torch.tensor(filters, dtype=torch.int32).t().contiguous())
    return Layout(*(table.to(device) for table in (torch.cat(order), *tables)), response)


@triton.jit(do_not_specialize=["batch", "length"])
def _responses(
    embedded, embedded_low, packed, packed_low, responses, tiles, batch, length, inputs,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    tile = tiles + tl.program_id(0) * 6
    width, first, left, number = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2), tl.load(tile + 3)
    weight, response = tl.load(tile + 4) * inputs, tl.load(tile + 5)
    depth, windows = width * inputs, length - width + 1
    row, column = first + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    valid, known = row < batch * windows, column < left
    windows_at = (row // windows * length + row % windows) * inputs
    filters_at = weight + column * depth
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for done in range(0, depth, DEPTH):
        at = done + tl.arange(0, DEPTH)
        windows_there, filters_there = windows_at[:, None] + at[None, :], filters_at[None, :] + at[:, None]
        some, others = valid[:, None] & (at < depth)[None, :], known[None, :] & (at < depth)[:, None]
        window = tl.load(embedded + windows_there, mask=some, other=0.0)
        taps = tl.load(packed + filters_there, mask=others, other=0.0)
        if EXACT:
            window_low = tl.load(embedded_low + windows_there, mask=some, other=0.0)
            taps_low = tl.load(packed_low + filters_there, mask=others, other=0.0)
            total = product(window, window_low, taps, taps_low, total)
        else:
            total = tl.dot(window, taps, total, input_precision="tf32")
    there = responses + response + row.to(tl.int64)[:, None] * number + column[None, :]
    tl.store(there, total, mask=valid[:, None] & known[None, :])


@triton.jit(do_not_specialize=["length", "filters"])
def _largest(
    responses, biases, features, places, table, length, filters, POSITIONS: tl.constexpr, FILTERS: tl.constexpr
):  # fmt: skip
    sequence, own = tl.program_id(0).to(tl.int64), tl.program_id(1) * FILTERS + tl.arange(0, FILTERS)
    known = own < filters
    windows = length + 1 - tl.load(table + own, mask=known, other=1)
    step = tl.load(table + 3 * filters + own, mask=known, other=0)
    there = responses + tl.load(table + 2 * filters + own, mask=known, other=0) + sequence * windows * step
    best, place, broken = (
        tl.full((FILTERS,), float("-inf"), tl.float32),
        tl.zeros((FILTERS,), tl.int32),
        tl.zeros((FILTERS,), tl.int32),
    )
    for first in range(0, length, POSITIONS):
        position = first + tl.arange(0, POSITIONS)
        given = known[None, :] & (position[:, None] < windows[None, :])
        among = tl.load(there[None, :] + position[:, None] * step[None, :], mask=given, other=float("-inf"))
        broken = tl.maximum(broken, tl.max((among != among).to(tl.int32), axis=0))
        largest, index = tl.max(tl.where(among != among, float("-inf"), among), axis=0, return_indices=True)
        place = tl.where(largest > best, first + index, place)
        best = tl.maximum(largest, best)
    value = tl.where(broken > 0, float("nan"), best) + tl.load(biases + own, mask=known, other=0.0)
    tl.store(features + sequence * filters + own, tl.where(value < 0, 0.0, value), mask=known)
    tl.store(places + sequence * filters + own, place, mask=known)


@triton.jit(do_not_specialize=["batch", "length", "filters"])
def _weight_gradients(
    embedded, weight_gradient, bias_gradient, gradient, features, places, table, batch, length, inputs, filters,
    SEQUENCES: tl.constexpr, NUMBERS: tl.constexpr,
):  # fmt: skip
    own, first = tl.program_id(0), tl.program_id(1) * NUMBERS
    width = tl.load(table + own)
    depth = width * inputs
    if first < depth:
        at = first + tl.arange(0, NUMBERS)
        parts = tl.zeros((SEQUENCES, NUMBERS), tl.float32)
        totals = tl.zeros((SEQUENCES,), tl.float32)
        for done in range(0, batch, SEQUENCES):
            sequence = done + tl.arange(0, SEQUENCES)
            given = sequence < batch
            from_here = sequence.to(tl.int64) * filters + own
            scale = tl.load(gradient + from_here, mask=given, other=0.0)
            scale = tl.where(tl.load(features + from_here, mask=given, other=0.0) <= 0, 0.0, scale)  # of ReLU
            place = tl.load(places + from_here, mask=given, other=0)
            window = embedded + (sequence.to(tl.int64) * length + place) * inputs
            taken = tl.load(window[:, None] + at[None, :], mask=given[:, None] & (at < depth)[None, :], other=0.0)
            parts += scale[:, None] * taken
            totals += scale
        there = tl.load(table + filters + own) * inputs + at % inputs * width + at // inputs  # from (w, E) to (E, w)
        tl.store(weight_gradient + there, tl.sum(parts, axis=0), mask=at < depth)
        if first == 0:
            tl.store(bias_gradient + own, tl.sum(totals, axis=0))


@triton.jit(do_not_specialize=["batch", "length", "filters", "share"])
def _embedded_gradients(
    packed, sums, gradient, features, places, table, batch, length, inputs, filters, share,
    FILTERS: tl.constexpr, NUMBERS: tl.constexpr,
):  # fmt: skip
    sequence, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    size = length * inputs
    at = tl.program_id(2) * NUMBERS + tl.arange(0, NUMBERS)
    total = tl.zeros((FILTERS, NUMBERS), tl.float32)
    for done in range(part * share, min((part + 1) * share, filters), FILTERS):
        own = done + tl.arange(0, FILTERS)
        given = own < min((part + 1) * share, filters)
        scale = tl.load(gradient + sequence * filters + own, mask=given, other=0.0)
        scale = tl.where(tl.load(features + sequence * filters + own, mask=given, other=0.0) <= 0, 0.0, scale)  # of ReLU
        first = tl.load(places + sequence * filters + own, mask=given, other=0) * inputs
        after = first + tl.load(table + own, mask=given, other=0) * inputs
        inside = (at[None, :] >= first[:, None]) & (at[None, :] < after[:, None]) & (scale != 0)[:, None]
        taps = packed + (tl.load(table + filters + own, mask=given, other=0) * inputs - first)
        total += scale[:, None] * tl.load(taps[:, None] + at[None, :], mask=inside, other=0.0)
    tl.store(sums + (part * batch + sequence) * size + at, tl.sum(total, axis=0), mask=at < size)
