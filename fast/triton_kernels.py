"""What computes in Triton on a GPU, and its checks when it is loaded. It needs Triton, which comes with torch for CUDA."""

from __future__ import annotations

import torch
import triton

from fast.kernel_checks import check_convolutions, compare_draws
from fast.triton_convolution import largest_responses
from fast.triton_decoder import MOST_HIDDEN, MOST_TOKENS, TritonLayer, lstm_step
from fast.triton_embedding import embed

__all__ = ["MOST_HIDDEN", "MOST_TOKENS", "TritonLayer", "check", "embed", "largest_responses", "lstm_step", "words"]


CHECKED_ROWS = 250  # with draws
TF32_CAPABILITY = (8, 0)  # compute capability; without tensor cores for TF32 the kernels would be far slower than torch


def words() -> str:
    """What this is, for the logs."""
    return f"Triton {triton.__version__}"


def check(device: torch.device) -> None:
    """Hold everything to torch in float64; raises RuntimeError where it differs by more than rounding, or what Triton raises."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < TF32_CAPABILITY:
        raise RuntimeError(f"{torch.cuda.get_device_name(device)} has no tensor cores for TF32")
    check_convolutions(largest_responses, 16, device, "Triton")
    check_draws(device)
    check_step(device)
    check_embedding(device)


def check_draws(device: torch.device) -> None:
    """Hold draws to the float64 softmax."""
    rng = torch.Generator().manual_seed(0)
    for vocab_size, hidden_dim, scale in ((5000, 50, 1.0), (300, 5, 60.0)):
        weight, bias = torch.randn(vocab_size, hidden_dim, generator=rng) * scale, torch.randn(vocab_size, generator=rng)
        rows = torch.rand(CHECKED_ROWS, hidden_dim, generator=rng) * 2 - 1
        uniforms = torch.rand(CHECKED_ROWS, 4, dtype=torch.float64, generator=rng)
        rows, weight, bias, uniforms = (tensor.to(device) for tensor in (rows, weight, bias, uniforms))
        drawn = TritonLayer(weight, bias, 1.0, torch.arange(vocab_size, device=device)).draw(rows, uniforms)
        compare_draws(drawn, rows, weight, bias, uniforms, "Triton")


def check_step(device: torch.device) -> None:
    """Hold an LSTM step to float64."""
    rng, num, hidden_dim = torch.Generator().manual_seed(0), 100, 50
    table, recurrent = torch.randn(30, 4 * hidden_dim, generator=rng), torch.randn(hidden_dim, 4 * hidden_dim, generator=rng)
    padded, cell = torch.rand(num, hidden_dim + 2, generator=rng), torch.randn(num, hidden_dim, generator=rng)
    table, recurrent, padded, cell = (tensor.to(device) for tensor in (table, recurrent, padded, cell))
    tokens = torch.arange(num, device=device) % 30
    gates = table[tokens].double() + padded[:, :hidden_dim].double() @ recurrent.double()
    i, f, o, g = gates.chunk(4, dim=1)
    new = f.sigmoid() * cell.double() + i.sigmoid() * g.tanh()
    expected = torch.cat([o.sigmoid() * new.tanh(), padded[:, hidden_dim:].double(), new], dim=1)
    lstm_step(tokens, padded, cell, table, recurrent)
    if not torch.allclose(torch.cat([padded, cell], dim=1).double(), expected, atol=1e-5):
        raise RuntimeError("LSTM steps of Triton are wrong")


def check_embedding(device: torch.device) -> None:
    """Hold an embedding and its gradient to torch in float64."""
    rng = torch.Generator().manual_seed(0)
    weight, tokens = torch.randn(40, 16, generator=rng), torch.randint(30, (6, 50), generator=rng)
    gradient, results = torch.randn(6, 50, 16, generator=rng), []
    for dtype in (torch.float32, torch.float64):
        own = weight.to(device, dtype).requires_grad_()
        with torch.enable_grad():
            look_up = embed if dtype == torch.float32 else torch.nn.functional.embedding
            rows = look_up(tokens.to(device), own)
        results.append([rows.detach(), *torch.autograd.grad(rows, own, gradient.to(device, dtype))])
    if not all(torch.allclose(fast.double(), exact, atol=1e-4) for fast, exact in zip(*results, strict=True)):
        raise RuntimeError("embeddings of Triton are wrong")
