"""The discriminator's scores of many completions of the same sequences, on a CPU.

The plain way is `Discriminator.prob_real`. A completion shares its prefix with N − 1 others, so what the convolutions see of the
prefix is computed once:

- the response of a window to a filter is a sum over the window's positions of a number that depends only on the token and the
  place in the window: a table lookup, instead of a product of embeddings and weights;
- windows inside the prefix: their maximum over positions is known from the sequence itself;
- windows across the end of the prefix: the prefix's part of the sum is one more row of the table.

Sums are taken in another order than in `Discriminator.forward`, so scores agree to float32 rounding.

Shapes: B sequences, T tokens each, N completions of a prefix, P prefixes, V tokens in the vocabulary, E embedding, f filters of
one width w, L windows of one width in a sequence.
"""

from __future__ import annotations

import functools
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from support.threads import on_cpu, run_all, scratch

TABLE_BYTES = 2**29  # larger tables are not built
TABLE_SHARE = 0.25  # of the plain products' multiply-adds: a table that costs more is not built


class ConvolutionalDiscriminator(Protocol):
    """What the scorer reads of a discriminator: `discriminator.Discriminator` has it."""

    embed: nn.Embedding
    convolutions: nn.ModuleDict  # of nn.Linear(E·w, f), by width

    def prob_of_features(self, features: Tensor) -> Tensor:
        """The probability of "real" from the largest activation of each filter: (B, F) -> (B,)."""
        ...


class WidthTable(NamedTuple):
    """Lookup table of the filters of one width.

    Attributes:
        width: w.
        rows: (V·w + B·L·w, f): the response of each token at each place of a window, then the sums of the first 1 to w places of
            each window of the given sequences.
        whole: the response of each window of the given sequences, (B, L, f).
        so_far: the largest response among windows 0..l, (B, L, f).
    """

    width: int
    rows: Tensor
    whole: Tensor
    so_far: Tensor


def tables_are_faster(discriminator: ConvolutionalDiscriminator, num_completions: int, seq_len: int) -> bool:
    """Whether tables beat plain products for this many completions: on a CPU, if they fit the memory and are used often enough."""
    vocab_size, emb_dim = discriminator.embed.weight.shape
    places = sum(layer.weight.shape[0] * int(width) for width, layer in discriminator.convolutions.items())
    products = sum(
        layer.weight.shape[0] * int(width) * (seq_len - int(width) + 1) for width, layer in discriminator.convolutions.items()
    )
    small = 4 * vocab_size * places <= TABLE_BYTES
    return (
        on_cpu(discriminator.embed.weight.device)
        and small
        and vocab_size * places * emb_dim <= TABLE_SHARE * num_completions * products * emb_dim
    )


