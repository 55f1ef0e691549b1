"""Reading and drawing tokens in place: the same states as the generator, with and without TorchScript."""

import pytest
import torch
from helpers.reference import tiny_generator

from fast import decoder
from fast.decoder import Decoder
from generator import Generator

pytestmark = pytest.mark.usefixtures("draws")


def test_without_torchscript_the_draws_are_the_same(monkeypatch):
    policy = tiny_generator(vocab_size=23, hidden_dim=6, scale=2.0)
    first = policy.sample(40, 7, torch.Generator().manual_seed(2))
    assert isinstance(decoder.compiled(decoder.finish_rows), torch.jit.ScriptFunction)
    monkeypatch.setattr(torch.jit, "script", lambda function: 1 / 0)
    decoder.compiled.cache_clear()
    try:
        assert decoder.compiled(decoder.finish_rows) is decoder.finish_rows
        assert torch.equal(policy.sample(40, 7, torch.Generator().manual_seed(2)), first)
    finally:
        decoder.compiled.cache_clear()


@pytest.mark.parametrize("expected_rows", [1, 10**6])
def test_reading_a_token_gives_the_generators_state_with_and_without_a_table(expected_rows, draws):
    model = tiny_generator(vocab_size=23, hidden_dim=6)
    fast = Decoder(model, expected_rows)
    assert len(fast.weights.table) == (0 if expected_rows == 1 or draws == "native" else 23)
    states, state = fast.zero_states(8), model.initial_state(8)
    for seed in range(3):
        tokens = torch.randint(23, (8,), generator=torch.Generator().manual_seed(seed))
        fast.advance(tokens, states)
        state = model.advance(tokens, state)
        torch.testing.assert_close(states.padded[:, :6], state[0])
        torch.testing.assert_close(states.cell, state[1])
        assert torch.equal(states.padded[:, 6:], torch.tensor([[1.0, 0.0]]).expand(8, 2))


def test_weights_that_are_nan_still_draw_tokens_of_the_vocabulary():
    """The training loop then ends with one line; a token outside the vocabulary would end it with a traceback."""
    model = Generator(7, 3, 4)
    with torch.no_grad():
        model.output.weight.fill_(float("nan"))
    tokens = model.sample(3, 5, torch.Generator().manual_seed(0))
    assert tokens.min() >= 0 and tokens.max() < 7
