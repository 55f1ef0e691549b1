"""The output layer with its cross-entropy against autograd through the plain formula."""

import itertools
import shutil

import pytest
import torch

from fast import native
from fast.cross_entropy import token_nll, weighted_nll
from fast.kernel import CHUNK, NativeLayer
from generator import Generator

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]


needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


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


def gradients_of(loss, *given):
    return [loss.detach(), *torch.autograd.grad(3 * loss, given)]


def plain(hidden, weight, bias, targets, weights):
    given = [x.detach().double().requires_grad_() for x in (hidden, weight, bias)]
    logits = given[0] @ given[1].t() + given[2]
    losses = logits.logsumexp(dim=1) - logits.gather(1, targets[:, None])[:, 0]
    return gradients_of((losses * weights.double()).sum(), *given)


def hold_to_float64(found, expected, tolerance):
    for tensor, exact in zip(found, expected, strict=True):
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor.double(), exact, rtol=0, atol=tolerance * (exact.abs().max().item() + 0.1))


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize(
    ("vocab_size", "hidden_dim", "rows"), [(1, 1, 1), (2, 3, 13), (31, 5, 12), (33, 17, 385), (300, 5, 200), (5000, 50, 30)]
)
def test_the_kernels_loss_and_gradients_are_those_of_float64(vocab_size, hidden_dim, rows, scale, threads, monkeypatch):
    """In chunks of 192 rows, with negative weights and weights of zero."""
    monkeypatch.setattr("fast.cross_entropy.GRADIENTS", 1)
    monkeypatch.setattr("fast.kernel.PRODUCTS_OF_THREADS", 0)
    rng = torch.Generator().manual_seed(1)
    given = [
        torch.rand(rows, hidden_dim, generator=rng) * 2 - 1,
        torch.randn(vocab_size, hidden_dim, generator=rng) * scale,
        torch.randn(vocab_size, generator=rng),
    ]
    targets = torch.randint(vocab_size, (rows,), generator=rng)
    weights = (torch.rand(rows, generator=rng) - 0.3).relu() - 0.1 * (torch.rand(rows, generator=rng) > 0.8)
    expected = plain(*given, targets, weights)
    native.set_up("True", torch.device("cpu"))
    torch.set_num_threads(threads)
    try:
        given = [x.requires_grad_() for x in given]
        hold_to_float64(gradients_of(weighted_nll(*given, targets, weights), *given), expected, 1e-6 * (1 + scale))
        apart = [x.detach().t().contiguous().t().requires_grad_() if x.dim() == 2 else x for x in given]
        found = gradients_of(weighted_nll(*apart, targets.repeat_interleave(2)[::2], weights), *apart)
        hold_to_float64(found, expected, 1e-6 * (1 + scale))
    finally:
        torch.set_num_threads(1)


@needs_compiler
@pytest.mark.parametrize(
    "bias",
    [
        [69.0] * 70,
        [-69.0] * 70,
        [-3000.0] * 70,
        [0.0] * 69 + [3000.0],
        [-3000.0] * 69 + [0.0],
        [20.0 * k for k in range(70)],
        [0.0] * 32 + [69.0] * 32 + [88.0] * 6,  # the last ones need a shift of 127, which the others survive
    ],
)
def test_sums_outside_of_float32_keep_their_gradients(bias):
    """One row's shift, or that of its first columns, would take sums or products out of range."""
    rng = torch.Generator().manual_seed(1)
    given = [torch.rand(15, 4, generator=rng) * 1e-3, torch.randn(70, 4, generator=rng), torch.tensor(bias)]
    targets, weights = torch.arange(15) * 5 % 70, torch.full((15,), 1e-9)
    expected = plain(*given, targets, weights)
    native.set_up("True", torch.device("cpu"))
    given = [x.requires_grad_() for x in given]
    found = gradients_of(weighted_nll(*given, targets, weights), *given)
    for tensor, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(tensor.double(), exact, rtol=1e-5, atol=1e-5 * exact.abs().max().item())


@needs_compiler
def test_the_kernel_keeps_the_loss_and_gradient_of_a_target_of_probability_zero():
    native.set_up("True", torch.device("cpu"))
    hidden, weight, bias = torch.ones(1, 1, requires_grad=True), torch.zeros(3, 1), torch.tensor([0.0, -200.0, 0.0])
    loss = weighted_nll(hidden, weight.requires_grad_(), bias, torch.tensor([1]), torch.ones(1))
    assert loss.item() == pytest.approx(200 + torch.tensor(2.0).log().item())
    torch.testing.assert_close(torch.autograd.grad(loss, weight)[0], torch.tensor([[0.5], [-1.0], [0.5]]))


