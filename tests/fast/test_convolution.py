"""D's convolutions in compiled code: the values and gradients of torch's path."""

import argparse
import ctypes
import functools
import itertools
import shutil

import pytest
import torch
from helpers.convolutions import exact, values_and_gradients

from discriminator import Discriminator
from fast import convolution, kernel_checks, native
from fast.convolution import largest_responses
from running.flags import preset_settings
from train_state import make_state
from updates import discriminator_update

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


def make(batch, length, emb_dim, kinds, seed=0):
    rng = torch.Generator().manual_seed(seed)
    embedded = torch.randn(batch, length, emb_dim, generator=rng)
    return embedded, [
        (width, torch.randn(number, emb_dim * width, generator=rng), torch.randn(number, generator=rng)) for width, number in kinds
    ]


def compiled(embedded, filters):
    return largest_responses(native.load()[0], embedded, filters)


SIZES = [
    (1, 1, 1, [(1, 1)]),
    (3, 5, 7, [(1, 2), (5, 3)]),  # as wide as the sequence
    (9, 20, 32, [(3, 50), (5, 33), (20, 31), (1, 64), (2, 1)]),
    (65, 7, 3, [(7, 130), (2, 16)]),
    (4, 300, 5, [(299, 3), (3, 40)]),
]


@pytest.mark.parametrize(("batch", "length", "emb_dim", "kinds"), SIZES)
def test_values_and_gradients_are_those_of_float64(batch, length, emb_dim, kinds):
    embedded, filters = make(batch, length, emb_dim, kinds)
    gradient = torch.randn(batch, sum(number for _, number in kinds), generator=torch.Generator().manual_seed(1))
    found = values_and_gradients(compiled, embedded, filters, gradient, torch.float32)
    expected = values_and_gradients(exact, embedded, filters, gradient, torch.float64)
    for tensor, other in zip(found, expected, strict=True):
        torch.testing.assert_close(tensor.double(), other, rtol=1e-5, atol=1e-5 * (1 + other.abs().max().item()))


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_change_no_number(threads, monkeypatch):
    monkeypatch.setattr("fast.kernel.PRODUCTS_OF_THREADS", 0)
    embedded, filters = make(*SIZES[2])
    gradient = torch.randn(9, 179, generator=torch.Generator().manual_seed(1))
    alone = values_and_gradients(compiled, embedded, filters, gradient, torch.float32)
    torch.set_num_threads(threads)
    try:
        together = values_and_gradients(compiled, embedded, filters, gradient, torch.float32)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_small_layers_stay_on_one_thread():
    kernel, calls = native.load()[0], []
    noting = kernel._replace(convolve=lambda convolutions, shares: calls.append(shares) or kernel.convolve(convolutions, shares))
    torch.set_num_threads(4)
    try:
        for sizes in ((8, 20, 32, [(5, 50)]), (32, 20, 32, [(5, 100)]), (64, 20, 64, [(10, 200)])):  # 1, 8 and 90 million products
            largest_responses(noting, *make(*sizes))
    finally:
        torch.set_num_threads(1)
    assert calls == [1, 4, 4]


def test_all_sequences_of_a_tiny_model_by_hand():
    """V = 3, T = 3, E = 2: each window's response, the largest of them, and the gradients that belong to it."""
    embedding = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.5]])
    weights, biases = torch.tensor([[1.0, -2.0, 0.5, 3.0], [-1.0, -1.0, -1.0, -1.0]]), torch.tensor([0.25, 0.5])
    for tokens in itertools.product(range(3), repeat=3):
        embedded = embedding[list(tokens)][None].requires_grad_()
        given = [weights.clone().requires_grad_(), biases.clone().requires_grad_()]
        features = compiled(embedded, [(2, *given)])
        of_inputs, of_weights, of_biases = torch.autograd.grad(features, [embedded, *given], torch.tensor([[1.0, 10.0]]))
        inputs, filters, shifts = torch.zeros(1, 3, 2), torch.zeros(2, 4), torch.zeros(2)
        for f, scale in ((0, 1.0), (1, 10.0)):
            best, place = -torch.inf, 0
            for p in range(2):
                response = 0.0
                for j in range(2):
                    for e in range(2):
                        response += embedding[tokens[p + j], e].item() * weights[f, 2 * e + j].item()
                if response > best:
                    best, place = response, p
            assert features[0, f].item() == max(0.0, best + biases[f].item())
            if best + biases[f].item() <= 0:
                continue
            shifts[f] = scale
            for j in range(2):
                for e in range(2):
                    filters[f, 2 * e + j] = scale * embedding[tokens[place + j], e]
                    inputs[0, place + j, e] += scale * weights[f, 2 * e + j]
        assert torch.equal(of_inputs, inputs) and torch.equal(of_weights, filters) and torch.equal(of_biases, shifts)


def discriminator(dtype=torch.float32):
    model = Discriminator(20, 6, [(1, 3), (2, 4), (2, 5), (4, 6)], dropout_rng=torch.Generator().manual_seed(3))
    return model.initialise(torch.Generator().manual_seed(2)).to(dtype)


