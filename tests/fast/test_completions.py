"""Completions of all prefixes against the plain loop over `Generator.advance`, row by row."""

import pytest
import torch
from helpers.reference import tiny_generator

from fast import completions as completions_module
from fast.categorical import SoftmaxSampler
from fast.completions import completions

pytestmark = pytest.mark.usefixtures("draws")


def plain_draw(model, hidden, uniform):
    """Inverse of the cumulative sum in float64, the tokens in the order g, g + G, ... of the two-level sum."""
    sampler = SoftmaxSampler(model.output.weight, model.output.bias)
    order = torch.arange(sampler.block_size * sampler.num_blocks).view(sampler.block_size, -1).t().flatten()
    order = order[order < model.vocab_size]
    weights = model.output(hidden).double().softmax(dim=0)[order]
    return order[torch.searchsorted(weights.cumsum(0), uniform, right=True).clamp(max=len(order) - 1)]


@torch.no_grad()
def plain_completions(policy, tokens, num_rollouts, rng):
    """One row at a time, from the same uniform numbers: position by position, prefixes 1..p, sequences, roll-outs."""
    batch, seq_len = tokens.shape
    uniforms = {p: torch.rand(p, batch, num_rollouts, dtype=torch.float64, generator=rng) for p in range(1, seq_len)}
    result = tokens[:, None].repeat(seq_len - 1, 1, num_rollouts, 1).view(seq_len - 1, batch, num_rollouts, seq_len)
    for t in range(1, seq_len):
        for b in range(batch):
            for n in range(num_rollouts):
                row = result[t - 1, b, n]
                state = policy.advance(torch.tensor([policy.start_token]), policy.initial_state(1))
                for position in range(1, seq_len):
                    state = policy.advance(row[position - 1 : position], state)
                    if position >= t:
                        row[position] = plain_draw(policy, state[0][0], uniforms[position][t - 1, b, n])
    return result


COLUMNS = 25  # of the output layer of V = 23 tokens, which drawing lays out as 5 blocks of 5


@pytest.fixture(params=["CPU", "GPU's order", "GPU"])
def way(request, monkeypatch):
    """How completions are computed: as on a CPU; all prefixes together as on a GPU; and with all of a GPU's code."""
    if request.param == "GPU's order":
        monkeypatch.setattr(completions_module, "_complete_each", completions_module._complete_together)
    if request.param == "GPU":
        monkeypatch.setattr("support.threads.CPU_TYPES", ())
    return request.param


@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_the_same_seed_draws_what_the_plain_loop_draws(scale, way):
    policy = tiny_generator(vocab_size=23, hidden_dim=6, scale=scale)
    tokens = policy.sample(3, 6, torch.Generator().manual_seed(0))
    got = completions(policy, tokens, 4, torch.Generator().manual_seed(1))
    assert torch.equal(got, plain_completions(policy, tokens, 4, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("chunk", [1, 7, 60])  # rows; a prefix has 12, and all prefixes have 60
def test_rows_beyond_one_chunk_keep_their_states_and_uniforms(chunk, way, monkeypatch):
    policy = tiny_generator(vocab_size=23, hidden_dim=6, scale=2.0)
    tokens = policy.sample(3, 6, torch.Generator().manual_seed(0))
    monkeypatch.setattr("fast.categorical.DRAW_ELEMENTS", {"cpu": chunk * COLUMNS})
    assert SoftmaxSampler(policy.output.weight, policy.output.bias).max_rows == chunk
    got = completions(policy, tokens, 4, torch.Generator().manual_seed(1))
    assert torch.equal(got, plain_completions(policy, tokens, 4, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("chunk", [1, 7 * COLUMNS, 10**6])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_and_chunk_sizes_change_no_draw(threads, chunk, monkeypatch):
    policy = tiny_generator(vocab_size=23, hidden_dim=6, scale=2.0)
    rng = torch.Generator().manual_seed(0)
    tokens = policy.sample(6, 7, rng)
    reference = (
        completions(policy, tokens, 5, torch.Generator().manual_seed(1)),
        policy.sample(50, 7, torch.Generator().manual_seed(2)),
    )
    monkeypatch.setattr("fast.categorical.DRAW_ELEMENTS", {"cpu": chunk, "cuda": chunk})
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(completions(policy, tokens, 5, torch.Generator().manual_seed(1)), reference[0])
        assert torch.equal(policy.sample(50, 7, torch.Generator().manual_seed(2)), reference[1])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
