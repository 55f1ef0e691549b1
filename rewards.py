"""Rewards that stand in for the discriminator's: all give (B, T), one number for each action of each sequence.

BLEU makes PG-BLEU, a baseline of the paper's Table 1. A constant and a random reward carry no information: what a policy gains from
them is what any positive reward gives, and a discriminator has to do better.

Shapes: B sequences, T tokens each, N roll-outs a prefix, M sequences that are scored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fast.cuda_graphs import PLAIN_STEPS, Steps
from generator import Generator
from metrics import Bleu
from rollout import action_values

REWARDS = ("discriminator", "bleu", "constant", "random")


def bleu_values(
    policy: Generator, bleu: Bleu, tokens: Tensor, num_rollouts: int, rng: torch.Generator, steps: Steps = PLAIN_STEPS
) -> Tensor:
    """Action values (Eq. 4) whose reward is the BLEU-4 of whole sequences against the training set: (B, T) -> (B, T)."""

    def reward(sequences: Tensor) -> Tensor:  # (M, T) -> (M,)
        return torch.from_numpy(bleu.score(sequences.cpu().numpy())).float().to(sequences.device)

    return action_values(policy, reward, tokens, num_rollouts, rng, steps=steps)


def constant_values(tokens: Tensor, value: float) -> Tensor:
    """The same reward for every action: (B, T) -> (B, T)."""
    return torch.full(tokens.shape, value, device=tokens.device)


def random_values(tokens: Tensor, rng: torch.Generator) -> Tensor:
    """A reward drawn uniformly from [0, 1) for every action, on the CPU: (B, T) -> (B, T)."""
    return torch.rand(tokens.shape, generator=rng).to(tokens.device)
