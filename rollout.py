"""Action values by Monte Carlo search (paper, Eq. 4).

The value of action y_t in state y_1..t−1 is, for t < T, the mean reward of N sequences that begin with y_1..t and are completed
by the roll-out policy G_β; for t = T it is the reward of the sequence itself. So the prefix of a completion includes y_t.

Shapes: B sequences, T tokens each, N roll-outs a prefix, P prefixes. Prefix t means y_1..t.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fast.cuda_graphs import PLAIN_STEPS, Steps, to_device
from fast.decoder import Decoder, RowStates
from generator import Generator
from support.threads import on_cpu, run_all

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
    steps: Steps = PLAIN_STEPS,
) -> Tensor:
    """Q(y_1..t−1, y_t) of every action of every sequence.

    Args:
        policy: the roll-out policy G_β.
        reward: scores whole sequences, (M, T) -> (M,); the discriminator's `prob_real`.
        tokens: sequences from the generator, (B, T).
        num_rollouts: N.
        rng: a CPU random stream.
        completion_reward: gives the same scores for the completions of one prefix, faster, because it knows the sequences
            they began from. On a CPU, several threads call it at once.
        steps: runs the drawing.

    Returns:
        (B, T), in the units of the reward. Column t − 1 belongs to y_t.
    """
    batch, seq_len = tokens.shape
    values = torch.empty(batch, seq_len, device=tokens.device)
    values[:, -1] = reward(tokens)
    if seq_len == 1:
        return values
    completed = completions(policy, tokens, num_rollouts, rng, steps)  # (T - 1, B, N, T)
    if completion_reward is None:
        scores = reward(completed.flatten(0, 2)).view(completed.shape[:3])
    else:
        pieces = [partial(completion_reward, t, completed[t - 1]) for t in range(1, seq_len)]
        scores = torch.stack(run_all(pieces, tokens.device))
    values[:, :-1] = scores.mean(dim=2).t()
    return values


@torch.no_grad()
def completions(policy: Generator, tokens: Tensor, num_rollouts: int, rng: torch.Generator, steps: Steps = PLAIN_STEPS) -> Tensor:
    """N completions of each proper prefix of each sequence, all prefixes advancing together in one loop over positions.

    A plain loop runs every prefix anew for each roll-out. Here the LSTM state after each prefix is computed once and copied to
    its N completions, which also share the logits of their first draw. On a CPU each thread takes some of the sequences.

    Args:
        policy, tokens, num_rollouts, rng, steps: as for `action_values`.

    Returns:
        int64 (T − 1, B, N, T): entry [t − 1, b, n] begins with y_1..t of sequence b.
    """
    batch, seq_len = tokens.shape
    drawn = batch * num_rollouts * seq_len * (seq_len - 1) // 2
    uniforms = torch.rand(drawn, dtype=torch.float64, generator=rng)  # on the CPU: the same numbers on every device
    return steps.run("roll-outs", partial(_complete, policy, num_rollouts), tokens, to_device(uniforms, tokens.device))


def _complete(policy: Generator, num_rollouts: int, tokens: Tensor, uniforms: Tensor) -> Tensor:
    """The completions that the given numbers draw, one number for each missing token."""
    batch, seq_len = tokens.shape
    decoder = Decoder(policy, len(uniforms))
    # [p - 1] holds the numbers of prefixes 1..p at position p: what is drawn depends neither on the device nor on the threads.
    group = batch * num_rollouts
    parts = uniforms.split([position * group for position in range(1, seq_len)])
    numbers = [part.view(-1, batch, num_rollouts) for part in parts]
    completed = tokens[:, None].repeat(seq_len - 1, 1, num_rollouts, 1).view(seq_len - 1, batch, num_rollouts, seq_len)
    complete = _complete_each if on_cpu(tokens.device) else _complete_together
    complete(decoder, policy.start_token, tokens, numbers, completed)
    return completed


def _complete_each(decoder: Decoder, start_token: int, tokens: Tensor, uniforms: list[Tensor], completed: Tensor) -> None:
    """Draw the missing tokens of completions (T − 1, B, N, T) in place, each thread one prefix of some sequences at a time."""
    batch, seq_len = tokens.shape
    num_rollouts = completed.shape[2]
    state = decoder.zero_states(batch)  # before y_1

    def piece(prefix: int, after: RowStates, b: slice) -> None:
        part, numbers = completed[prefix - 1, b], [u[prefix - 1, b] for u in uniforms[prefix - 1 :]]  # each (B', N)
        first = decoder.draw(after, numbers[0])  # (B', N): the copies share their logits
        part[:, :, prefix] = first
        if prefix + 1 < seq_len:
            states = decoder.zero_states(first.numel())
            states.set(slice(0, first.numel()), after, num_rollouts)
            rest = torch.stack(numbers[1:]).flatten(1)  # (T - prefix - 1, B'·N)
            decoder.finish(part.view(-1, seq_len), prefix + 1, first.view(-1), states, rest)

    size = max(1, decoder.sampler.max_rows // num_rollouts)
    parts = [slice(start, min(start + size, batch)) for start in range(0, batch, size)]
    pieces = []
    decoder.step(torch.full_like(tokens[:, 0], start_token), state)
    for prefix in range(1, seq_len):
        decoder.step(tokens[:, prefix - 1], state)  # after y_1..prefix
        pieces += [partial(piece, prefix, state.rows(b).copy(), b) for b in parts]
    run_all(pieces, tokens.device)


def _complete_together(decoder: Decoder, start_token: int, tokens: Tensor, uniforms: list[Tensor], completed: Tensor) -> None:
    """Draw the missing tokens of completions (T − 1, B, N, T) in place, all prefixes in one loop over positions."""
    batch, seq_len = tokens.shape
    num_rollouts = completed.shape[2]
    group = batch * num_rollouts  # rows of one prefix
    states = decoder.zero_states((seq_len - 1) * group)
    prefix_state = decoder.zero_states(batch)  # before y_1
    decoder.step(torch.full_like(tokens[:, 0], start_token), prefix_state)
    drawn = completed.new_empty((seq_len - 1) * group)  # each row's newest token
    for position in range(1, seq_len):  # completes with token y_{position + 1}; prefixes 1..position are under way
        now = uniforms[position - 1]  # (position, B, N)
        old = (position - 1) * group  # rows of the shorter prefixes, which have drawn a token already
        for first in range(0, old, decoder.sampler.max_rows):
            rows = slice(first, min(first + decoder.sampler.max_rows, old))
            part = states.rows(rows)
            decoder.step(drawn[rows], part)
            drawn[rows] = decoder.draw(part, now[:-1].reshape(-1)[rows])
        decoder.step(tokens[:, position - 1], prefix_state)  # after y_1..position
        new = slice(old, old + group)  # the prefix of this length starts here
        states.set(new, prefix_state, num_rollouts)
        drawn[new] = decoder.draw(prefix_state, now[-1]).view(-1)
        completed[:position, :, :, position] = drawn[: old + group].view(position, batch, num_rollouts)
