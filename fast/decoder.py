"""Drawing tokens from a snapshot of a generator: the inner loop of sampling and of the roll-outs.

The plain way is a loop over `Generator.advance`; tests hold both to the same draws. Faster here: the input's part of the gates is
a table over tokens, the state is updated in place, and the hidden state carries the two columns that the output product needs.

Shapes: M rows, T tokens, V tokens in the vocabulary, E embedding, H hidden units.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fast.categorical import OutputLayer, SoftmaxSampler, draw_from_blocks, softmax_weights
from fast.kernel import CHUNK, NativeLayer, NativeLstm
from fast.native import gpu_kernels_for
from support.threads import on_cpu, run_all, scratch, slices

TABLE_ELEMENTS = 100_000_000  # a larger table is not built
NATIVE_ROWS = 12  # that the kernel takes together


class LanguageModel(Protocol):
    """What a decoder reads of a model: `generator.Generator` has it."""

    start_token: int
    end_token: int | None
    embed: nn.Embedding
    lstm: nn.LSTM
    output: nn.Linear


class RowStates(NamedTuple):
    """LSTM states of many rows, updated in place.

    Attributes:
        padded: (M, H + 2): h, then the two columns of `fast.categorical.OutputLayer`.
        cell: (M, H).
    """

    padded: Tensor
    cell: Tensor


class CellWeights(NamedTuple):
    """The weights of an LSTM cell, laid out for drawing; the gates are in the order i, f, o, g.

    Attributes:
        table: the input's part of the gates for each token, (V, 4H); (0, 4H) where it is computed for each row instead.
        embedding: (V, E).
        input_weight: (E, 4H).
        bias: (4H,).
        recurrent: (H, 4H).
    """

    table: Tensor
    embedding: Tensor
    input_weight: Tensor
    bias: Tensor
    recurrent: Tensor


def select_rows(states: RowStates, rows: slice) -> RowStates:
    """The states of some rows, as a view."""
    return RowStates(states.padded[rows], states.cell[rows])


def repeat_rows(states: RowStates, copies: int) -> RowStates:
    """Each row's state `copies` times, in memory of its own."""
    return RowStates(states.padded.repeat_interleave(copies, dim=0), states.cell.repeat_interleave(copies, dim=0))


class Decoder:
    """A generator's weights, laid out for drawing. Several threads may use one; the weights must not change meanwhile.

    Args:
        model: the generator.
        expected_rows: about how many rows will read a token, which decides whether a table over V tokens is worth building.
        temperature: divides the logits.

    Raises:
        ValueError: the temperature is not a positive number.
    """

    def __init__(self, model: LanguageModel, expected_rows: int, temperature: float = 1.0):
        lstm = model.lstm
        self.hidden_dim = lstm.hidden_size
        self.sampler = SoftmaxSampler(model.output.weight, model.output.bias, temperature)
        weights = (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0)
        # From torch's order of the gates i, f, g, o to i, f, o, g: three sigmoids side by side.
        input_weight, recurrent, bias, other_bias = (
            torch.cat([part.detach().chunk(4)[k] for k in (0, 1, 3, 2)]) for part in weights
        )
        bias = bias + other_bias
        embedding = model.embed.weight.detach()
        input_weight, recurrent = input_weight.t().contiguous(), recurrent.t().contiguous()  # (E, 4H), (H, 4H)
        self.end_token = -1 if model.end_token is None else model.end_token
        table = bias.new_empty(0, len(bias))
        self.native = None
        if isinstance(self.sampler.layer, NativeLayer):
            self.native = NativeLstm(self.sampler.layer, embedding, weights, self.end_token)
        self.gpu = None if isinstance(self.sampler.layer, OutputLayer) else gpu_kernels_for(embedding)
        rows_pay = expected_rows >= len(embedding) or self.gpu is not None
        if self.native is None and rows_pay and len(embedding) * len(bias) <= TABLE_ELEMENTS:
            table = torch.addmm(bias, embedding, input_weight)  # (V, 4H)
        self.weights = CellWeights(table, embedding, input_weight, bias, recurrent)

    def zero_states(self, num: int) -> RowStates:
        """The states before the start token."""
        padded = self.weights.bias.new_zeros(num, self.hidden_dim + 2)
        padded[:, self.hidden_dim].fill_(1)
        return RowStates(padded, self.weights.bias.new_zeros(num, self.hidden_dim))

    def advance(self, tokens: Tensor, states: RowStates) -> None:
        """Read one token a row, (M,), and change the states to those after it."""
        if self.gpu is not None and len(self.weights.table):
            self.gpu.lstm_step(tokens, *states, self.weights.table, self.weights.recurrent)
            return
        advance_rows(tokens, states, self.weights, self._gates_buffer(len(tokens)))

    def draw(self, states: RowStates, uniforms: Tensor, last: Tensor | None = None) -> Tensor:
        """The next token of each row, one for each uniform number (M,) or (M, K); after the end token in `last` (M,) only that."""
        drawn = self.sampler.draw_padded(states.padded, uniforms)
        if self.end_token < 0 or last is None:
            return drawn
        last = last.reshape(-1, *[1] * (drawn.dim() - 1))  # (M,) or (M, 1)
        return torch.where(last == self.end_token, last, drawn)

    def finish(self, tokens: Tensor, first: int, last: Tensor, states: RowStates, uniforms: Tensor) -> None:
        """Draw all tokens from position `first` on, in place: (M, T).

        On a CPU this is one call without Python's lock for each chunk of rows, with native draws for all.

        Args:
            tokens: the sequences; columns from `first` on are overwritten.
            first: a position from 0 to T.
            last: the tokens before it, (M,).
            states: the LSTM states before `last` is read; updated in place.
            uniforms: (T − first, M).
        """
        if self.native is not None:
            self.native.finish(tokens, first, last, *states, uniforms)
            return
        if self.gpu is not None:
            for position, numbers in enumerate(uniforms, start=first):
                self.advance(last, states)
                last = self.draw(states, numbers, last if position else None)  # the start token ends nothing
                tokens[:, position] = last
            return
        finish = compiled(finish_rows) if on_cpu(tokens.device) else finish_rows
        for rows in slices(len(tokens), self.sampler.max_rows):
            num = len(tokens[rows])
            buffers = (self._gates_buffer(num), self.sampler.weights_buffer(num))
            chunk = (tokens[rows], first, last[rows], select_rows(states, rows), uniforms[:, rows])
            finish(*chunk, self.weights, self.sampler.layer, self.end_token, *buffers)

    def rows_of_a_task(self, num: int) -> int:
        """How many of `num` rows one thread should draw at a time."""
        if self.native is None:
            return self.sampler.max_rows
        share = num / torch.get_num_threads()  # of each thread; the kernel's draws of a row do not depend on the other rows
        return max(1, math.ceil(share / max(1, math.ceil(share / CHUNK)) / NATIVE_ROWS)) * NATIVE_ROWS

    def _gates_buffer(self, num: int) -> Tensor:
        return scratch("gates", (num, 4 * self.hidden_dim), self.weights.bias)


