"""Fast drawing against the plain loop over `Generator.step`, and independence of threads and of TorchScript."""

import pytest
import torch
from helpers.reference import tiny_generator

from fast import completions as completions_module
from fast import decoder
from fast.categorical import SoftmaxSampler
from fast.completions import completions
from fast.decoder import Decoder
from generator import Generator
from support.threads import run_all, scratch


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


@pytest.mark.parametrize("algorithm", ["_complete_each", "_complete_together"])
@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_the_same_seed_draws_what_the_plain_loop_draws(scale, algorithm, monkeypatch):
    monkeypatch.setattr(completions_module, "_complete_each", getattr(completions_module, algorithm))  # the GPU's way, on the CPU
    policy = tiny_generator(vocab_size=23, hidden_dim=6, scale=scale)
    tokens = policy.sample(3, 6, torch.Generator().manual_seed(0))
    got = completions(policy, tokens, 4, torch.Generator().manual_seed(1))
    assert torch.equal(got, plain_completions(policy, tokens, 4, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("chunk", [1, 7 * 25, 10**6])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_and_chunks_change_no_draw(threads, chunk, monkeypatch):
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


def test_without_torchscript_the_draws_are_the_same(monkeypatch):
    policy = tiny_generator(vocab_size=23, hidden_dim=6, scale=2.0)
    first = policy.sample(40, 7, torch.Generator().manual_seed(2))
    assert isinstance(decoder.compiled_finish_rows(), torch.jit.ScriptFunction)
    monkeypatch.setattr(torch.jit, "script", lambda function: 1 / 0)
    decoder.compiled_finish_rows.cache_clear()
    try:
        assert decoder.compiled_finish_rows() is decoder.finish_rows
        assert torch.equal(policy.sample(40, 7, torch.Generator().manual_seed(2)), first)
    finally:
        decoder.compiled_finish_rows.cache_clear()


@pytest.mark.parametrize("expected_rows", [1, 10**6])
def test_a_token_is_read_as_the_generator_reads_it_with_and_without_a_table(expected_rows):
    model = tiny_generator(vocab_size=23, hidden_dim=6)
    fast = Decoder(model, expected_rows)
    assert len(fast.weights.table) == (0 if expected_rows == 1 else 23)
    states, state = fast.zero_states(8), model.initial_state(8)
    for seed in range(3):
        tokens = torch.randint(23, (8,), generator=torch.Generator().manual_seed(seed))
        fast.advance(tokens, states)
        state = model.advance(tokens, state)
        torch.testing.assert_close(states.padded[:, :6], state[0])
        torch.testing.assert_close(states.cell, state[1])
        assert torch.equal(states.padded[:, 6:], torch.tensor([[1.0, 0.0]]).expand(8, 2))


@pytest.mark.parametrize("scale", [5.0, 30.0, 300.0])
def test_sharp_rows_are_drawn_as_exactly_as_flat_ones(scale):
    """Logits far outside ±60."""
    rng = torch.Generator().manual_seed(0)
    vocab_size, hidden_dim, grid = 2000, 8, 20_000
    hidden = torch.rand(5, hidden_dim, generator=rng) * 2 - 1
    weight, bias = torch.randn(vocab_size, hidden_dim, generator=rng) * scale, torch.zeros(vocab_size)
    uniforms = ((torch.arange(grid, dtype=torch.float64) + 0.5) / grid).expand(5, -1).contiguous()
    tokens = SoftmaxSampler(weight, bias).draw(hidden, uniforms)
    probabilities = (hidden.double() @ weight.double().t()).softmax(dim=1)
    for row in range(5):
        counts = torch.bincount(tokens[row], minlength=vocab_size)
        assert ((counts - grid * probabilities[row]).abs() <= 2 + 1e-3 * scale / 30 * grid * probabilities[row]).all()


def test_a_largest_logit_that_the_estimate_misses():
    """All tokens but one have a larger norm than it, and logits 150 below its own."""
    hidden = torch.tensor([[1.0, 0.0]])
    weight = torch.tensor([[-100.0, 100.0]]).repeat(600, 1)
    weight[77] = torch.tensor([50.0, 0.0])
    tokens = SoftmaxSampler(weight, torch.zeros(600)).draw(
        hidden, torch.linspace(1e-9, 1 - 2.0**-53, 99, dtype=torch.float64)[None]
    )
    assert (tokens == 77).all()


def test_weights_that_are_no_numbers_end_in_some_token():
    """The training loop then says so in one line; a draw outside the vocabulary would end it with a traceback."""
    model = Generator(7, 3, 4)
    with torch.no_grad():
        model.output.weight.fill_(float("nan"))
    tokens = model.sample(3, 5, torch.Generator().manual_seed(0))
    assert tokens.min() >= 0 and tokens.max() < 7


def test_an_error_in_a_piece_reaches_the_caller():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError):
            run_all([lambda: 1, lambda: 1 // 0], torch.device("cpu"))
        assert run_all([lambda k=k: k for k in range(9)], torch.device("cpu")) == list(range(9))
        assert run_all([torch.get_num_threads] * 4, torch.device("cpu")) == [1] * 4
    finally:
        torch.set_num_threads(before)


def test_scratch_memory_is_used_again_by_its_thread_alone():
    like = torch.zeros(0)
    first = scratch("test", (3, 4), like)
    assert scratch("test", (2, 5), like).data_ptr() == first.data_ptr()
    assert scratch("other", (3, 4), like).data_ptr() != first.data_ptr()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        others = run_all([lambda: scratch("test", (3, 4), like).data_ptr()] * 4, torch.device("cpu"))
    finally:
        torch.set_num_threads(before)
    assert first.data_ptr() not in others
