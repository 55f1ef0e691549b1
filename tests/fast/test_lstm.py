"""The LSTM of training in compiled code: the values and gradients of nn.LSTM."""

import argparse
import ctypes
import math
import shutil

import pytest
import torch

from fast import native
from fast.kernel import Lstm, cell_weights
from fast.lstm import hidden_states
from generator import Generator
from running.flags import preset_settings
from train_state import make_state
from updates import mle_update, policy_update

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
SIZES = [(1, 1, 1, 1), (5, 7, 3, 15), (6, 4, 16, 16), (13, 20, 32, 50), (7, 3, 5, 17), (40, 2, 8, 65), (3, 5, 2, 130)]  # B, T, E, H


def make(batch, length, inputs, hidden_dim, scale=1.0):
    rng = torch.Generator().manual_seed(hidden_dim)
    shapes = ((4 * hidden_dim, inputs), (4 * hidden_dim, hidden_dim), (4 * hidden_dim,), (4 * hidden_dim,))
    weights = [torch.randn(shape, generator=rng) * scale / math.sqrt(hidden_dim) for shape in shapes]
    return torch.randn(batch, length, inputs, generator=rng), weights, torch.randn(batch, length, hidden_dim, generator=rng)


def compiled(embedded, weights, gradient):
    embedded, *weights = given = [x.detach().requires_grad_() for x in (embedded, *weights)]
    states = hidden_states(native.load()[0], embedded, weights)
    return [states.detach(), *torch.autograd.grad(states, given[:4], gradient)]


def exact(embedded, weights, gradient):
    embedded, *weights = given = [x.detach().double().requires_grad_() for x in (embedded, *weights)]
    lstm = torch.nn.LSTM(embedded.shape[2], weights[1].shape[1], batch_first=True, dtype=torch.float64)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    states = torch.func.functional_call(lstm, dict(zip(names, weights, strict=True)), embedded)[0]
    return [states.detach(), *torch.autograd.grad(states, given[:4], gradient.double())]


@pytest.mark.parametrize("scale", [0.3, 3.0])
@pytest.mark.parametrize("sizes", SIZES)
def test_states_and_gradients_are_those_of_float64(sizes, scale):
    given = make(*sizes, scale)
    for tensor, other in zip(compiled(*given), exact(*given), strict=True):
        torch.testing.assert_close(tensor.double(), other, rtol=1e-5, atol=1e-5 * (other.abs().max().item() + 1e-3))


def test_two_steps_by_hand():
    """B = E = H = 1, T = 2: the gates, the state, and the derivative of the last state for the first input."""
    x, u, w, b = [0.7, -1.1], [0.5, -0.3, 0.8, 0.2], [0.9, 0.4, -0.6, 1.3], [0.1, 1.0, -0.2, 0.3]  # gates i, f, g, o

    def sigmoid(value):
        return 1 / (1 + math.exp(-value))

    def last_state(first):
        h = c = 0.0
        for value in (first, x[1]):
            i, f, g, o = (u[k] * value + w[k] * h + b[k] for k in range(4))
            c = sigmoid(f) * c + sigmoid(i) * math.tanh(g)
            h = sigmoid(o) * math.tanh(c)
        return h

    embedded = torch.tensor(x).view(1, 2, 1).requires_grad_()
    weights = [torch.tensor(u)[:, None], torch.tensor(w)[:, None], torch.tensor(b), torch.zeros(4)]
    states = hidden_states(native.load()[0], embedded, weights)
    assert states[0, 1, 0].item() == pytest.approx(last_state(x[0]), rel=1e-6)
    (gradient,) = torch.autograd.grad(states[0, 1, 0], embedded)
    slope = (last_state(x[0] + 1e-5) - last_state(x[0] - 1e-5)) / 2e-5
    assert gradient[0, 0, 0].item() == pytest.approx(slope, rel=1e-4)


