"""The LSTM language model and the oracle: teacher forcing, single steps and sampling are one model."""

import math

import numpy as np
import pytest
import torch
from helpers.reference import NumpyLSTM, enumerate_sequences, sequence_probability, tiny_generator

from generator import GENERATOR_INIT, Generator
from metrics import entropy, mean_nll
from oracle import make_oracle
from support.random_streams import stream


def stepwise_log_probabilities(model, tokens):
    """Log-probabilities (B, T, V) by single steps from the start token."""
    state, last, result = model.initial_state(len(tokens)), torch.full_like(tokens[:, 0], model.start_token), []
    for column in tokens.t():
        state = model.advance(last, state)
        result.append(model.output(state[0]).log_softmax(dim=1))
        last = column
    return torch.stack(result, dim=1)


def test_single_steps_equal_teacher_forcing():
    model = tiny_generator(vocab_size=30, hidden_dim=10)
    tokens = torch.randint(30, (6, 9), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(stepwise_log_probabilities(model, tokens), model(tokens))


def test_nll_is_minus_the_log_probability_of_the_given_tokens(monkeypatch):
    model = tiny_generator(vocab_size=30, hidden_dim=10)
    tokens = torch.randint(30, (6, 9), generator=torch.Generator().manual_seed(0))
    expected = -model(tokens).gather(2, tokens[:, :, None])[:, :, 0]
    torch.testing.assert_close(model.nll(tokens), expected)
    monkeypatch.setattr("fast.categorical.CHUNK_ELEMENTS", {"cpu": 30 * 7})  # many chunks, the last one partial
    torch.testing.assert_close(model.nll(tokens), expected)


def test_probabilities_of_all_sequences_sum_to_one():
    tokens = enumerate_sequences(3, 4)
    assert sequence_probability(tiny_generator(scale=2.0), tokens).sum().item() == pytest.approx(1, abs=1e-5)


def test_no_token_sees_itself_or_its_future():
    model = tiny_generator(vocab_size=5)
    tokens = torch.randint(5, (1, 6), generator=torch.Generator().manual_seed(0))
    for t in range(6):
        other = tokens.clone()
        other[0, t] = (other[0, t] + 1) % 5
        changed = (model(tokens) != model(other)).any(dim=2)[0]
        assert not changed[: t + 1].any()
        assert changed[t + 1 :].all()


def test_samples_follow_the_probabilities_of_whole_sequences():
    model = tiny_generator(scale=1.5)
    n = 100_000
    samples = model.sample(n, 3, torch.Generator().manual_seed(0))
    for sequence in enumerate_sequences(3, 3):
        chance = sequence_probability(model, sequence[None]).item()
        share = (samples == sequence).all(dim=1).double().mean().item()
        assert abs(share - chance) < 4.5 * math.sqrt(chance * (1 - chance) / n) + 1e-6


def test_sampled_nll_equals_teacher_forced_nll():
    """Tokens are drawn step by step with the log-probabilities that teacher forcing gives them."""
    model = tiny_generator(vocab_size=40, hidden_dim=8)
    samples = model.sample(50, 7, torch.Generator().manual_seed(0))
    drawn_with = -stepwise_log_probabilities(model, samples).gather(2, samples[:, :, None])[:, :, 0]
    torch.testing.assert_close(drawn_with, model.nll(samples))


def test_sampling_is_repeatable_and_does_not_use_the_global_stream():
    model = tiny_generator(vocab_size=40)
    before = torch.get_rng_state()
    first, second = (model.sample(5, 6, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, model.sample(5, 6, torch.Generator().manual_seed(8)))
    assert torch.equal(before, torch.get_rng_state())


def test_low_temperature_approaches_the_most_likely_token():
    model = tiny_generator(vocab_size=6, scale=2.0)
    samples = model.sample(20, 5, torch.Generator().manual_seed(0), temperature=1e-3)
    assert torch.equal(samples, model(samples).argmax(dim=2))


@pytest.mark.parametrize("init", GENERATOR_INIT)
def test_mle_loss_starts_near_ln_v(init):
    model = Generator(5000, 32, 50).initialise(stream(1, "weights"), **GENERATOR_INIT[init])
    tokens = torch.randint(5000, (64, 20), generator=torch.Generator().manual_seed(0))
    assert model.nll(tokens).mean().item() == pytest.approx(math.log(5000), abs=0.15)


def test_default_initialisation_has_the_declared_spread():
    model = Generator(5000, 32, 50).initialise(stream(1, "weights"), **GENERATOR_INIT["glorot"])
    assert model.embed.weight.std().item() == pytest.approx(0.1, rel=0.02)
    assert model.output.weight.std().item() == pytest.approx(1.0, rel=0.02)
    assert not model.output.bias.any()
    limit = math.sqrt(6 / (32 + 50 + 4 * 50))
    for weight in (model.lstm.weight_ih_l0, model.lstm.weight_hh_l0):
        assert 0.98 * limit < weight.abs().max() <= limit
    i, f, g, o = model.lstm.bias_ih_l0.chunk(4)
    assert (f == 1).all()
    assert not torch.cat([i, g, o, model.lstm.bias_hh_l0]).any()


def test_second_bias_of_the_cell_is_not_trained():
    model = tiny_generator()
    model.weighted_nll(torch.tensor([[0, 1, 2]]), torch.ones(1, 3)).backward()
    assert model.lstm.bias_hh_l0.grad is None
    assert model.lstm.bias_ih_l0.grad is not None


@pytest.fixture(scope="module")
def oracle():
    """The oracle of the default preset."""
    return make_oracle(5000, 20, 50, "glorot", stream(1, "oracle weights"))


def test_oracle_nll_agrees_with_float64_numpy(oracle):
    tokens = torch.randint(5000, (20, 20), generator=torch.Generator().manual_seed(0))
    expected = -NumpyLSTM(oracle).log_probabilities(tokens.numpy())
    np.testing.assert_allclose(oracle.nll(tokens).numpy(), expected, atol=3e-5)


def test_oracle_entropy_agrees_with_float64_numpy(oracle):
    """Another sampler, with exact conditional entropies in float64, at the default preset."""
    got, got_error = entropy(oracle, 2000, 20, stream(1, "entropy"))
    expected, expected_error = NumpyLSTM(oracle).entropy(400, 20, np.random.default_rng(0))
    assert expected_error < 0.01
    assert abs(got - expected) < 4 * math.hypot(got_error, expected_error)


def test_oracle_is_fixed_and_its_own_nll_test_is_its_entropy(oracle):
    assert not any(p.requires_grad for p in oracle.parameters())
    held_out = oracle.sample(1000, 20, stream(1, "held-out data"))
    nll_test, error = mean_nll(oracle, held_out)  # a generator that is the oracle
    floor, floor_error = entropy(oracle, 1000, 20, stream(1, "entropy"))
    assert abs(nll_test - floor) < 4 * math.hypot(error, floor_error)
