"""The rewards: each gives every action y_t of every sequence a value (lines 9 to 11 of Algorithm 1).

`REWARDS` is the table of them; --reward names one. D's probability of "real" is SeqGAN. BLEU is PG-BLEU, a baseline of the paper's
Table 1. A constant and a random reward carry no information. They are controls: a gain that they reach too is no evidence for the
discriminator.

Shapes: B sequences, T tokens each, N roll-outs a prefix, M sequences that are scored.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from data_set import DataSet
from fast.completion_scores import CompletionScorer, tables_are_faster
from rollout import action_values
from train_state import TrainState


def discriminator_values(tokens: Tensor, state: TrainState, _data: DataSet, args: argparse.Namespace) -> Tensor:
    """Action values of D's probability of "real"."""
    discriminator = state.discriminator
    scorer = None
    if tables_are_faster(discriminator, tokens.numel() * args.rollout_num, tokens.shape[1]):
        scorer = CompletionScorer(discriminator, tokens)
    score = partial(state.runner.run, "scores", discriminator.prob_real)
    return action_values(state.policy, score, tokens, args.rollout_num, state.streams["rollouts"], scorer, state.runner)


def bleu_values(tokens: Tensor, state: TrainState, data: DataSet, args: argparse.Namespace) -> Tensor:
    """Action values of the BLEU-4 of whole sequences against the training set."""
    bleu = data.training_bleu()

    def reward(sequences: Tensor) -> Tensor:  # (M, T) -> (M,)
        return torch.from_numpy(bleu.score(sequences.cpu().numpy())).float().to(sequences.device)

    return action_values(state.policy, reward, tokens, args.rollout_num, state.streams["rollouts"], runner=state.runner)


def constant_values(tokens: Tensor, _state: TrainState, _data: DataSet, args: argparse.Namespace) -> Tensor:
    """The same number for every action."""
    return torch.full(tokens.shape, args.reward_constant, device=tokens.device)


def random_values(tokens: Tensor, state: TrainState, _data: DataSet, _args: argparse.Namespace) -> Tensor:
    """A number drawn uniformly from [0, 1) for every action, on the CPU."""
    return torch.rand(tokens.shape, generator=state.streams["random reward"]).to(tokens.device)


@dataclass(frozen=True)
class Reward:
    """A value of --reward.

    Attributes:
        values: the rewards of sequences (B, T), given the state, the data and the settings: (B, T), column t − 1 belongs to y_t.
        needs_discriminator: whether D is used, and so trained.
        rolls_out: whether prefixes are completed by roll-outs.
    """

    values: Callable[[Tensor, TrainState, DataSet, argparse.Namespace], Tensor]
    needs_discriminator: bool = False
    rolls_out: bool = False


REWARDS = {
    "discriminator": Reward(discriminator_values, needs_discriminator=True, rolls_out=True),
    "bleu": Reward(bleu_values, rolls_out=True),
    "constant": Reward(constant_values),
    "random": Reward(random_values),
}


def trains_discriminator(args: argparse.Namespace) -> bool:
    """Whether the run uses D at all, and so trains it."""
    return args.total_epochs > 0 and REWARDS[args.reward].needs_discriminator


def drawn_tokens(args: argparse.Namespace) -> float:
    """How many tokens one g-step draws: its sequences, and on average (T − 1)/2 tokens for each roll-out of each token."""
    rollouts = args.rollout_num if REWARDS[args.reward].rolls_out else 0
    return args.batch_size * args.seq_len * (1 + rollouts * (args.seq_len - 1) / 2)
