"""The rewards: each gives every action y_t of every sequence a value (lines 9 to 11 of Algorithm 1).

`REWARDS` is the table of them; --reward names one. D's probability of "real" is SeqGAN; `FORMS` are functions of it that other
recipes use. BLEU is PG-BLEU, a baseline of the paper's Table 1. The others are controls: they carry no information on the sequence,
so a gain that they reach too is no evidence for the discriminator. `BASELINES` lower the variance of the policy gradient.

Shapes: B sequences, T tokens each, N roll-outs a prefix, M sequences that are scored.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from data_set import DataSet
from fast.completion_scores import CompletionScorer, tables_are_faster
from rollout import action_values
from support import world
from train_state import TrainState, policy_batch

CLIP = 1e-4  # D's probability is kept this far from 0 and 1 where a form takes logarithms: |logit| ≤ 9.2


def _clipped(prob: Tensor) -> Tensor:
    return prob.clamp(CLIP, 1 - CLIP)


# --reward_form: functions of D's probability that a complete sequence is real. Roll-outs average the values of this function.
FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "prob": lambda prob: prob,  # the paper
    "log": lambda prob: _clipped(prob).log(),
    "minus_log": lambda prob: -torch.log1p(-_clipped(prob)),
    "logit": lambda prob: _clipped(prob).logit(),
}


def discriminator_values(tokens: Tensor, state: TrainState, _data: DataSet, args: argparse.Namespace) -> Tensor:
    """Action values of D's probability of "real", or of a function of it; without roll-outs, the value of the whole sequence."""
    discriminator, form = state.discriminator, FORMS[args.reward_form]

    def score(sequences: Tensor) -> Tensor:  # (M, T) -> (M,)
        return form(state.runner.run("scores", discriminator.prob_real, sequences))

    if not args.rollout_num:
        return score(tokens)[:, None].repeat(1, tokens.shape[1])
    score_completions = None
    if tables_are_faster(discriminator, tokens.numel() * args.rollout_num, tokens.shape[1]):
        scorer = CompletionScorer(discriminator, tokens[world.rows(len(tokens))])

        def score_completions(prefix: int, completed: Tensor) -> Tensor:  # (B, N, T) -> (B, N)
            return form(scorer(prefix, completed))

    rng = state.streams["rollouts"]
    return action_values(state.policy, score, tokens, args.rollout_num, rng, score_completions, state.runner)


def bleu_values(tokens: Tensor, state: TrainState, data: DataSet, args: argparse.Namespace) -> Tensor:
    """Action values of the BLEU-4 of whole sequences against the training set."""
    bleu = data.training_bleu()

    def reward(sequences: Tensor) -> Tensor:  # (M, T) -> (M,)
        return torch.from_numpy(bleu.score(sequences.cpu().numpy())).float().to(sequences.device)

    if not args.rollout_num:
        return reward(tokens)[:, None].repeat(1, tokens.shape[1])
    return action_values(state.policy, reward, tokens, args.rollout_num, state.streams["rollouts"], runner=state.runner)


def constant_values(tokens: Tensor, _state: TrainState, _data: DataSet, args: argparse.Namespace) -> Tensor:
    """The same number for every action."""
    return torch.full(tokens.shape, args.reward_constant, device=tokens.device)


def random_values(tokens: Tensor, state: TrainState, _data: DataSet, _args: argparse.Namespace) -> Tensor:
    """A number drawn uniformly from [0, 1) for every action, on the CPU."""
    return torch.rand(tokens.shape, generator=state.streams["random reward"]).to(tokens.device)


def shuffled_values(tokens: Tensor, state: TrainState, data: DataSet, args: argparse.Namespace) -> Tensor:
    """D's action values of another sequence of the batch at the same position: SeqGAN's values, without their information.

    The sequences of a batch are independent and of one distribution, so that the next one is as good as one at random.
    """
    return discriminator_values(tokens, state, data, args).roll(1, dims=0)


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
    "shuffled": Reward(shuffled_values, needs_discriminator=True, rolls_out=True),
}


def leave_one_out_baseline(values: Tensor, counted: Tensor) -> Tensor:
    """Each value less the mean of its position over the other sequences; this leaves the expected policy gradient as it is.

    Where no other sequence counts, nothing is subtracted.

    Args:
        values: (B, T).
        counted: which of them count, bool (B, T); the others take no part in the means.
    """
    others = counted.sum(dim=0) - counted.long()  # (B, T) where this one counts
    total = (values * counted).sum(dim=0) - values * counted
    return values - total / others.clamp(min=1)


def state_baseline(values: Tensor, counted: Tensor) -> Tensor:
    """Each Q_t less a prediction of the value of its state, y_1..t−1, from Q_t−1, which other roll-outs of that state estimate.

    The prediction is the least-squares line through (Q_t−1, Q_t) of the other sequences. Neither it nor Q_t−1 knows y_t, so the
    expected policy gradient is as it was; what earlier tokens contribute to Q_t, noise for y_t, is taken off. At t = 1 it is
    `leave_one_out_baseline`, whose arguments it has.
    """
    number = (counted.sum(dim=0) - counted.long())[:, 1:]  # of the others, (B, T - 1)
    others = number.clamp(min=1)

    def of_others(x: Tensor) -> Tensor:  # sums over the other sequences that count at t, (B, T - 1)
        x = x * counted[:, 1:]
        return x.sum(dim=0) - x

    centred = leave_one_out_baseline(values, counted)
    # Small numbers, so that differences of sums are exact enough: the line is the same from any origin of both axes.
    values = values - (values * counted).sum(dim=0) / counted.sum(dim=0).clamp(min=1)
    before, now = values[:, :-1], values[:, 1:]
    mean_before, mean_now = of_others(before) / others, of_others(now) / others
    spread = of_others(before.square()) - others * mean_before.square()
    together = of_others(before * now) - others * mean_before * mean_now
    known = spread > 1e-5 * of_others(before.square())  # otherwise it is rounding: their states have one value
    slope = torch.where(known, together / spread, 0.0).clamp(0, 1)  # what is above or below is chance
    lines = torch.where(number > 0, now - mean_now - slope * (before - mean_before), centred[:, 1:])
    return torch.cat([centred[:, :1], lines], dim=1)


# --baseline: what is subtracted from the values of a batch before the policy gradient, given which of them count.
BASELINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda values, _counted: values,
    "leave_one_out": leave_one_out_baseline,
    "state": state_baseline,
}


def trains_discriminator(args: argparse.Namespace) -> bool:
    """Whether the run uses D at all, and so trains it."""
    return args.total_epochs > 0 and REWARDS[args.reward].needs_discriminator and args.mle_share < 1


def has_vanished(reward: float, args: argparse.Namespace) -> bool:
    """Whether a mean reward says that D takes all sequences for generated ones: it is that of a probability of 2·CLIP or less."""
    return REWARDS[args.reward].needs_discriminator and reward <= FORMS[args.reward_form](torch.tensor(2 * CLIP)).item()


def drawn_tokens(args: argparse.Namespace) -> float:
    """How many tokens one g-step draws: its sequences, and on average (T − 1)/2 tokens for each roll-out of each token."""
    rollouts = args.rollout_num if REWARDS[args.reward].rolls_out else 0
    return policy_batch(args) * args.seq_len * (1 + rollouts * (args.seq_len - 1) / 2)
