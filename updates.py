"""The updates: one optimiser step on one batch each, for maximum likelihood, for D and for the policy gradient; and β ← θ.

The three optimiser steps have the same signature (state, settings, tensors of fixed shapes), copy no value from the device and
keep no count in Python, so that they can be recorded as CUDA graphs.

Shapes: B sequences, T tokens each, B' rows of this rank (support/world.py), which computes their part of the loss and gradients.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor

from discriminator import REAL
from fast.divergence import weighted_kl
from generator import Generator
from rewards import BASELINES, leave_one_out_baseline
from support import world
from support.device import matmul_precision
from train_state import TrainState

LAST_RATE = 0.03  # of the learning rate, at the end of a cosine schedule


def mle_update(
    state: TrainState,
    args: argparse.Namespace,
    tokens: Tensor,
    inputs: Tensor | None = None,
    *masks: Tensor,
) -> tuple[Tensor, Tensor]:
    """Minimise −(1/(B·T)) Σ log G_θ(y_t | y_1..t−1) on sequences (B, T), read as they are or as `inputs` (B, T).

    Where sequences are of variable length, B·T is the number of tokens that count (`Generator.counted`), here and below.

    Args:
        state: what training changes.
        args: the run's settings.
        tokens: y.
        inputs: what each step reads, if not y.
        masks: the two of `Generator.dropout_masks`, or none.

    Returns:
        The loss, and the gradient norm before clipping.
    """
    weights = torch.full(tokens.shape, 1 / tokens.numel(), device=tokens.device)
    if state.generator.end_token is not None:
        counted = state.generator.counted(tokens)
        weights = counted / counted.sum()
    return _generator_update(state, own_nll(state.generator, tokens, weights, inputs, masks), "mle", args.grad_clip)


def own_nll(
    generator: Generator, tokens: Tensor, weights: Tensor, inputs: Tensor | None = None, masks: tuple[Tensor, ...] = ()
) -> Tensor:
    """`Generator.weighted_nll` of this rank's rows; all ranks' add up to that of the batch."""
    own = world.rows(len(tokens))
    own_masks = tuple(mask[own] for mask in masks) or None
    return generator.weighted_nll(tokens[own], weights[own], None if inputs is None else inputs[own], own_masks)


def policy_update(state: TrainState, args: argparse.Namespace, tokens: Tensor, rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 8: one ascent step on the expected reward J (Eq. 1), given sequences and rewards (B, T); returns as `mle_update`.

    With --kl_weight λ the objective is J − λ·KL(G_θ‖G_MLE), with --baseline a baseline is subtracted from the rewards.
    """
    generator, counted = state.generator, state.generator.counted(tokens)
    if not args.kl_weight:
        loss = policy_loss(generator, tokens, BASELINES[args.baseline](rewards, counted), args.policy_loss)
        return _generator_update(state, loss, "policy", args.grad_clip)
    weights = args.kl_weight * counted / (counted.sum() if args.policy_loss == "mean" else 1)
    own = world.rows(len(tokens))
    penalty, each = kl_penalty(generator, state.reference, tokens[own], weights[own])
    cost = args.kl_weight * world.gather(each, len(tokens)) * counted
    later = cost.flip(1).cumsum(dim=1).flip(1) - cost  # (B, T): cost of the steps after y_t, to which y_t leads
    if args.baseline != "none":  # no line of "state": the cost after y_t−1 is known with y_t only
        later = leave_one_out_baseline(later, counted)
    values = BASELINES[args.baseline](rewards, counted) - later
    loss = policy_loss(generator, tokens, values, args.policy_loss) + penalty
    return _generator_update(state, loss, "policy", args.grad_clip)


def policy_loss(generator: Generator, tokens: Tensor, rewards: Tensor, reduction: str) -> Tensor:
    """−Σ Q_t · log G_θ(y_t | y_1..t−1) over B·T, or its mean; its negative gradient estimates Eq. 6 by samples (Eq. 7).

    Where several ranks share the batch this is one rank's part, and all parts add up to it.

    Args:
        generator: G_θ.
        tokens: the sequences that were scored, (B, T).
        rewards: Q of each action, (B, T); no gradient is taken for them.
        reduction: "sum" or "mean".
    """
    if reduction == "sum":
        return own_nll(generator, tokens, rewards)
    number = rewards.numel() if generator.end_token is None else generator.counted(tokens).sum()
    return own_nll(generator, tokens, rewards / number)


