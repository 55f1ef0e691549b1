"""The CNN against a plain conv1d version, and what scoring must leave alone."""

import math

import pytest
import torch
import torch.nn.functional as F

from discriminator import REAL, Discriminator

FILTERS = [(1, 3), (2, 4), (3, 5), (3, 2)]


def make(keep_prob=0.75, seed=0):
    """A small discriminator with a dropout stream of its own."""
    rng = torch.Generator().manual_seed(seed)
    return Discriminator(11, 6, FILTERS, keep_prob, torch.Generator().manual_seed(9)).initialise(rng)


def random_tokens(num=7, seq_len=6):
    """Tokens (num, seq_len) below 11."""
    return torch.randint(11, (num, seq_len), generator=torch.Generator().manual_seed(1))


def plain_logits(model, tokens):
    """The same network from conv1d, ReLU at each position and then the maximum, in evaluation mode."""
    embedded = model.embed.weight[tokens].transpose(1, 2)  # (B, E, T)
    features = []
    for width, layer in model.convolutions.items():
        kernel = layer.weight.view(layer.out_features, -1, int(width))
        features.append(torch.relu(F.conv1d(embedded, kernel, layer.bias)).amax(dim=2))
    x = torch.cat(features, dim=1)
    gate = torch.sigmoid(x @ model.gate.weight.t() + model.gate.bias)
    x = gate * torch.relu(x @ model.highway.weight.t() + model.highway.bias) + (1 - gate) * x
    return x @ model.output.weight.t() + model.output.bias


def test_logits_equal_a_plain_convolution():
    model = make().eval()
    torch.testing.assert_close(model(random_tokens()), plain_logits(model, random_tokens()))


def test_prob_real_is_class_one_and_ignores_dropout_in_any_mode():
    model = make()
    expected = plain_logits(model, random_tokens()).softmax(dim=1)[:, 1]
    for mode in (True, False):
        model.train(mode)
        torch.testing.assert_close(model.prob_real(random_tokens()), expected)
        assert model.training is mode


def test_scoring_leaves_weights_mode_and_streams_untouched():
    model = make().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stream, world = model.dropout_rng.get_state(), torch.get_rng_state()
    values = model.prob_real(random_tokens())
    assert not values.requires_grad
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(stream, model.dropout_rng.get_state())
    assert torch.equal(world, torch.get_rng_state())


def test_scoring_in_parts_gives_the_same_scores(monkeypatch):
    model = make()
    whole = model.prob_real(random_tokens(9))
    monkeypatch.setattr("discriminator.SCORING_ROWS", {"cpu": 2})
    torch.testing.assert_close(model.prob_real(random_tokens(9)), whole)


def test_dropout_keeps_the_declared_share_and_the_mean():
    model = make(keep_prob=0.75).train()
    tokens = random_tokens(1).repeat(20_000, 1)
    logits = model(tokens)
    assert logits.std(dim=0).min() > 1e-3  # it does drop in training
    expected = plain_logits(model, tokens[:1])[0]
    error = 4.5 * logits.std(dim=0) / math.sqrt(len(tokens))
    assert ((logits.mean(dim=0) - expected).abs() < error + 1e-6).all()


def test_dropout_draws_from_its_own_stream():
    first, second = make().train(), make().train()
    torch.rand(5)  # the global stream moves on, dropout does not care
    assert torch.equal(first(random_tokens()), second(random_tokens()))


def test_initialisation_has_the_declared_spread():
    model = Discriminator(5000, 32, [(3, 200), (5, 300)]).initialise(torch.Generator().manual_seed(0))
    assert model.embed.weight.abs().max() <= 1
    assert model.embed.weight.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.02)
    for layer in (*model.convolutions.values(), model.output):
        assert layer.weight.abs().max() <= 0.2
        assert (layer.bias == 0.1).all()
    # a normal cut at 2σ has standard deviation 0.88σ
    assert model.convolutions["5"].weight.std().item() == pytest.approx(0.088, rel=0.02)
    limit = math.sqrt(6 / (500 + 500))  # Glorot's, for F = 500
    for layer in (model.highway, model.gate):
        assert 0.98 * limit < layer.weight.abs().max() <= limit
        assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)
        assert not layer.bias.any()


def test_training_raises_prob_real_of_the_real_class():
    model = Discriminator(10, 8, [(1, 8), (2, 8)], 0.75, torch.Generator().manual_seed(0))
    model.initialise(torch.Generator().manual_seed(0)).train()
    rng = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    real, fake = torch.randint(0, 5, (64, 6), generator=rng), torch.randint(5, 10, (64, 6), generator=rng)
    labels = torch.tensor([REAL] * 64 + [1 - REAL] * 64)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.cat([real, fake])), labels).backward()
        optimizer.step()
    assert model.prob_real(real).min() > 0.9
    assert model.prob_real(fake).max() < 0.1
