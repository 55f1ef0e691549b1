"""The N completions of every prefix of every sequence (paper, Eq. 3), all prefixes at once.

A plain loop runs every prefix anew for each roll-out (tests: `helpers.reference.plain_action_values`). Here the LSTM state after
each prefix is computed once and copied to its N completions, which also share the logits of their first draw.

Shapes: B sequences, T tokens each, N roll-outs a prefix. Prefix t means y_1..t.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from fast.cuda_graphs import PLAIN_RUNNER, Runner
from fast.decoder import Decoder, LanguageModel, RowStates, repeat_rows, select_rows
from support.device import to_device
from support.threads import on_cpu, run_all, slices


@torch.no_grad()
def completions(
    policy: LanguageModel,
    tokens: Tensor,
    num_rollouts: int,
    rng: torch.Generator,
    runner: Runner = PLAIN_RUNNER,
    own: slice = slice(None),
) -> Tensor:
    """N completions of each proper prefix of each sequence, or of some sequences: those that all of them would give.

    Args:
        policy: the roll-out policy G_β.
        tokens: sequences from the generator, (B, T).
        num_rollouts: N.
        rng: a CPU random stream.
        runner: runs the drawing.
        own: the sequences to complete.

    Returns:
        int64 (T − 1, B, N, T), with B the number of sequences to complete: entry [t − 1, b, n] begins with y_1..t of sequence b.
    """
    batch, seq_len = tokens.shape
    drawn = batch * num_rollouts * seq_len * (seq_len - 1) // 2
    uniforms = torch.rand(drawn, dtype=torch.float64, generator=rng)  # on the CPU: the same numbers on every device
    if len(tokens[own]) < batch:  # a prefix of length p draws the numbers of (p, B, N), position by position
        parts = uniforms.split([position * batch * num_rollouts for position in range(1, seq_len)])
        uniforms = torch.cat([part.view(-1, batch, num_rollouts)[:, own].flatten() for part in parts])
    return runner.run("roll-outs", partial(_complete, policy, num_rollouts), tokens[own], to_device(uniforms, tokens.device))


def _complete(policy: LanguageModel, num_rollouts: int, tokens: Tensor, uniforms: Tensor) -> Tensor:
    """The completions that the given uniform numbers draw, one number for each missing token."""
    batch, seq_len = tokens.shape
    decoder = Decoder(policy, len(uniforms))
    # numbers[p - 1]: the uniforms with which prefixes 1..p draw token p + 1, the same on every device and number of threads.
    group = batch * num_rollouts
    parts = uniforms.split([position * group for position in range(1, seq_len)])
    numbers = [part.view(-1, batch, num_rollouts) for part in parts]
    completed = tokens[:, None].repeat(seq_len - 1, 1, num_rollouts, 1).view(seq_len - 1, batch, num_rollouts, seq_len)
    complete = _complete_each if on_cpu(tokens.device) else _complete_together
    complete(decoder, policy.start_token, tokens, numbers, completed)
    return completed


def _complete_each(decoder: Decoder, start_token: int, tokens: Tensor, uniforms: list[Tensor], completed: Tensor) -> None:
    """On a CPU: draw the missing tokens of (T − 1, B, N, T) in place; a thread's task is one prefix of some sequences."""
    batch, seq_len = tokens.shape
    num_rollouts = completed.shape[2]
    state = decoder.zero_states(batch)  # before y_1

    def task(prefix: int, after: RowStates, b: slice) -> None:
        part, numbers = completed[prefix - 1, b], [u[prefix - 1, b] for u in uniforms[prefix - 1 :]]  # each (B', N)
        if decoder.end_token >= 0:  # where the prefix has ended, the copies of the sequence are its completions already
            going_on = tokens[b, prefix - 1] != decoder.end_token  # (B',)
            after, numbers = RowStates(after.padded[going_on], after.cell[going_on]), [u[going_on] for u in numbers]
            whole, part = part, part[going_on]
        if not len(part):
            return
        first = decoder.draw(after, numbers[0])  # (B', N): the copies share their logits
        part[:, :, prefix] = first
        if prefix + 1 < seq_len:
            rest = torch.stack(numbers[1:]).flatten(1)  # (T - prefix - 1, B'·N)
            decoder.finish(part.view(-1, seq_len), prefix + 1, first.view(-1), repeat_rows(after, num_rollouts), rest)
        if decoder.end_token >= 0:
            whole[going_on] = part

    size = max(1, decoder.sampler.max_rows // num_rollouts)
    parts = slices(batch, size)
    tasks = []
    decoder.advance(torch.full_like(tokens[:, 0], start_token), state)
    for prefix in range(1, seq_len):
        decoder.advance(tokens[:, prefix - 1], state)  # after y_1..prefix
        tasks += [partial(task, prefix, repeat_rows(select_rows(state, b), 1), b) for b in parts]
    run_all(tasks, tokens.device)


def _complete_together(decoder: Decoder, start_token: int, tokens: Tensor, uniforms: list[Tensor], completed: Tensor) -> None:
    """On a GPU: draw the missing tokens of (T − 1, B, N, T) in place, all prefixes in one loop over positions."""
    batch, seq_len = tokens.shape
    num_rollouts = completed.shape[2]
    group = batch * num_rollouts  # rows of one prefix
    states = decoder.zero_states((seq_len - 1) * group)
    prefix_state = decoder.zero_states(batch)  # before y_1
    decoder.advance(torch.full_like(tokens[:, 0], start_token), prefix_state)
    newest = completed.new_empty((seq_len - 1) * group)  # each row's last token
    for position in range(1, seq_len):  # draws y_{position + 1} of prefixes 1..position
        now = uniforms[position - 1]  # (position, B, N)
        old = (position - 1) * group  # rows of the shorter prefixes, which have drawn a token already
        for first in range(0, old, decoder.sampler.max_rows):
            rows = slice(first, min(first + decoder.sampler.max_rows, old))
            part = select_rows(states, rows)
            decoder.advance(newest[rows], part)
            newest[rows] = decoder.draw(part, now[:-1].reshape(-1)[rows], newest[rows])
        decoder.advance(tokens[:, position - 1], prefix_state)  # after y_1..position
        new = slice(old, old + group)  # the rows of this prefix
        for own, shared in zip(select_rows(states, new), repeat_rows(prefix_state, num_rollouts), strict=True):
            own.copy_(shared)
        newest[new] = decoder.draw(prefix_state, now[-1], tokens[:, position - 1]).view(-1)
        completed[:position, :, :, position] = newest[: old + group].view(position, batch, num_rollouts)