def kl_penalty(generator: Generator, reference: Generator, tokens: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """KL(G_θ(·|y_1..t−1) ‖ G_ref(·|y_1..t−1)), exact at each step of given sequences.

    The mean over G_θ's own sequences of its sum over t is the divergence of whole sequences, KL(G_θ‖G_ref).

    Args:
        generator: G_θ.
        reference: G_ref, without a gradient.
        tokens: y, (B, T).
        weights: of each step, (B, T).

    Returns:
        The weighted sum, a scalar to train on with the prefixes as they are, and each step's divergence, (B, T), in nats.
    """
    hidden = generator.hidden(tokens).flatten(0, 1)  # (B·T, H)
    with torch.no_grad():
        other = reference.hidden(tokens).flatten(0, 1)
    total, each = weighted_kl(hidden, generator.output, other, reference.output, weights.flatten())
    return total, each.view(tokens.shape)


def _generator_update(state: TrainState, loss: Tensor, optimizer: str, grad_clip: float) -> tuple[Tensor, Tensor]:
    state.optimizers[optimizer].zero_grad(set_to_none=True)
    loss.backward()
    loss = loss.detach()
    world.add_up([loss, *(p.grad for p in state.generator.parameters() if p.grad is not None)])
    norm = torch.nn.utils.clip_grad_norm_(state.generator.parameters(), grad_clip)
    state.optimizers[optimizer].step()
    return loss, norm


def set_learning_rate(optimizer: torch.optim.Optimizer, base: float, schedule: str, done: int, total: int) -> None:
    """The learning rate of one of `total` epochs, after `done` of them.

    Args:
        optimizer: whose rate is set.
        base: the rate of the first epoch.
        schedule: "constant", or "cosine": from `base` along half a cosine wave to LAST_RATE of it in the last epoch.
        done: epochs before this one.
        total: epochs of the phase.
    """
    share = done / max(1, total - 1) if schedule == "cosine" else 0.0
    rate = base * (LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * share)) / 2)
    for group in optimizer.param_groups:
        device = group["params"][0].device
        if not group["capturable"]:
            group["lr"] = rate
        elif torch.is_tensor(group["lr"]) and group["lr"].device == device:
            group["lr"].fill_(rate)  # in place: a CUDA graph reads the rate where it is
        else:
            group["lr"] = torch.tensor(rate, device=device)


def discriminator_update(state: TrainState, args: argparse.Namespace, tokens: Tensor, labels: Tensor) -> Tensor:
    """Eq. 5: one descent step on D's cross-entropy for sequences (B, T) and classes (B,).

    Returns:
        Loss; real sequences classified correctly, real sequences; generated ones classified correctly, generated ones: (5,).
    """
    state.optimizers["discriminator"].zero_grad(set_to_none=True)
    with matmul_precision(args.d_precision, tokens.device):
        own = world.rows(len(tokens))
        logits, labels = state.discriminator(tokens, own), labels[own]  # (B', 2), (B',)
        cross_entropy = torch.nn.functional.cross_entropy(logits, labels)
        loss = cross_entropy + args.d_l2 * state.discriminator.l2() if args.d_l2 else cross_entropy
        loss = loss * (len(labels) / len(tokens))  # all ranks' add up to the mean over the batch
        loss.backward()
    right, real = logits.argmax(dim=1) == labels, labels == REAL
    values = torch.stack([loss.detach(), (right & real).sum(), real.sum(), (right & ~real).sum(), (~real).sum()])
    world.add_up([values, *(p.grad for p in state.discriminator.parameters())])
    state.optimizers["discriminator"].step()
    return values


@torch.no_grad()
def update_rollout_policy(policy: Generator, generator: Generator, keep: float) -> None:
    """β ← keep·β + (1 − keep)·θ; keep = 0 copies θ, as in Algorithm 1; other values are not the paper's."""
    for beta, theta in zip(policy.parameters(), generator.parameters(), strict=True):
        if keep:
            beta.lerp_(theta, 1 - keep)
        else:
            beta.copy_(theta)
