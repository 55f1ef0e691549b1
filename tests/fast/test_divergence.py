"""The divergence in chunks against plain autograd."""

import pytest
import torch
from torch import nn

from fast import categorical
from fast.divergence import weighted_kl

ROWS, VOCAB = 7, 5


def layers():
    """Hidden states of two models of different sizes, their output layers, and weights of rows, one 0 and one negative."""
    rng = torch.Generator().manual_seed(0)
    p, q = nn.Linear(4, VOCAB).double(), nn.Linear(6, VOCAB).double()
    with torch.no_grad():
        for parameter in [*p.parameters(), *q.parameters()]:
            parameter.normal_(std=1.5, generator=rng)
    hidden, other = (torch.randn(ROWS, size, generator=rng, dtype=torch.float64, requires_grad=True) for size in (4, 6))
    weights = torch.rand(ROWS, generator=rng, dtype=torch.float64)
    weights[2], weights[4] = 0, -0.7
    return hidden, p, other, q, weights


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100])
def test_values_and_gradients_do_not_depend_on_the_chunks(rows, monkeypatch):
    monkeypatch.setitem(categorical.CHUNK_ELEMENTS, "cpu", rows * VOCAB)
    hidden, p, other, q, weights = layers()
    total, each = weighted_kl(hidden, p, other, q, weights)
    (2.5 * total).backward()
    assert other.grad is None and all(parameter.grad is None for parameter in q.parameters())
    assert not each.requires_grad
    got = [hidden.grad, p.weight.grad, p.bias.grad]

    hidden, p, other, q, weights = layers()
    log_p, log_q = p(hidden).log_softmax(dim=1), q(other).detach().log_softmax(dim=1)
    plain = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    (2.5 * (plain * weights).sum()).backward()
    torch.testing.assert_close(each, plain.detach())
    torch.testing.assert_close(total, (plain * weights).sum())
    for one, two in zip(got, [hidden.grad, p.weight.grad, p.bias.grad], strict=True):
        torch.testing.assert_close(one, two)


def test_a_model_has_no_divergence_from_itself_and_confident_ones_a_finite_one():
    hidden, p, _, _, weights = layers()
    total, each = weighted_kl(hidden, p, hidden, p, weights)
    assert total.item() == pytest.approx(0, abs=1e-12) and each.abs().max() < 1e-12
    steep, other = nn.Linear(1, 2), nn.Linear(1, 2)
    with torch.no_grad():
        for layer, slope in ((steep, 200.0), (other, -50.0)):
            layer.weight.copy_(torch.tensor([[slope], [0.0]]))
            layer.bias.zero_()
    one = torch.ones(1, 1, requires_grad=True)
    total, _ = weighted_kl(one, steep, torch.ones(1, 1), other, torch.ones(1))  # p = (1, e^−200), q = (e^−50, 1)
    total.backward()
    assert total.item() == pytest.approx(50) and torch.isfinite(steep.weight.grad).all()
