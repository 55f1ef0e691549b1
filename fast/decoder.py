"""Drawing tokens from a snapshot of a generator, fast: the inner loop of sampling and of the roll-outs.

The same LSTM step as `Generator.step`, with what does not change between steps computed once: the input's part of the gates is a
table over tokens, the state is updated in place, and the hidden state carries the two extra columns that the output product needs.

Shapes: M rows, T tokens, V tokens in the vocabulary, E embedding, H hidden units.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fast.categorical import SoftmaxSampler, draw_from_blocks, softmax_weights
from support.threads import on_cpu, scratch

if TYPE_CHECKING:
    from generator import Generator

TABLE_ELEMENTS = 100_000_000  # the largest table worth its memory


@dataclass(frozen=True)
class RowStates:
    """LSTM states of many rows, updated in place.

    Attributes:
        hidden: (M, H + 2), h and two columns of the sampler's.
        cell: (M, H).
    """

    hidden: Tensor
    cell: Tensor

    def rows(self, part: slice) -> RowStates:
        """The states of some rows, as a view."""
        return RowStates(self.hidden[part], self.cell[part])

    def copy(self) -> RowStates:
        """The same states in memory of their own."""
        return RowStates(self.hidden.clone(), self.cell.clone())

    def set(self, part: slice, states: RowStates, copies: int) -> None:
        """Overwrite some rows with the given states, `copies` rows with each."""
        self.hidden[part] = states.hidden.repeat_interleave(copies, dim=0)
        self.cell[part] = states.cell.repeat_interleave(copies, dim=0)


class Decoder:
    """A generator's weights, laid out for drawing. Several threads may use one; the weights must not change meanwhile.

    Args:
        model: the generator.
        steps: about how many rows will be advanced by one token, which decides whether a table over V tokens pays.
        temperature: divides the logits.

    Raises:
        ValueError: the temperature is not a positive number.
    """

    def __init__(self, model: Generator, steps: int, temperature: float = 1.0):
        lstm = model.lstm
        self.hidden_dim = lstm.hidden_size
        self.sampler = SoftmaxSampler(model.output.weight, model.output.bias, temperature)
        # From torch's order of the gates i, f, g, o to i, f, o, g: three sigmoids side by side.
        input_weight, recurrent, bias, other_bias = (
            torch.cat([part.detach().chunk(4)[k] for k in (0, 1, 3, 2)])
            for part in (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0)
        )
        self.embedding = model.embed.weight.detach()
        self.input_weight = input_weight.t().contiguous()  # (E, 4H)
        self.recurrent = recurrent.t().contiguous()  # (H, 4H)
        self.bias = bias + other_bias
        self.table = None
        if steps >= model.vocab_size and model.vocab_size * len(self.bias) <= TABLE_ELEMENTS:
            self.table = torch.addmm(self.bias, self.embedding, self.input_weight)  # (V, 4H)

    def zero_states(self, num: int) -> RowStates:
        """The states before the start token."""
        hidden = self.embedding.new_zeros(num, self.hidden_dim + 2)
        hidden[:, self.hidden_dim].fill_(1)
        return RowStates(hidden, self.embedding.new_zeros(num, self.hidden_dim))

    def step(self, tokens: Tensor, states: RowStates) -> None:
        """Read one token a row, (M,), and change the states to those after it."""
        gates = scratch("gates", (len(tokens), 4 * self.hidden_dim), self.bias)
        if self.table is None:
            torch.addmm(self.bias, self.embedding[tokens], self.input_weight, out=gates)
        else:
            torch.index_select(self.table, 0, tokens, out=gates)
        lstm_step(gates, self.recurrent, states.hidden, states.cell)

    def draw(self, states: RowStates, uniforms: Tensor) -> Tensor:
        """The next token of each row, one for each uniform number (M,) or (M, K)."""
        return self.sampler.draw_padded(states.hidden, uniforms)

    def finish(self, tokens: Tensor, first: int, last: Tensor, states: RowStates, uniforms: Tensor) -> None:
        """Draw all tokens from position `first` on, in place: (M, T). On a CPU this is one call outside Python's lock.

        Args:
            tokens: the sequences; columns from `first` on are overwritten.
            first: a position from 0 to T.
            last: the tokens before it, (M,).
            states: before those tokens are read; changed.
            uniforms: (T − first, M).
        """
        sampler = self.sampler
        for start in range(0, len(tokens), sampler.max_rows):
            rows = slice(start, start + sampler.max_rows)
            part, state = tokens[rows], states.rows(rows)
            if self.table is None or not on_cpu(self.bias.device):
                newest = last[rows]
                for position in range(first, tokens.shape[1]):
                    self.step(newest, state)
                    newest = self.draw(state, uniforms[position - first, rows])
                    part[:, position] = newest
                continue
            gates = scratch("gates", (len(part), 4 * self.hidden_dim), self.bias)
            blocks = sampler.buffer(len(part))
            output = (sampler.matrix, sampler.probes, sampler.bound, sampler.vocab_size, blocks)
            scripted_finish()(
                part, first, last[rows], state.hidden, state.cell, uniforms[:, rows], self.table, self.recurrent, gates, *output
            )


def lstm_step(gates: Tensor, recurrent: Tensor, hidden: Tensor, cell: Tensor) -> None:
    """One LSTM step in place, given the input's part of the gates (M, 4H) in the order i, f, o, g; recurrent is (H, 4H)."""
    size = cell.shape[1]
    h = hidden.narrow(1, 0, size)
    gates.addmm_(h, recurrent)
    gates.narrow(1, 0, 3 * size).sigmoid_()
    candidate = gates.narrow(1, 3 * size, size).tanh_()
    cell.mul_(gates.narrow(1, size, size)).addcmul_(gates.narrow(1, 0, size), candidate)
    torch.tanh(cell, out=h)
    h.mul_(gates.narrow(1, 2 * size, size))


def finish_rows(
    tokens: Tensor,
    first: int,
    last: Tensor,
    hidden: Tensor,
    cell: Tensor,
    uniforms: Tensor,
    table: Tensor,
    recurrent: Tensor,
    gates: Tensor,
    matrix: Tensor,
    probes: Tensor,
    bound: float,
    vocab_size: int,
    blocks: Tensor,
) -> None:
    """`Decoder.finish` for one chunk of rows, in plain arguments for TorchScript."""
    for position in range(first, tokens.shape[1]):
        torch.index_select(table, 0, last, out=gates)
        lstm_step(gates, recurrent, hidden, cell)
        sums = softmax_weights(hidden, matrix, probes, bound, vocab_size, blocks)
        last = draw_from_blocks(blocks, sums, uniforms[position - first].unsqueeze(1), vocab_size).squeeze(1)
        tokens.select(1, position).copy_(last)


@functools.cache
def scripted_finish() -> Callable[..., None]:
    """`finish_rows` as TorchScript, which runs without Python's lock, so that threads don't wait for each other a thousand times
    an update. Where TorchScript is gone (it is deprecated), the function itself: the same operations, the same results."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.jit.script(finish_rows)
        except Exception:  # whatever a future version raises
            return finish_rows