@pytest.mark.parametrize("repeated", [False, True])
def test_the_discriminators_gradients_are_those_of_torch(repeated):
    """Repeated tokens give equal responses: torch divides their gradient, and the embedding's is the same."""
    tokens = torch.randint(20, (16, 8), generator=torch.Generator().manual_seed(0)) % (2 if repeated else 20)
    gradients = []
    for setting in ("False", "True"):
        native.set_up(setting, CPU)
        model = discriminator().train()
        torch.nn.functional.cross_entropy(model(tokens), tokens[:, 0] % 2).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_updates_follow_those_of_torch():
    args = argparse.Namespace(**preset_settings("smoke"))
    losses, rng = [], torch.Generator().manual_seed(4)
    batches = [
        (
            torch.randint(args.vocab_size, (args.batch_size, args.seq_len), generator=rng),
            torch.randint(2, (args.batch_size,), generator=rng),
        )
        for _ in range(40)
    ]
    for setting in ("False", "True"):
        native.set_up(setting, CPU)
        state = make_state(args, CPU)
        state.discriminator.train()
        losses.append(torch.stack([discriminator_update(state, args, *batch)[0] for batch in batches]))
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
    assert not torch.equal(*losses)  # different code has computed them


@pytest.mark.parametrize("case", ["no kernel", "float64", "bf16"])
def test_torch_convolves_where_the_kernel_can_not(case, monkeypatch):
    native.set_up("False" if case == "no kernel" else "True", CPU)
    monkeypatch.setattr("discriminator.largest_responses", None)
    model = discriminator(torch.float64 if case == "float64" else torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "bf16"):
        model(torch.zeros(2, 8, dtype=torch.int64)).sum().backward()
    assert model.embed.weight.grad.isfinite().all()


@pytest.mark.parametrize("where", ["embedded", "weights", "biases"])
def test_not_a_number_is_not_lost(where):
    embedded, [(width, weights, biases)] = make(3, 6, 4, [(2, 5)])
    broken = {"embedded": embedded, "weights": weights, "biases": biases}[where]
    broken.view(-1)[1] = torch.nan
    features = compiled(embedded, [(width, weights, biases)])
    expected = exact(embedded, [(width, weights, biases)])
    assert torch.equal(features.isnan(), expected.isnan()) and features.isnan().any()
    gradient = torch.ones_like(features)
    found = values_and_gradients(compiled, embedded, [(width, weights, biases)], gradient, torch.float32)
    assert torch.equal(found[3], (features.isnan() | (features > 0)).sum(dim=0).float())  # the biases' gradients


@pytest.mark.parametrize("name", ["convolve", "convolution_gradients"])
def test_a_kernel_that_convolves_wrongly_is_refused(name):
    kernel = native.load()[0]

    def wrong(convolutions, shares):
        getattr(kernel, name)(convolutions, shares)
        kind = convolutions._obj.kinds[convolutions._obj.number - 1]
        changed = kind.features if name == "convolve" else kind.bias_gradient
        (ctypes.c_float * 1).from_address(changed)[0] += 0.01

    with pytest.raises(RuntimeError, match="convolutions of the compiled kernel are wrong"):
        kernel_checks.check(kernel._replace(**{name: wrong}))


def test_tensors_may_lie_in_memory_in_any_order():
    embedded, [(width, weights, biases)] = make(4, 6, 3, [(2, 5)])
    gradient = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).t()
    others = embedded.transpose(1, 2).contiguous().transpose(1, 2), weights.t().contiguous().t(), biases.repeat_interleave(2)[::2]
    assert not any(tensor.is_contiguous() for tensor in (gradient, *others))
    expected = values_and_gradients(compiled, embedded, [(width, weights, biases)], gradient.contiguous(), torch.float32)
    found = values_and_gradients(compiled, others[0], [(width, *others[1:])], gradient, torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    expanded = torch.ones(1, 1).expand(4, 5)  # what sum() gives
    expected = values_and_gradients(compiled, embedded, [(width, weights, biases)], torch.ones(4, 5), torch.float32)
    found = values_and_gradients(compiled, embedded, [(width, weights, biases)], expanded, torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("sizes", SIZES)
def test_no_share_writes_behind_its_scratch_memory(sizes, monkeypatch):
    """The last share's ends with what was asked for; all are of the same size."""
    monkeypatch.setattr("fast.kernel.PRODUCTS_OF_THREADS", 0)
    asked, memory = [], torch.full((1_000_000,), 7.0)
    monkeypatch.setattr(convolution, "scratch", lambda name, shape, like: asked.append(shape[0]) or memory)
    kernel, calls = native.load()[0], []

    def checked(name, convolutions, shares):
        calls.append(convolutions._obj.apart * shares)
        getattr(kernel, name)(convolutions, shares)
        assert (memory[asked[-1] :] == 7).all()

    changed = {name: functools.partial(checked, name) for name in ("convolve", "convolution_gradients")}
    embedded, filters = make(*sizes)
    torch.set_num_threads(3)
    try:
        largest_responses(kernel._replace(**changed), embedded.requires_grad_(), filters).sum().backward()
    finally:
        torch.set_num_threads(1)
    assert calls == asked and len(calls) == 2


def test_misuse_is_refused():
    embedded, filters = make(2, 4, 3, [(2, 5)])
    weights = filters[0][1].requires_grad_()
    features = compiled(embedded, filters)
    with torch.no_grad():
        weights.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        features.sum().backward()
    (gradient,) = torch.autograd.grad(compiled(embedded, filters).square().sum(), weights, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        gradient.sum().backward()
    with pytest.raises(RuntimeError, match="filters of width 2 for sequences of 1 tokens"):
        compiled(embedded[:, :1], filters)