class CompletionScorer:
    """Scores completions of given sequences, as a `rollout.CompletionReward`; valid until D's next update.

    Args:
        discriminator: D_φ, on the CPU.
        tokens: the sequences, (B, T).
    """

    def __init__(self, discriminator: ConvolutionalDiscriminator, tokens: Tensor):
        self.discriminator = discriminator
        self.vocab_size = discriminator.embed.num_embeddings
        self.seq_len = tokens.shape[1]
        # The calling thread's buffers, reused by the next scorer: mapping 250 MB of fresh memory takes longer than filling it.
        buffers = {int(w): self._memory(int(w), layer, tokens) for w, layer in discriminator.convolutions.items()}
        self.tables = run_all([partial(self._table, width, rows, tokens) for width, rows in buffers.items()], tokens.device)

    def _memory(self, width: int, layer: torch.nn.Linear, tokens: Tensor) -> Tensor:
        windows = len(tokens) * (self.seq_len - width + 1) * width
        return scratch(f"responses to width {width}", (self.vocab_size * width + windows, layer.out_features), layer.weight)

    def _table(self, width: int, rows: Tensor, tokens: Tensor) -> WidthTable:
        embedding = self.discriminator.embed.weight.detach()
        weight = self.discriminator.convolutions[str(width)].weight.detach()
        filters = len(weight)
        places = weight.view(filters, embedding.shape[1], width).permute(1, 2, 0).reshape(-1, width * filters)  # (E, w·f)
        vocab_rows = self.vocab_size * width
        torch.mm(embedding, places, out=rows[:vocab_rows].view(self.vocab_size, width * filters))
        windows = tokens.unfold(1, width, 1)  # (B, L, w)
        index = windows * width + torch.arange(width)
        parts = rows[vocab_rows:].view(*index.shape, filters)  # (B, L, w, f)
        torch.cumsum(rows[index], dim=2, out=parts)
        whole = parts[:, :, -1]
        return WidthTable(width, rows, whole, whole.cummax(dim=1).values)

    @torch.no_grad()
    def __call__(self, prefix: int, completed: Tensor) -> Tensor:
        """D of completions (B, N, T) that begin with the first `prefix` tokens of the sequences: (B, N) in [0, 1]."""
        features = torch.cat([self._largest(table, prefix, completed) for table in self.tables], dim=1)  # (B·N, F)
        bias = torch.cat([layer.bias for layer in self.discriminator.convolutions.values()])
        return self.discriminator.prob_of_features(features.add_(bias).relu_()).view(completed.shape[:2])

    def _largest(self, table: WidthTable, prefix: int, completed: Tensor) -> Tensor:
        """Largest response of each filter over all windows: (B, N, T) -> (B·N, f)."""
        batch, copies, _ = completed.shape
        width, filters = table.width, table.rows.shape[1]
        lookups = _lookups(width, prefix, self.seq_len)
        if not len(lookups.starts):
            return table.so_far[:, -1].repeat_interleave(copies, dim=0)
        index = completed.flatten(0, 1).index_select(1, lookups.positions)  # (B·N, K)
        index.mul_(lookups.factors).add_(lookups.places)
        # The rows of sums follow the V·w rows of the tokens, L·w for each sequence.
        sequence = torch.arange(batch)[:, None, None] * (self.seq_len - width + 1) * width + self.vocab_size * width
        index.view(batch, copies, -1).add_(sequence * lookups.is_sum)
        first = torch.arange(0, index.numel(), index.shape[1])[:, None]
        sums = torch.nn.functional.embedding_bag(index.view(-1), table.rows, (first + lookups.starts).view(-1), mode="sum")
        largest = sums.view(len(index), -1, filters).amax(dim=1)  # (B·N, f)
        inside = prefix - width  # the last window that lies in the prefix
        if inside >= 0:
            largest = torch.maximum(largest.view(batch, copies, filters), table.so_far[:, None, inside]).flatten(0, 1)
        return largest


class Lookups(NamedTuple):
    """The K table rows to sum for those windows of one width that are not wholly inside the prefix; one bag a window.

    Row number = factor · token at the position + place; for a sum over the first places of a window it is the place alone,
    counted from the sequence's own rows.

    Attributes:
        positions, factors, places, is_sum: (K,) int64.
        starts: each window's first lookup.
    """

    positions: Tensor
    factors: Tensor
    places: Tensor
    is_sum: Tensor
    starts: Tensor


@functools.cache
def _lookups(width: int, prefix: int, seq_len: int) -> Lookups:
    rows, starts = [], []
    for window in range(max(0, prefix - width + 1), seq_len - width + 1):
        starts.append(len(rows))
        begun = max(0, prefix - window)  # places of this window in the prefix
        if begun:
            rows.append((0, 0, window * width + begun - 1, 1))
        rows += [(window + place, width, place, 0) for place in range(begun, width)]
    columns = torch.tensor(rows, dtype=torch.int64).view(-1, 4).t().contiguous()
    return Lookups(*columns, torch.tensor(starts, dtype=torch.int64))
