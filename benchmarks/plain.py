"""What the fast parts are compared with: the same computations as ports of SeqGAN usually write them."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch
from helpers.reference import plain_action_values
from torch import Tensor, nn

from discriminator import REAL, Discriminator
from generator import Generator

__all__ = ["ConvDiscriminator", "discriminator_update", "mle_update", "plain_action_values", "plain_sample"]


class ConvDiscriminator(nn.Module):
    """The discriminator with one conv1d a kind of filter, holding the weights of a fast one."""

    def __init__(self, fast: Discriminator):
        super().__init__()
        emb_dim, self.keep_prob = fast.embed.embedding_dim, fast.keep_prob
        self.embed = nn.Embedding.from_pretrained(fast.embed.weight.detach().clone(), freeze=False)
        self.convolutions = nn.ModuleList()
        for width, layer in fast.convolutions.items():
            convolution = nn.Conv1d(emb_dim, layer.out_features, int(width)).to(fast.embed.weight.device)
            with torch.no_grad():
                convolution.weight.copy_(layer.weight.view(-1, emb_dim, int(width)))
                convolution.bias.copy_(layer.bias)
            self.convolutions.append(convolution)
        self.highway, self.gate, self.output = (self._copy(layer) for layer in (fast.highway, fast.gate, fast.output))

    @staticmethod
    def _copy(layer: nn.Linear) -> nn.Linear:
        copy = nn.Linear(layer.in_features, layer.out_features).to(layer.weight.device)
        copy.load_state_dict(layer.state_dict())
        return copy

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits: (B, T) -> (B, 2)."""
        embedded = self.embed(tokens).transpose(1, 2)  # (B, E, T)
        features = torch.cat([c(embedded).relu().amax(dim=2) for c in self.convolutions], dim=1)  # (B, F)
        gate = self.gate(features).sigmoid()
        features = gate * self.highway(features).relu() + (1 - gate) * features
        return self.output(nn.functional.dropout(features, 1 - self.keep_prob, self.training))

    @torch.no_grad()
    def prob_real(self, tokens: Tensor) -> Tensor:
        """Probability of "real": (B, T) -> (B,)."""
        return self.eval()(tokens).softmax(dim=1)[:, REAL]


def discriminator_update(model: ConvDiscriminator, optimizer: torch.optim.Optimizer, tokens: Tensor, labels: Tensor) -> None:
    """One update of D."""
    model.train()
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(tokens), labels).backward()
    optimizer.step()


def mle_update(model: Generator, optimizer: torch.optim.Optimizer, tokens: Tensor, grad_clip: float) -> None:
    """One update of maximum likelihood, the logits of all tokens at once."""
    optimizer.zero_grad()
    logits = model.output(model.hidden(tokens))  # (B, T, V)
    nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
    nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    optimizer.step()


@torch.no_grad()
def plain_sample(model: Generator, num: int, seq_len: int, rng: torch.Generator) -> Tensor:
    """Sequences (num, T), token by token with torch.multinomial."""
    state = model.initial_state(num)
    tokens = torch.full((num, seq_len + 1), model.start_token, device=model.device)
    for t in range(seq_len):
        state = model.advance(tokens[:, t], state)
        tokens[:, t + 1] = torch.multinomial(model.output(state[0]).softmax(dim=1), 1, generator=rng)[:, 0]
    return tokens[:, 1:]
