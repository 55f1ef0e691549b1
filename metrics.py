"""What the curves show: NLL both ways, and how well the discriminator tells held-out real sequences from generated ones.

Shapes: M sequences, T tokens each. NLLs are in nats per token.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from generator import Generator

SEQUENCES_AT_ONCE = 1000  # bounds the memory of the LSTM's hidden states


@torch.no_grad()
def mean_nll(model: Generator, tokens: Tensor) -> tuple[float, float]:
    """Mean −log-likelihood per token of sequences (M, T) under a model, and its standard error over sequences."""
    parts = [model.nll(part).double().mean(dim=1) for part in tokens.split(SEQUENCES_AT_ONCE)]
    per_sequence = torch.cat(parts)  # (M,)
    error = per_sequence.std().item() / math.sqrt(len(per_sequence)) if len(per_sequence) > 1 else math.nan
    return per_sequence.mean().item(), error


def entropy(model: Generator, num: int, seq_len: int, rng: torch.Generator) -> tuple[float, float]:
    """Monte Carlo estimate of a model's entropy per token from `num` own sequences, and its standard error."""
    return mean_nll(model, model.sample(num, seq_len, rng))


def auc(positive: Tensor, negative: Tensor) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half. 1-D tensors."""
    ordered, positive = negative.sort().values, positive.contiguous()
    below = torch.searchsorted(ordered, positive).double()
    not_above = torch.searchsorted(ordered, positive, right=True).double()
    return ((below + not_above) / 2).mean().item() / len(negative)


def discriminator_scores(prob_real: Tensor, prob_generated: Tensor) -> dict[str, float]:
    """Accuracy on each class at the threshold 1/2, and AUC, from D's probability of "real" for both."""
    return {
        "accuracy_real": (prob_real > 0.5).double().mean().item(),
        "accuracy_fake": (prob_generated <= 0.5).double().mean().item(),
        "auc": auc(prob_real, prob_generated),
    }