@needs_compiler
@pytest.mark.parametrize("where", ["hidden", "weight", "bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_kernels_loss_of_broken_numbers_is_not_finite(where, value):
    """The training stops by its loss."""
    native.set_up("True", torch.device("cpu"))
    (hidden, weight, bias), targets, weights = inputs(300, 1.0, torch.float32)
    with torch.no_grad():
        {"hidden": hidden, "weight": weight, "bias": bias}[where].view(-1)[7] = value
    assert not weighted_nll(hidden, weight, bias, targets, weights).isfinite()


@needs_compiler
@pytest.mark.parametrize("rows", [1, 12, 13, 50, CHUNK + 5])
def test_threads_change_no_row_of_the_kernel_and_no_memory_behind_it(rows, monkeypatch):
    rng = torch.Generator().manual_seed(1)
    layer = NativeLayer(native.load()[0], torch.randn(70, 4, generator=rng), torch.zeros(70))
    hidden, targets = torch.rand(rows, 4, generator=rng), torch.randint(70, (rows,), generator=rng)
    memory, found = {}, []
    monkeypatch.setattr("fast.kernel.PRODUCTS_OF_THREADS", 0)
    for threads in (1, 2, 3, 7):
        memory.update({name: torch.full((500_000,), 7.0) for name in ("gradients of logits", "cross entropy")})
        asked = {}
        monkeypatch.setattr(
            "fast.kernel.scratch",
            lambda name, shape, like, asked=asked: memory[name][: asked.setdefault(name, torch.Size(shape).numel())].view(shape),
        )
        torch.set_num_threads(threads)
        losses, factors = torch.full((rows + 3,), 7.0).double(), torch.full((rows + 3,), 7.0)
        try:
            gradients = layer.cross_entropy(hidden, targets, losses, factors)
        finally:
            torch.set_num_threads(1)
        assert all((memory[name][asked[name] :] == 7).all() for name in asked) and len(asked) == 2
        assert (losses[rows:] == 7).all() and (factors[rows:] == 7).all()
        found.append((gradients.clone(), losses, factors))
    assert all(torch.equal(one, other) for result in found for one, other in zip(result, found[0], strict=True))


@needs_compiler
def test_many_rows_in_one_call_of_the_kernel():
    rng = torch.Generator().manual_seed(1)
    given = [torch.rand(3000, 3, generator=rng), torch.randn(40, 3, generator=rng), torch.randn(40, generator=rng)]
    targets, weights = torch.randint(40, (3000,), generator=rng), torch.rand(3000, generator=rng)
    expected = plain(*given, targets, weights)
    native.set_up("True", torch.device("cpu"))
    given = [x.requires_grad_() for x in given]
    hold_to_float64(gradients_of(weighted_nll(*given, targets, weights), *given), expected, 1e-6)


@needs_compiler
@pytest.mark.parametrize("target", [-1, 300, 319, 10**9])
def test_a_target_that_is_no_token_is_refused(target, draws):
    (hidden, weight, bias), targets, weights = inputs(300, 1.0, torch.float32)
    targets[3] = target
    with pytest.raises(RuntimeError, match=r"a target is none of 300 tokens|out of bounds"):
        weighted_nll(hidden, weight, bias, targets, weights)


@needs_compiler
def test_numbers_of_other_types_are_not_read_as_float32():
    native.set_up("True", torch.device("cpu"))
    (hidden, weight, bias), targets, weights = inputs(30, 1.0, torch.float32)
    loss = weighted_nll(hidden, weight, bias, targets, weights)
    assert torch.equal(weighted_nll(hidden, weight, bias, targets.int(), weights), loss)
    with pytest.raises(RuntimeError, match="dtype"):
        weighted_nll(hidden, weight, bias.double(), targets, weights)


@needs_compiler
def test_the_kernels_gradient_over_all_sequences_of_a_tiny_model():
    """V = 3, T = 3: all 27 sequences, each with its own weights, against autograd through the plain log-softmax in float64."""
    tokens = torch.tensor(list(itertools.product(range(3), repeat=3)))
    weights = torch.rand(27, 3, generator=torch.Generator().manual_seed(1)) - 0.5
    gradients = []
    for dtype in (torch.float64, torch.float32):
        model = Generator(3, 2, 4, end_token=2).initialise(torch.Generator().manual_seed(1), 1.0, 1.0, 0.3, 0.5).to(dtype)
        native.set_up("False" if dtype == torch.float64 else "True", torch.device("cpu"))
        if dtype == torch.float32:
            loss = model.weighted_nll(tokens, weights)
        else:
            counted = (tokens == 2).long().cumsum(dim=1) - (tokens == 2).long() == 0
            logits = model.output(model.lstm(model.embed(model.inputs(tokens)))[0])
            log_p = logits.log_softmax(dim=-1).gather(2, tokens[:, :, None])[:, :, 0]
            loss = -(log_p * weights * counted).sum()
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(gradients[0]) == 7
    for exact, tensor in zip(*gradients, strict=True):
        torch.testing.assert_close(tensor.double(), exact, rtol=1e-5, atol=1e-6)


@needs_compiler
def test_misuse_of_the_kernels_gradient_is_refused():
    native.set_up("True", torch.device("cpu"))
    (hidden, weight, bias), targets, weights = inputs(30, 1.0, torch.float32)
    loss = weighted_nll(hidden, weight, bias, targets, weights)
    (gradient,) = torch.autograd.grad(loss.square(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        gradient.sum().backward()
