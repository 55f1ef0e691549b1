"""Action values by Monte Carlo search (paper, Eq. 4).

The value of action y_t in state y_1..t−1 is, for t < T, the mean reward of N sequences that begin with y_1..t and are completed
by the roll-out policy G_β; for t = T it is the reward of the sequence itself. So the prefix of a completion includes y_t.

Shapes: B sequences, T tokens each, N roll-outs a prefix, H hidden units. Prefix t means y_1..t.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from generator import Generator


@torch.no_grad()
def action_values(
    policy: Generator, reward: Callable[[Tensor], Tensor], tokens: Tensor, num_rollouts: int, rng: torch.Generator
) -> Tensor:
    """Q(y_1..t−1, y_t) of every action of every sequence.

    Args:
        policy: the roll-out policy G_β.
        reward: scores whole sequences, (M, T) -> (M,); the discriminator's `prob_real`.
        tokens: sequences from the generator, (B, T).
        num_rollouts: N.
        rng: a CPU random stream.

    Returns:
        (B, T), in the units of the reward. Column t − 1 belongs to y_t.
    """
    batch, seq_len = tokens.shape
    values = torch.empty(batch, seq_len, device=tokens.device)
    values[:, -1] = reward(tokens)
    if seq_len > 1:
        completed = completions(policy, tokens, num_rollouts, rng)  # (T - 1, B, N, T)
        scores = reward(completed.flatten(0, 2)).view(seq_len - 1, batch, num_rollouts)
        values[:, :-1] = scores.mean(dim=2).t()
    return values


@torch.no_grad()
def completions(policy: Generator, tokens: Tensor, num_rollouts: int, rng: torch.Generator) -> Tensor:
    """N completions of each proper prefix of each sequence, all prefixes advancing together in one loop over positions.

    A plain loop runs every prefix anew for each roll-out. Here the LSTM state after each prefix is computed once and copied to
    its N completions, which also share the logits of their first draw; rows go in chunks whose logits stay in cache.

    Args:
        policy, tokens, num_rollouts, rng: as for `action_values`.

    Returns:
        int64 (T − 1, B, N, T): entry [t − 1, b, n] begins with y_1..t of sequence b.
    """
    batch, seq_len = tokens.shape
    group = batch * num_rollouts  # rows of one prefix
    completed = tokens[:, None].repeat(seq_len - 1, 1, num_rollouts, 1).view(-1, seq_len)  # ((T - 1)·B·N, T)
    sampler = policy.sampler()
    hidden, cell = (
        completed.new_empty(len(completed), policy.lstm.hidden_size, dtype=policy.output.weight.dtype) for _ in range(2)
    )
    start = torch.full_like(tokens[:, 0], policy.start_token)
    prefix_state = policy.step(start, policy.initial_state(batch))  # before y_1
    for position in range(1, seq_len):  # completes with token y_{position + 1}; prefixes 1..position are under way
        uniforms = torch.rand(position * group, dtype=torch.float64, generator=rng).to(tokens.device)
        old = (position - 1) * group  # rows of the shorter prefixes, which have drawn a token already
        for first in range(0, old, sampler.max_rows):
            rows = slice(first, min(first + sampler.max_rows, old))
            state = policy.step(completed[rows, position - 1], (hidden[rows], cell[rows]))
            hidden[rows], cell[rows] = state
            completed[rows, position] = sampler.draw(state[0], uniforms[rows])
        prefix_state = policy.step(tokens[:, position - 1], prefix_state)  # after y_1..position
        new = slice(old, old + group)  # the prefix of this length starts here
        hidden[new], cell[new] = (part.repeat_interleave(num_rollouts, dim=0) for part in prefix_state)
        completed[new, position] = sampler.draw(prefix_state[0], uniforms[new].view(batch, num_rollouts)).flatten()
    return completed.view(seq_len - 1, batch, num_rollouts, seq_len)
