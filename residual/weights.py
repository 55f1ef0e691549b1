"""Arithmetic of importance weights w(Y) = exp(β · s(Y)): the normaliser Z, NLL of the residual model, choice of β, resampling.

Shapes: M real sequences, S samples of G, K candidates for each of N sequences.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BETAS = tuple(step / 20 for step in range(101))  # 0 to 5; the value that minimises NLL_valid is taken
MOST_ERROR = 0.2  # of log Z; beyond it a few samples decide Z, and all that is computed with it


def log_normaliser(scores: Tensor, beta: float) -> tuple[float, float]:
    """Logarithm of Z = E_G[exp(β·s)] from scores of own samples of G, and its standard error (delta method).

    The estimate is low by about half the square of the error, as the logarithm is concave; by far more where the error is large: a
    few samples then have nearly all the weight, and those with more were not drawn.

    Args:
        scores: s, (S,), S ≥ 2.
        beta: β.
    """
    logs = beta * scores.double()
    largest = logs.max()
    weights = (logs - largest).exp()
    mean = weights.mean()
    return (largest + mean.log()).item(), (weights.std() / mean).item() / math.sqrt(len(weights))


def knowledge(real_scores: Tensor, sample_scores: Tensor, beta: float) -> tuple[float, float]:
    """How many nats a real sequence is likelier under the residual model than under G: β·mean s(real) − log Z, and its error.

    It is the Donsker-Varadhan lower bound of KL(real‖G) at the function β·s, as far as Z is known (`log_normaliser`).

    Args:
        real_scores: s of held-out real sequences, (M,); the error of a single one is NaN.
        sample_scores: s of own samples of G, (S,).
        beta: β.
    """
    log_z, error = log_normaliser(sample_scores, beta)
    logs = beta * real_scores.double()
    of_real = logs.std().item() / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    return logs.mean().item() - log_z, math.hypot(of_real, error)


def choose_beta(valid_scores: Tensor, sample_scores: Tensor) -> float:
    """The β of BETAS that is best on validation sequences; 0, which is G itself, where no other is better.

    Only those whose log Z is known to MOST_ERROR.

    Args:
        valid_scores: s of validation sequences, (M,).
        sample_scores: s of own samples of G, (S,).
    """
    known = [beta for beta in BETAS if not log_normaliser(sample_scores, beta)[1] > MOST_ERROR]  # 0 always is
    return max(known, key=lambda beta: (knowledge(valid_scores, sample_scores, beta)[0], -beta))


def resample(scores: Tensor, beta: float, rng: torch.Generator) -> Tensor:
    """For each sequence, one of its candidates with probability proportional to its weight (importance resampling).

    As K grows, the chosen ones are distributed as the residual model; with K = 1 or β = 0, as G.

    Args:
        scores: s, (N, K).
        beta: β.
        rng: a CPU random stream.

    Returns:
        int64 (N,), on the CPU: the number of the candidate.
    """
    shares = (beta * scores.double().cpu()).softmax(dim=1)
    return torch.multinomial(shares, 1, generator=rng)[:, 0]


def effective_candidates(scores: Tensor, beta: float) -> float:
    """Mean over sequences of (Σ w)² / Σ w², between 1, where one candidate outweighs all others, and K: (N, K) -> a number."""
    shares = (beta * scores.double()).softmax(dim=1)
    return (1 / shares.square().sum(dim=1)).mean().item()