# The two functions below also run as TorchScript.


def advance_rows(tokens: Tensor, states: RowStates, weights: CellWeights, gates: Tensor) -> None:
    """One LSTM step in place: read one token a row, (M,); `gates` is a buffer (M, 4H)."""
    if weights.table.shape[0] == 0:
        torch.addmm(weights.bias, torch.index_select(weights.embedding, 0, tokens), weights.input_weight, out=gates)
    else:
        torch.index_select(weights.table, 0, tokens, out=gates)
    size = states.cell.shape[1]
    h = states.padded.narrow(1, 0, size)
    gates.addmm_(h, weights.recurrent)
    gates.narrow(1, 0, 3 * size).sigmoid_()
    candidate = gates.narrow(1, 3 * size, size).tanh_()
    states.cell.mul_(gates.narrow(1, size, size)).addcmul_(gates.narrow(1, 0, size), candidate)
    torch.tanh(states.cell, out=h)
    h.mul_(gates.narrow(1, 2 * size, size))


def finish_rows(
    tokens: Tensor,
    first: int,
    last: Tensor,
    states: RowStates,
    uniforms: Tensor,
    weights: CellWeights,
    layer: OutputLayer,
    end_token: int,
    gates: Tensor,
    blocks: Tensor,
) -> None:
    """`Decoder.finish` for one chunk of rows; `gates` and `blocks` are buffers, (M, 4H) and (M, G, S).

    After `end_token` (−1: none) only that token follows. The token before position 0 is the start token, which ends nothing.
    """
    for position in range(first, tokens.shape[1]):
        advance_rows(last, states, weights, gates)
        sums = softmax_weights(states.padded, layer, blocks)
        drawn = draw_from_blocks(blocks, sums, uniforms[position - first].unsqueeze(1), layer.vocab_size).squeeze(1)
        last = torch.where(last == end_token, last, drawn) if end_token >= 0 and position > 0 else drawn
        tokens.select(1, position).copy_(last)


@functools.cache
def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """`finish_rows` as TorchScript, which runs without Python's lock, so that threads do not wait for each other.

    TorchScript is deprecated. Where it is gone, this is the plain function: the same operations and results.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.jit.script(function)
        except Exception:  # a future version may raise anything
            return function


def sample_tokens(model: LanguageModel, uniforms: Tensor, temperature: float, prefix: Tensor) -> Tensor:
    """Sequences drawn with the given uniform numbers.

    Args:
        model: the generator.
        uniforms: float64 in [0, 1), (T, M), on the model's device.
        temperature: divides the logits.
        prefix: tokens that every sequence begins with, (P,) with 0 ≤ P ≤ T.

    Returns:
        int64 (M, T).

    Raises:
        ValueError: the temperature is not a positive number.
    """
    seq_len, num = uniforms.shape
    device = model.output.weight.device
    tokens = torch.empty(num, seq_len, dtype=torch.int64, device=device)
    decoder = Decoder(model, num * seq_len, temperature)
    last = torch.full((1,), model.start_token, device=device)
    state = decoder.zero_states(1)
    for position in range(len(prefix)):  # all sequences read the same tokens
        decoder.advance(last, state)
        last = prefix[position : position + 1].to(device)
        tokens[:, position] = last

    def task(rows: slice) -> None:
        part = tokens[rows]
        states = repeat_rows(state, len(part))
        decoder.finish(part, len(prefix), last.expand(len(part)), states, uniforms[len(prefix) :, rows])

    run_all([partial(task, rows) for rows in slices(num, decoder.rows_of_a_task(num))], device)
    return tokens
