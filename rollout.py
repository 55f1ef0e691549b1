"""Action values by Monte Carlo search.

The value of action y_t in state y_1..t−1 is, for t < T, the mean reward of N sequences that begin with y_1..t and are completed
by the roll-out policy G_β; for t = T it is the reward of the sequence itself. So the prefix of a completion includes y_t.

Shapes: B sequences, B' of them this rank's, T tokens each, N roll-outs a prefix. Prefix t means y_1..t.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fast.completions import completions
from fast.cuda_graphs import PLAIN_RUNNER, Runner
from generator import Generator
from support import world
from support.threads import run_all

Reward = Callable[[Tensor], Tensor]  # sequences (M, T) -> (M,)
CompletionReward = Callable[[int, Tensor], Tensor]  # the length of a prefix, its completions (B, N, T) -> (B, N)


@torch.no_grad()
def action_values(
    policy: Generator,
    reward: Reward,
    tokens: Tensor,
    num_rollouts: int,
    rng: torch.Generator,
    completion_reward: CompletionReward | None = None,
    runner: Runner = PLAIN_RUNNER,
) -> Tensor:
    """Q(y_1..t−1, y_t) of every action of every sequence: Eq. 4 of the paper.

    Args:
        policy: the roll-out policy G_β.
        reward: scores whole sequences, (M, T) -> (M,); the discriminator's `prob_real`.
        tokens: sequences from the generator, (B, T).
        num_rollouts: N.
        rng: a CPU random stream.
        completion_reward: computes the same scores faster for the completions of one prefix, from tables made of this rank's
            rows of `tokens`. On a CPU several threads call it at once.
        runner: runs the roll-outs, directly or as a CUDA graph.

    Returns:
        (B, T), in the units of the reward. Column t − 1 belongs to y_t.
    """
    batch, seq_len = tokens.shape
    own = world.rows(batch)
    values = torch.empty(own.stop - own.start, seq_len, device=tokens.device)
    values[:, -1] = reward(tokens[own])  # t = T, Eq. 2
    if seq_len == 1:
        return world.gather(values, batch)
    completed = completions(policy, tokens, num_rollouts, rng, runner, own)  # (T - 1, B', N, T)
    if completion_reward is None:
        scores = reward(completed.flatten(0, 2)).view(completed.shape[:3])
    else:
        tasks = [partial(completion_reward, t, completed[t - 1]) for t in range(1, seq_len)]
        scores = torch.stack(run_all(tasks, tokens.device))
    values[:, :-1] = scores.mean(dim=2).t()  # t < T: (T - 1, B', N) -> (B', T - 1)
    return world.gather(values, batch)
