"""CNN discriminator D_φ: the probability that a sequence is real (paper, Eqs. 11-15; Zhang and LeCun 2015; Srivastava et al. 2015).

Token embeddings, convolutions of several widths, ReLU, maximum over time, one highway layer, dropout, 2-way softmax.
Class 0 is "generated", class 1 is "real".

Shapes: B sequences, T tokens each, V tokens in the vocabulary, E embedding, F filters in all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fast.convolution import largest_responses
from fast.native import gpu_kernels_for, kernel_for

REAL = 1  # class number of real sequences; generated ones are class 0

SCORING_ROWS = {"cpu": 512, "cuda": 2**31}  # sequences scored at a time, so that their windows fit a CPU's cache
SCORING_ELEMENTS = {"cpu": 2**24, "cuda": 2**28}  # and at most this many numbers in the windows of one width


def scoring_rows(seq_len: int, filters: list[tuple[int, int]], emb_dim: int, device_type: str) -> int:
    """How many sequences to score at a time."""
    windows = seq_len * max(width for width, _ in filters) * emb_dim
    return max(1, min(SCORING_ROWS[device_type], SCORING_ELEMENTS[device_type] // windows))


class Discriminator(nn.Module):
    """Text CNN with a highway layer.

    Args:
        vocab_size: V.
        emb_dim: E.
        filters: (width, number) of each kind of filter; a width may occur more than once.
        keep_prob: the share of features that dropout keeps in training mode.
        dropout_rng: the random stream of dropout, best on the model's device; None uses torch's global one.
    """

    def __init__(
        self,
        vocab_size: int,
        emb_dim: int,
        filters: list[tuple[int, int]],
        keep_prob: float = 0.75,
        dropout_rng: torch.Generator | None = None,
    ):
        super().__init__()
        self.filters = [(width, number) for width, number in filters]
        numbers: dict[int, int] = {}
        for width, number in filters:  # all filters of one width share one matrix product
            numbers[width] = numbers.get(width, 0) + number
        total = sum(numbers.values())  # F
        self.keep_prob = keep_prob
        self.dropout_rng = dropout_rng
        self.embed = nn.Embedding(vocab_size, emb_dim)
        self.convolutions = nn.ModuleDict({str(w): nn.Linear(emb_dim * w, n) for w, n in numbers.items()})
        self.highway = nn.Linear(total, total)
        self.gate = nn.Linear(total, total)
        self.output = nn.Linear(total, 2)

    @torch.no_grad()
    def initialise(self, rng: torch.Generator) -> Discriminator:
        """Draw all weights anew as the authors' code does, on the CPU; returns itself."""
        self.embed.weight.uniform_(-1, 1, generator=rng)
        for layer in [*self.convolutions.values(), self.output]:
            nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2, generator=rng)  # TensorFlow cuts at 2σ
            layer.bias.fill_(0.1)
        for layer in (self.highway, self.gate):
            limit = math.sqrt(6 / (layer.in_features + layer.out_features))
            layer.weight.uniform_(-limit, limit, generator=rng)
            layer.bias.zero_()
        return self

    def forward(self, tokens: Tensor, own: slice = slice(None)) -> Tensor:
        """Logits of (generated, real), of all sequences or of some: (B, T) -> (B', 2). Drops features in training mode only."""
        return self._logits(self._features(tokens[own]), len(tokens) if self.training else 0, own)

    def _logits(self, features: Tensor, dropped: int = 0, own: slice = slice(None)) -> Tensor:
        """Logits of features (B', F): with dropout, masks are drawn for `dropped` sequences, whose part `own` these are."""
        gate = torch.sigmoid(self.gate(features))
        features = gate * torch.relu(self.highway(features)) + (1 - gate) * features
        if dropped:
            # F.dropout takes no random stream, but a resumed run must draw the same masks.
            device = features.device if self.dropout_rng is None else self.dropout_rng.device
            kept = torch.rand(dropped, features.shape[1], generator=self.dropout_rng, device=device)[own] < self.keep_prob
            features = features * (kept.to(features.device) / self.keep_prob)
        return self.output(features)

    def _features(self, tokens: Tensor) -> Tensor:
        """Largest activation of each filter over all positions: (B, T) -> (B, F)."""
        kernel = kernel_for(self.embed.weight)
        gpu = gpu_kernels_for(self.embed.weight) if torch.is_grad_enabled() else None  # for scores torch's products are faster
        if (kernel or gpu) and torch.is_autocast_enabled(tokens.device.type):
            kernel = gpu = None
        embedded = self.embed(tokens) if gpu is None else gpu.embed(tokens, self.embed.weight)  # (B, T, E)
        kinds = [(int(width), layer.weight, layer.bias) for width, layer in self.convolutions.items()]
        if kernel is not None:
            return largest_responses(kernel, embedded, kinds)
        if gpu is not None:
            return gpu.largest_responses(embedded, kinds, "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee")
        responses, biases = [], []
        for width, weight, bias in kinds:
            windows = embedded.unfold(1, width, 1).flatten(2)  # (B, T - width + 1, E·width)
            responses.append(nn.functional.linear(windows, weight).amax(dim=1))  # (B, filters of this width)
            biases.append(bias)
        # The bias is the same at all positions and ReLU is monotone: both may come after the maximum.
        return torch.relu(torch.cat(responses, dim=1) + torch.cat(biases))

    @torch.no_grad()
    def prob_real(self, tokens: Tensor) -> Tensor:
        """D(Y), the probability that each sequence is real, without dropout whatever the mode: (B, T) -> (B,) in [0, 1]."""
        rows = scoring_rows(tokens.shape[1], self.filters, self.embed.embedding_dim, tokens.device.type)
        return torch.cat([self.prob_of_features(self._features(part)) for part in tokens.split(rows)])

    @torch.no_grad()
    def prob_of_features(self, features: Tensor) -> Tensor:
        """The same from the largest activation of each filter: (B, F) -> (B,)."""
        return self._logits(features).softmax(dim=1)[:, REAL]

    def l2(self) -> Tensor:
        """(‖W‖² + ‖b‖²)/2 of the output layer, the part that the authors' code regularises."""
        return (self.output.weight.square().sum() + self.output.bias.square().sum()) / 2
