"""A judge: a convolutional network that sees, beside the tokens, where they repeat earlier ones.

D_φ of the paper looks at windows of a few tokens. What a well-trained generator gets wrong is mostly further apart: phrases that
come back. So the inputs at each position are the token's embedding and, for each lag, whether the token, and the step to it from
the token before, are those of so many positions before. (A step is the difference of neighbouring token numbers: in music an
interval. In text, where numbers have no order, a repeated step is nearly always a repeated pair of tokens.)
Convolutions of several widths, ReLU, largest value and mean over time, dropout, one logit.

Shapes: M sequences, T tokens each, V tokens in the vocabulary, E embedding, F filters in all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from generator import counted_tokens


@dataclass(frozen=True)
class Size:
    """What a judge is made of.

    Attributes:
        widths: of its filters; those wider than T are left out.
        number: filters of each width.
        emb_dim: E.
        lags: how far back repeats are looked for; at most T − 1.
        drop: share of the features that dropout drops; half of it of the inputs.
    """

    widths: tuple[int, ...]
    number: int
    emb_dim: int
    lags: int
    drop: float


class Judge(nn.Module):
    """The network; called with tokens (M, T) it gives log D/(1 − D), (M,), with dropout in training mode.

    Args:
        vocab_size: V.
        seq_len: T.
        end_token: the absorbing token of sequences of variable length, or None.
        size: its sizes.
        dropout_rng: the random stream of dropout, on the model's device.
    """

    def __init__(
        self, vocab_size: int, seq_len: int, end_token: int | None, size: Size, dropout_rng: torch.Generator | None = None
    ):
        super().__init__()
        self.vocab_size, self.seq_len, self.end_token, self.size = vocab_size, seq_len, end_token, size
        self.dropout_rng = dropout_rng
        widths = [width for width in size.widths if width <= seq_len] or [1]
        self.lags = min(size.lags, seq_len - 1)
        inputs = size.emb_dim + 2 * self.lags
        self.embed = nn.Embedding(vocab_size, size.emb_dim)
        self.convolutions = nn.ModuleList([nn.Conv1d(inputs, size.number, width, padding=width // 2) for width in widths])
        self.output = nn.Linear(2 * size.number * len(widths), 1)

    @torch.no_grad()
    def initialise(self, rng: torch.Generator) -> Judge:
        """Draw all weights anew, on the CPU: N(0, 1) for the embedding, else uniform within 1/√(inputs); returns itself."""
        self.embed.weight.normal_(generator=rng)
        for layer in [*self.convolutions, self.output]:
            limit = layer.weight[0].numel() ** -0.5
            for weight in (layer.weight, layer.bias):
                weight.uniform_(-limit, limit, generator=rng)
        return self

    def forward(self, tokens: Tensor) -> Tensor:
        """Log D/(1 − D): (M, T) -> (M,)."""
        counted = counted_tokens(tokens, self.end_token)[:, None].float()  # (M, 1, T)
        inputs = torch.cat([self.embed(tokens), self._repeats(tokens)], dim=2).transpose(1, 2)  # (M, E + 2·lags, T)
        inputs = self._dropped(inputs, self.size.drop / 2) * counted
        features = []
        for layer in self.convolutions:
            response = torch.relu(layer(inputs))[:, :, : tokens.shape[1]] * counted  # (M, filters of this width, T)
            features += [response.amax(dim=2), response.sum(dim=2) / counted.sum(dim=2)]
        return self.output(self._dropped(torch.cat(features, dim=1), self.size.drop))[:, 0]  # (M, F) -> (M,)

    def _repeats(self, tokens: Tensor) -> Tensor:
        """For each lag whether the token is that of `lag` positions before, and the same of the step: (M, T) -> (M, T, 2·lags)."""
        steps = nn.functional.pad(tokens.diff(dim=1), (1, 0), value=self.vocab_size)  # no step is as large
        flags = [
            nn.functional.pad(values[:, lag:] == values[:, :-lag], (lag, 0)) for values in (tokens, steps) for lag in self._lags()
        ]
        return torch.stack(flags, dim=2).float() if flags else tokens.new_zeros(*tokens.shape, 0, dtype=torch.float32)

    def _lags(self) -> range:
        return range(1, self.lags + 1)

    def _dropped(self, features: Tensor, rate: float) -> Tensor:
        if not self.training or not rate:
            return features
        kept = torch.rand(features.shape, generator=self.dropout_rng, device=features.device) >= rate
        return features * kept / (1 - rate)

    def sizes(self) -> dict[str, Any]:
        """Its sizes, as numbers and lists."""
        return {**asdict(self.size), "widths": list(self.size.widths)}
