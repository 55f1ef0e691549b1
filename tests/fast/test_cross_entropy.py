"""The output layer with its cross-entropy against autograd through the plain formula."""

import pytest
import torch

from fast.cross_entropy import token_nll, weighted_nll

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]


def inputs(vocab_size, scale, dtype=torch.float64, device="cpu"):
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(12, 5, generator=rng).clamp(-1, 1)
    weight, bias = torch.randn(vocab_size, 5, generator=rng) * scale, torch.randn(vocab_size, generator=rng)
    targets, weights = torch.randint(vocab_size, (12,), generator=rng), torch.rand(12, generator=rng) - 0.3
    layers = [x.to(device, dtype).requires_grad_() for x in (hidden, weight, bias)]
    return layers, targets.to(device), weights.to(device, dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("vocab_size", [1, 2, 300])
def test_loss_and_gradients_are_those_of_the_plain_formula(vocab_size, scale, device, monkeypatch):
    monkeypatch.setattr(
        "fast.categorical.CHUNK_ELEMENTS", {"cpu": 5 * vocab_size, "cuda": 5 * vocab_size}
    )  # 3 chunks of 5, 5, 2 rows
    (hidden, weight, bias), targets, weights = inputs(vocab_size, scale, device=device)
    plain = (torch.nn.functional.cross_entropy(hidden @ weight.t() + bias, targets, reduction="none") * weights).sum()
    expected = torch.autograd.grad(3 * plain, (hidden, weight, bias))
    loss = weighted_nll(hidden, weight, bias, targets, weights)
    torch.testing.assert_close(loss, plain)
    for got, wanted in zip(torch.autograd.grad(3 * loss, (hidden, weight, bias)), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-7, atol=1e-10)


def test_a_target_of_probability_zero_in_float32_keeps_its_loss_and_gradient():
    """The loss is the distance of its logit from the others."""
    hidden, weight, bias = torch.ones(1, 1, requires_grad=True), torch.zeros(3, 1), torch.tensor([0.0, -200.0, 0.0])
    loss = weighted_nll(hidden, weight.requires_grad_(), bias, torch.tensor([1]), torch.ones(1))
    assert loss.item() == pytest.approx(200 + torch.tensor(2.0).log().item())
    (gradient,) = torch.autograd.grad(loss, weight)
    torch.testing.assert_close(gradient, torch.tensor([[0.5], [-1.0], [0.5]]))


@pytest.mark.parametrize("rows", [1, 5, 12])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("vocab_size", [1, 2, 300])
def test_nll_without_gradients_is_that_of_the_plain_formula(vocab_size, scale, rows, draws, monkeypatch):
    monkeypatch.setattr("fast.categorical.CHUNK_ELEMENTS", {"cpu": 2 * vocab_size})
    monkeypatch.setattr("fast.cross_entropy.NATIVE_ROWS", 5)
    (hidden, weight, bias), targets, _ = inputs(vocab_size, scale, torch.float32)
    layer = [x.detach() for x in (hidden[:rows], weight, bias)]
    plain = torch.nn.functional.cross_entropy(
        layer[0].double() @ layer[1].double().t() + layer[2], targets[:rows], reduction="none"
    )
    torch.testing.assert_close(token_nll(*layer, targets[:rows]), plain.float(), rtol=1e-5, atol=1e-5)


def test_no_tensor_of_all_tokens_times_the_vocabulary_is_kept():
    """What autograd keeps for the backward pass has the size of the weights and hidden states."""
    saved = []
    (hidden, weight, bias), targets, weights = inputs(300, 1.0)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        weighted_nll(hidden, weight, bias, targets, weights)
    assert max(saved) <= 300 * 6 < 12 * 300