def test_a_state_depends_on_no_later_input():
    embedded, weights, _ = make(9, 6, 4, 18)
    kernel = native.load()[0]
    before = hidden_states(kernel, embedded, weights)
    embedded[:, 3:] += 1
    after = hidden_states(kernel, embedded, weights)
    assert torch.equal(before[:, :3], after[:, :3]) and (before[:, 3:] != after[:, 3:]).any(dim=2).all()


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("sizes", [(13, 20, 32, 50), (1, 3, 2, 5), (40, 2, 8, 65)])
def test_threads_change_no_number(sizes, threads, monkeypatch):
    monkeypatch.setattr("fast.kernel.PRODUCTS_OF_THREADS", 0)
    given = make(*sizes)
    alone = compiled(*given)
    torch.set_num_threads(threads)
    try:
        together = compiled(*given)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(alone[0], together[0])
    for one, other in zip(alone, together, strict=True):  # products of torch may be added up in another order
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sizes", SIZES)
def test_nothing_is_written_behind_the_memory_of_a_call(sizes, monkeypatch):
    monkeypatch.setattr("fast.kernel.PRODUCTS_OF_THREADS", 0)
    memory, asked, kernel = torch.full((1_000_000,), 7.0), [], native.load()[0]
    monkeypatch.setattr("fast.lstm.scratch", lambda name, shape, like: asked.append(shape[0]) or memory)
    torch.set_num_threads(3)
    try:
        compiled(*make(*sizes))
    finally:
        torch.set_num_threads(1)
    assert len(asked) == 1 and (memory[asked[0] :] == 7).all()
    batch, length, inputs, hidden_dim = sizes
    numbers = dict(read=1 + inputs + hidden_dim, gates=4 * hidden_dim, cells=hidden_dim, states=hidden_dim)
    buffers = {name: torch.full((batch * length * number + 100,), 7.0) for name, number in numbers.items()}
    buffers["read"][:-100] = 0.5
    given = dict(weights=cell_weights(kernel, make(*sizes)[1]).data_ptr(), **{name: x.data_ptr() for name, x in buffers.items()})
    kernel.lstm_forward(ctypes.byref(Lstm(**given, inputs=inputs, hidden=hidden_dim, sequences=batch, length=length)), 3)
    assert all((buffer[-100:] == 7).all() and (buffer[:-100] != 7).all() for buffer in buffers.values())


@pytest.mark.parametrize("needed", [(True, False), (False, True), (True, True)])
def test_either_bias_gets_the_gradient(needed):
    embedded, weights, gradient = make(3, 4, 2, 5)
    for bias, wanted in zip(weights[2:], needed, strict=True):
        bias.requires_grad_(wanted)
    hidden_states(native.load()[0], embedded, weights).backward(gradient)
    expected = exact(embedded, weights, gradient)[4]
    for bias, wanted in zip(weights[2:], needed, strict=True):
        assert (bias.grad is not None) == wanted
        if wanted:
            torch.testing.assert_close(bias.grad.double(), expected, rtol=1e-5, atol=1e-5)


