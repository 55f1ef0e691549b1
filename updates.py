"""The updates: one optimiser step on one batch each, for maximum likelihood, for D and for the policy gradient; and β ← θ.

The three optimiser steps have the same signature (state, settings, tensors of fixed shapes), copy no value from the device and
keep no count in Python, so that they can be recorded as CUDA graphs.

Shapes: B sequences, T tokens each.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from discriminator import REAL
from generator import Generator
from support.device import matmul_precision
from train_state import TrainState


def mle_update(state: TrainState, args: argparse.Namespace, tokens: Tensor, inputs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Minimise −(1/(B·T)) Σ log G_θ(y_t | y_1..t−1) on sequences (B, T), read as they are or as `inputs` (B, T).

    Where sequences are of variable length, B·T is the number of tokens that count (`Generator.counted`), here and below.

    Returns:
        The loss, and the gradient norm before clipping.
    """
    weights = torch.full(tokens.shape, 1 / tokens.numel(), device=tokens.device)
    if state.generator.end_token is not None:
        counted = state.generator.counted(tokens)
        weights = counted / counted.sum()
    return _generator_update(state, state.generator.weighted_nll(tokens, weights, inputs), "mle", args.grad_clip)


def policy_update(state: TrainState, args: argparse.Namespace, tokens: Tensor, rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 8: one ascent step on the expected reward J (Eq. 1), given sequences and rewards (B, T); returns as `mle_update`."""
    return _generator_update(state, policy_loss(state.generator, tokens, rewards, args.policy_loss), "policy", args.grad_clip)


def policy_loss(generator: Generator, tokens: Tensor, rewards: Tensor, reduction: str) -> Tensor:
    """−Σ Q_t · log G_θ(y_t | y_1..t−1) over B·T, or its mean; its negative gradient estimates Eq. 6 by samples (Eq. 7).

    Args:
        generator: G_θ.
        tokens: the sequences that were scored, (B, T).
        rewards: Q of each action, (B, T); no gradient is taken for them.
        reduction: "sum" or "mean".
    """
    if reduction == "sum":
        return generator.weighted_nll(tokens, rewards)
    number = rewards.numel() if generator.end_token is None else generator.counted(tokens).sum()
    return generator.weighted_nll(tokens, rewards / number)


def _generator_update(state: TrainState, loss: Tensor, optimizer: str, grad_clip: float) -> tuple[Tensor, Tensor]:
    state.optimizers[optimizer].zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.generator.parameters(), grad_clip)
    state.optimizers[optimizer].step()
    return loss.detach(), norm


def discriminator_update(state: TrainState, args: argparse.Namespace, tokens: Tensor, labels: Tensor) -> Tensor:
    """Eq. 5: one descent step on D's cross-entropy for sequences (B, T) and classes (B,).

    Returns:
        Loss; real sequences classified correctly, real sequences; generated ones classified correctly, generated ones: (5,).
    """
    state.optimizers["discriminator"].zero_grad(set_to_none=True)
    with matmul_precision(args.d_precision, tokens.device):
        logits = state.discriminator(tokens)  # (B, 2)
        cross_entropy = torch.nn.functional.cross_entropy(logits, labels)
        loss = cross_entropy + args.d_l2 * state.discriminator.l2() if args.d_l2 else cross_entropy
        loss.backward()
    state.optimizers["discriminator"].step()
    right, real = logits.argmax(dim=1) == labels, labels == REAL
    return torch.stack([loss.detach(), (right & real).sum(), real.sum(), (right & ~real).sum(), (~real).sum()])


@torch.no_grad()
def update_rollout_policy(policy: Generator, generator: Generator, keep: float) -> None:
    """β ← keep·β + (1 − keep)·θ; keep = 0 copies θ, as in Algorithm 1; other values are not the paper's."""
    for beta, theta in zip(policy.parameters(), generator.parameters(), strict=True):
        if keep:
            beta.lerp_(theta, 1 - keep)
        else:
            beta.copy_(theta)
