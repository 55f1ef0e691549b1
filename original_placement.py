"""The rewards of the TensorFlow code whose command line this program keeps (Shaofanl/SeqGAN-Tensorflow), as its code places them.

It is a control, `--reward original`. In that code (`Generator.get_reward`, `ThresholdHelper`) a roll-out that keeps k steps reads
y_1..y_{k−1}, but every token of the sequence that D scores is drawn anew. The mean score of k kept steps goes to action k + 1, the
first action gets 0, and the whole sequence is never scored. The policy loss takes tokens that are drawn once more. So the reward of
an action does not depend on the action, and the expected policy gradient is zero whatever D says.

Shapes: B sequences, T tokens each, N roll-outs for each number of kept steps.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from fast.decoder import Decoder, RowStates, repeat_rows
from generator import Generator, sampling_numbers
from rollout import Reward
from support import world
from support.device import to_device
from support.threads import run_all


@torch.no_grad()
def original_values(policy: Generator, reward: Reward, tokens: Tensor, num_rollouts: int, rng: torch.Generator) -> Tensor:
    """Column k is the mean reward of N sequences of `redrawn_rollouts` with k kept steps, and column 0 is 0.

    Args:
        policy: the roll-out policy G_β.
        reward: scores whole sequences, (M, T) -> (M,).
        tokens: sequences from the generator, (B, T).
        num_rollouts: N.
        rng: a CPU random stream.

    Returns:
        (B, T), in the units of the reward.
    """
    own = world.rows(len(tokens))
    values = torch.zeros(tokens[own].shape, device=tokens.device)
    if tokens.shape[1] > 1:
        sequences = redrawn_rollouts(policy, tokens, num_rollouts, rng, own)  # (T - 1, B', N, T)
        scores = reward(sequences.flatten(0, 2)).view(sequences.shape[:3])
        values[:, 1:] = scores.mean(dim=2).t()
    return world.gather(values, len(tokens))


@torch.no_grad()
def redrawn_rollouts(
    policy: Generator, tokens: Tensor, num_rollouts: int, rng: torch.Generator, own: slice = slice(None)
) -> Tensor:
    """N sequences for each sequence and each number of kept steps k: y'_1..y'_k, each drawn given y_1..y_{t−1}, then freely.

    Args:
        policy: the roll-out policy G_β.
        tokens: y, (B, T) with T > 1.
        num_rollouts: N.
        rng: a CPU random stream.
        own: the sequences whose roll-outs to draw.

    Returns:
        int64 (T − 1, B, N, T), with B the number of these sequences; the first index is k − 1. Token k + 1 is drawn given
        y_1..y_{k−1} and y'_k.
    """
    shape = (tokens.shape[1], tokens.shape[1] - 1, len(tokens), num_rollouts)
    uniforms = to_device(torch.rand(shape, dtype=torch.float64, generator=rng)[:, :, own], tokens.device)
    tokens = tokens[own]
    batch, seq_len = tokens.shape
    result = tokens.new_empty(seq_len - 1, batch, num_rollouts, seq_len)
    decoder = Decoder(policy, result.numel())

    def task(kept: int, state: RowStates) -> None:
        """The draws at step `kept` of all roll-outs that keep it, and the free steps of those that keep no more."""
        numbers = uniforms[kept - 1, kept - 1 :].movedim(0, 1)  # (B, T - kept, N): roll-outs that keep `kept` steps or more
        drawn = decoder.draw(state, numbers.reshape(batch, -1).contiguous()).view(numbers.shape)
        result[kept - 1 :, :, :, kept - 1] = drawn.movedim(1, 0)
        part = result[kept - 1].view(-1, seq_len)
        free = uniforms[kept:, kept - 1].flatten(1)  # (T - kept, B·N)
        decoder.finish(part, kept, part[:, kept - 1].clone(), repeat_rows(state, num_rollouts), free)

    state, tasks = decoder.zero_states(batch), []
    inputs = policy.inputs(tokens)
    for kept in range(1, seq_len):
        decoder.advance(inputs[:, kept - 1], state)
        tasks.append(partial(task, kept, repeat_rows(state, 1)))
    run_all(tasks, tokens.device)
    return result


@torch.no_grad()
def redrawn(generator: Generator, tokens: Tensor, rng: torch.Generator) -> Tensor:
    """Each token drawn anew given the tokens before it, y'_t ~ G(·|y_1..t−1): (B, T) -> int64 (B, T); `rng` is a CPU stream."""
    batch, seq_len = tokens.shape
    uniforms = to_device(sampling_numbers(batch, seq_len, rng), tokens.device)  # (T, B)
    decoder = Decoder(generator, tokens.numel())
    state, result, inputs = decoder.zero_states(batch), torch.empty_like(tokens), generator.inputs(tokens)
    for t in range(seq_len):
        decoder.advance(inputs[:, t], state)
        result[:, t] = decoder.draw(state, uniforms[t])
    return result
