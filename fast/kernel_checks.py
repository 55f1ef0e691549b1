"""Checks of the compiled library when it is loaded: a compiler may be wrong, and a file in a cache broken."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fast.convolution import largest_responses
from fast.kernel import Kernel, NativeLayer, NativeLstm
from fast.lstm import hidden_states

KERNEL = "the compiled kernel"


def check(kernel: Kernel) -> None:
    """All checks; raises RuntimeError where one fails."""
    check_draws(kernel)
    check_sequences(kernel)
    check_convolutions(partial(largest_responses, kernel), 5, torch.device("cpu"))
    check_cross_entropy(kernel)
    check_lstm(kernel)


def check_draws(kernel: Kernel) -> None:
    """Hold a few thousand draws and sums to the float64 softmax; raises RuntimeError where they differ by more than rounding."""
    rng = torch.Generator().manual_seed(0)
    for vocab_size, hidden_dim, scale in ((3, 2, 1.0), (89, 32, 0.3), (1000, 9, 1.0), (300, 5, 60.0)):
        weight, bias = torch.randn(vocab_size, hidden_dim, generator=rng) * scale, torch.randn(vocab_size, generator=rng)
        rows = torch.rand(250, hidden_dim, generator=rng) * 2 - 1
        uniforms = torch.rand(250, 4, dtype=torch.float64, generator=rng)
        layer = NativeLayer(kernel, weight, bias)
        compare_draws(layer.draw(rows, uniforms), rows, weight, bias, uniforms)
        logits = rows.double() @ weight.double().t() + bias.double()
        if not torch.allclose(layer.log_sums(rows), logits.logsumexp(dim=1), rtol=1e-6, atol=1e-5):
            raise RuntimeError("sums of the compiled kernel are wrong")


def compare_draws(drawn: Tensor, rows: Tensor, weight: Tensor, bias: Tensor, uniforms: Tensor, maker: str = KERNEL) -> None:
    """Raises RuntimeError where draws, (M, K), are not those of the float64 softmax, a few at the boundaries aside."""
    totals = (rows.double() @ weight.double().t() + bias.double()).softmax(dim=1).cumsum(dim=1)
    exact = torch.searchsorted(totals, uniforms * totals[:, -1:], right=True)
    if (differ := (drawn != exact).sum().item()) > 5:
        raise RuntimeError(f"{differ} of {drawn.numel()} draws of {maker} are wrong")


def check_sequences(kernel: Kernel) -> None:
    """Hold drawn sequences to an LSTM in float64 and `draw`; raises RuntimeError where they differ by more than rounding."""
    rng, vocab_size, hidden_dim, num = torch.Generator().manual_seed(0), 50, 20, 100
    weights = [torch.randn(4 * hidden_dim, *size, generator=rng) for size in ((5,), (hidden_dim,), (), ())]  # E = 5
    output, embedding = torch.randn(vocab_size, hidden_dim, generator=rng), torch.randn(vocab_size, 5, generator=rng)
    layer, last = NativeLayer(kernel, output, torch.zeros(vocab_size)), torch.arange(num) % vocab_size
    tokens, uniforms = torch.empty(num, 4).long(), torch.rand(4, num, generator=rng).double()
    states, h, c = torch.zeros(2, num, hidden_dim), *torch.zeros(2, num, hidden_dim).double()
    NativeLstm(layer, embedding, weights, -1).finish(tokens, 0, last, *states, uniforms)
    wrong = 0
    for drawn, numbers in zip(tokens.t(), uniforms, strict=True):
        inputs = torch.cat([embedding[last], h, torch.ones(num, 2)], dim=1)  # float64, as h is
        matrix = torch.cat([weights[0], weights[1], weights[2][:, None], weights[3][:, None]], dim=1).double()
        i, f, g, o = (inputs @ matrix.t()).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        wrong += (layer.draw(h.float(), numbers) != drawn).sum().item()
        last = drawn
    if wrong > 2 or not torch.allclose(states.double(), torch.stack([h, c]), atol=1e-4):
        raise RuntimeError(f"sequences of the compiled kernel are wrong ({wrong} of {tokens.numel()} draws)")


def check_convolutions(convolve: Callable[[Tensor, list], Tensor], emb_dim: int, device: torch.device, maker: str = KERNEL) -> None:
    """Hold convolutions and their gradients to torch in float64; raises RuntimeError where they differ by more than rounding."""
    rng, sizes = torch.Generator().manual_seed(0), ((1, 40), (4, 70))
    embedded = torch.randn(7, 9, emb_dim, generator=rng)  # (B, T, E)
    filters = [(width, torch.randn(f, emb_dim * width, generator=rng), torch.randn(f, generator=rng)) for width, f in sizes]
    given = [tensor.to(device) for tensor in (embedded, *(tensor for _, *tensors in filters for tensor in tensors))]
    gradient = torch.randn(7, 110, generator=rng).to(device)
    results = []
    for dtype in (torch.float32, torch.float64):
        inputs = [tensor.to(dtype).requires_grad_() for tensor in given]
        kinds = [(width, *inputs[1 + 2 * i : 3 + 2 * i]) for i, (width, *_) in enumerate(filters)]
        with torch.enable_grad():
            if dtype == torch.float32:
                features = convolve(inputs[0], kinds)
            else:
                parts = [(inputs[0].unfold(1, w, 1).flatten(2) @ weight.t() + bias).amax(dim=1) for w, weight, bias in kinds]
                features = torch.cat(parts, dim=1).relu()
        results.append([features.detach(), *torch.autograd.grad(features, inputs, gradient.to(dtype))])
    if not all(torch.allclose(fast.double(), exact, atol=1e-4) for fast, exact in zip(*results, strict=True)):
        raise RuntimeError(f"convolutions of {maker} are wrong")


def check_cross_entropy(kernel: Kernel) -> None:
    """Hold losses and gradients of logits to torch in float64; raises RuntimeError where they differ by more than rounding."""
    rng = torch.Generator().manual_seed(0)
    for vocab_size, hidden_dim, scale in ((3, 2, 1.0), (1000, 9, 1.0), (300, 5, 60.0)):
        weight, bias = torch.randn(vocab_size, hidden_dim, generator=rng) * scale, torch.randn(vocab_size, generator=rng)
        rows, targets = torch.rand(250, hidden_dim, generator=rng) * 2 - 1, torch.randint(vocab_size, (250,), generator=rng)
        losses, factors = torch.empty(250, dtype=torch.float64), torch.empty(250)
        gradients = NativeLayer(kernel, weight, bias).cross_entropy(rows, targets, losses, factors) * factors[:, None]
        logits = rows.double() @ weight.double().t() + bias.double()
        exact = logits.logsumexp(dim=1) - logits.gather(1, targets[:, None])[:, 0]
        exact_gradients = logits.softmax(dim=1) - torch.nn.functional.one_hot(targets, vocab_size)
        if not torch.allclose(losses, exact, atol=1e-4) or not torch.allclose(gradients.double(), exact_gradients, atol=1e-4):
            raise RuntimeError("losses of the compiled kernel are wrong")


def check_lstm(kernel: Kernel) -> None:
    """Hold hidden states and their gradients to torch in float64; raises RuntimeError where they differ by more than rounding."""
    rng, results = torch.Generator().manual_seed(0), []
    given = [torch.randn(7, 4, 5, generator=rng)]  # (B, T, E)
    given += [torch.randn(4 * 19, *size, generator=rng) for size in ((5,), (19,), (), ())]  # H = 19
    gradient = torch.randn(7, 4, 19, generator=rng)
    for dtype in (torch.float32, torch.float64):
        embedded, *weights = inputs = [tensor.to(dtype).requires_grad_() for tensor in given]
        with torch.enable_grad():
            if dtype == torch.float32:
                states = hidden_states(kernel, embedded, weights)
            else:
                state, steps = (embedded.new_zeros(7, 19),) * 2, []
                for step in embedded.unbind(dim=1):
                    state = torch.lstm_cell(step, state, *weights)
                    steps.append(state[0])
                states = torch.stack(steps, dim=1)
        results.append([states.detach(), *torch.autograd.grad(states, inputs[:4], gradient.to(dtype))])
    if not all(torch.allclose(fast.double(), exact, atol=1e-4) for fast, exact in zip(*results, strict=True)):
        raise RuntimeError("hidden states of the compiled kernel are wrong")