def test_tensors_may_lie_in_memory_in_any_order():
    embedded, weights, gradient = make(6, 5, 7, 9)
    expected = compiled(embedded, weights, gradient)
    others = [
        embedded.transpose(0, 2).contiguous().transpose(0, 2),
        [w.t().contiguous().t() if w.dim() == 2 else w for w in weights],
    ]
    others.append(gradient.transpose(0, 1).contiguous().transpose(0, 1))
    assert not any(tensor.is_contiguous() for tensor in (others[0], others[1][0], others[2]))
    for one, other in zip(compiled(*others), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    expected = compiled(embedded, weights, torch.ones_like(gradient))
    found = compiled(embedded, weights, torch.ones(1, 1, 1).expand_as(gradient))  # what sum() gives
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("size", [1e4, 1e15])
def test_gates_far_out_of_range_saturate(size):
    embedded, weights, gradient = make(4, 3, 2, 5)
    given = (embedded.sign() * size, weights, gradient)
    for tensor, other in zip(compiled(*given), exact(*given), strict=True):
        assert tensor.isfinite().all()
        torch.testing.assert_close(tensor.double(), other, rtol=1e-5, atol=1e-5 * (other.abs().max().item() + 1e-3))


@pytest.mark.parametrize("where", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("gate", [0, 1, 2, 3])
def test_not_a_number_is_not_lost(gate, where):
    """A NaN state makes the loss NaN, by which the training stops."""
    embedded, weights, gradient = make(4, 3, 2, 5)
    given = (embedded, *weights)[where]
    (given if where == 0 else given[5 * gate : 5 * gate + 5]).view(-1)[1] = torch.nan
    states = compiled(embedded, weights, gradient)[0]
    assert torch.equal(states.isnan(), exact(embedded, weights, gradient)[0].isnan()) and states.isnan().any()


def test_misuse_is_refused():
    embedded, weights, _ = make(2, 3, 2, 4)
    weights[1].requires_grad_()
    states = hidden_states(native.load()[0], embedded, weights)
    with torch.no_grad():
        weights[1].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        states.sum().backward()
    states = hidden_states(native.load()[0], embedded, weights)
    (gradient,) = torch.autograd.grad(states.square().sum(), weights[1], create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        gradient.sum().backward()


def generator():
    return Generator(20, 6, 11).initialise(torch.Generator().manual_seed(2), 1.0, 1.0, 0.3, 0.5)


def test_only_training_takes_the_kernels_lstm(monkeypatch):
    """Without gradients torch's needs less memory, and evaluations keep their numbers."""
    tokens, model = torch.randint(20, (8, 7), generator=torch.Generator().manual_seed(0)), generator()
    native.set_up("False", CPU)
    with torch.no_grad():
        plain = model.hidden(tokens)
    native.set_up("True", CPU)
    trained = model.hidden(tokens)
    monkeypatch.setattr("generator.hidden_states", None)
    with torch.no_grad():
        assert torch.equal(model.hidden(tokens), plain)
    assert trained.requires_grad and not torch.equal(trained, plain)  # different code has computed them
    torch.testing.assert_close(trained.detach(), plain, rtol=1e-5, atol=1e-6)
    assert generator().double().hidden(tokens).dtype == torch.float64  # the kernel is for float32


@pytest.mark.parametrize("masked", [False, True])
def test_the_generators_gradients_are_those_of_torch(masked):
    tokens, gradients = torch.randint(20, (16, 8), generator=torch.Generator().manual_seed(0)), []
    weights = torch.rand(16, 8, generator=torch.Generator().manual_seed(1)) - 0.2
    for setting in ("False", "True"):
        native.set_up(setting, CPU)
        model = generator()
        masks = model.dropout_masks(16, 8, (0.2, 0.4), torch.Generator().manual_seed(3)) if masked else None
        loss = model.weighted_nll(tokens, weights, masks=masks)
        loss.backward()
        assert model.lstm.bias_hh_l0.grad is None
        gradients.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for one, other in zip(*gradients, strict=True):
        assert one.stride() == other.stride()
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["mle", "policy", "kl"])
def test_updates_follow_those_of_torch(kind):
    args = argparse.Namespace(**preset_settings("smoke") | dict(kl_weight=0.5 if kind == "kl" else 0.0))
    rng, losses = torch.Generator().manual_seed(4), []
    batches = [torch.randint(args.vocab_size, (args.batch_size, args.seq_len), generator=rng) for _ in range(30)]
    rewards = torch.rand(args.batch_size, args.seq_len, generator=rng)
    for setting in ("False", "True"):
        native.set_up(setting, CPU)
        state = make_state(args, CPU)
        update = mle_update if kind == "mle" else policy_update
        given = () if kind == "mle" else (rewards,)
        losses.append(torch.stack([torch.stack(update(state, args, batch, *given)) for batch in batches]))
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)
    assert not torch.equal(*losses)
