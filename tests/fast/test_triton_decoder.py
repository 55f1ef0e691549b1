"""LSTM steps and draws in Triton: those of torch's path. On a CPU by Triton's interpreter, at tiny sizes."""

import os
import subprocess
import sys

import pytest
import torch
from helpers.cli import ROOT
from helpers.reference import tiny_generator

from fast import categorical
from fast.categorical import SoftmaxSampler, token_order
from fast.completions import completions
from fast.decoder import Decoder
from support.random_streams import stream

pytest.importorskip("triton", reason="needs Triton")

from helpers.triton_interpreter import interpreter_works

from fast import triton_kernels

if not torch.cuda.is_available() and not interpreter_works():
    pytest.skip("needs a version of Triton whose interpreter knows this NumPy", allow_module_level=True)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def test_a_step_changes_a_part_of_a_larger_state_alone():
    rng = torch.Generator().manual_seed(0)
    table, recurrent = torch.randn(5, 8, generator=rng).to(DEVICE), torch.randn(2, 8, generator=rng).to(DEVICE)
    whole, tokens = torch.rand(3, 9, generator=rng).to(DEVICE), torch.tensor([4, 0, 2]).to(DEVICE)
    before, padded, cell = whole.clone(), whole[:, :4].contiguous(), whole[:, 5:7].contiguous()
    triton_kernels.lstm_step(tokens, padded, cell, table, recurrent)
    triton_kernels.lstm_step(tokens, whole[:, :4], whole[:, 5:7], table, recurrent)
    assert torch.equal(whole, torch.cat([padded, before[:, 4:5], cell, before[:, 7:]], dim=1))
    assert not torch.equal(whole, before)


def test_the_factor_just_below_one_is_not_rounded_to_one():
    """In compiled code a plain number becomes a float32, which the interpreter does not do."""
    code = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from fast.triton_decoder import _choose as kernel
types = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(("GROUPS", "COLUMNS", "HIDDEN"), "constexpr")
types |= dict.fromkeys(("rows", "weights", "bias", "largest", "sums"), "*fp32") | dict(order="*i64", drawn="*i64", uniforms="*fp64")
sizes = {(kernel.arg_names.index(name),): 64 for name in ("GROUPS", "COLUMNS", "HIDDEN")}
print(triton.compile(ASTSource(kernel, types, sizes), target=GPUTarget("cuda", 90, 32)).asm["ttir"])
"""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "constant 0.999999999999999" in done.stdout


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize(("vocab_size", "hidden_dim", "num"), [(1, 1, 3), (63, 5, 70), (64, 16, 5), (65, 17, 5), (700, 64, 30)])
def test_draws_are_those_of_torch(vocab_size, hidden_dim, num, scale, use):
    rng = torch.Generator().manual_seed(vocab_size)
    weight, bias = torch.randn(vocab_size, hidden_dim, generator=rng) * scale, torch.randn(vocab_size, generator=rng)
    hidden, uniforms = torch.rand(num, hidden_dim, generator=rng) * 2 - 1, torch.rand(num, 2, dtype=torch.float64, generator=rng)
    weight, bias, hidden, uniforms = (tensor.to(DEVICE) for tensor in (weight, bias, hidden, uniforms))
    drawn = []
    for module in (None, triton_kernels):
        use(module)
        drawn.append(SoftmaxSampler(weight, bias, 0.7).draw(hidden, uniforms))
    assert (drawn[0] != drawn[1]).sum() <= (scale > 1)  # rounding at the boundary between two tokens grows with the logits


def test_a_token_of_weight_zero_is_never_drawn():
    bias = torch.full((130,), -2000.0)
    bias[[3, 70, 129]] = 0  # first and last weights of groups whose other weights are 0
    bias[:3] = -torch.inf
    uniforms = torch.cat([torch.zeros(1), torch.linspace(0, 1 - 2.0**-53, 90, dtype=torch.float64)])[None].double()
    layer = triton_kernels.TritonLayer(torch.zeros(130, 2).to(DEVICE), bias.to(DEVICE), 1.0, torch.arange(130).to(DEVICE))
    tokens = layer.draw(torch.zeros(1, 4).to(DEVICE), uniforms.to(DEVICE))
    assert torch.bincount(tokens[0].cpu(), minlength=130)[[3, 70, 129]].tolist() == [31, 30, 30]


def test_a_group_of_tokens_that_can_not_be_drawn_leaves_the_others_alone():
    bias = torch.zeros(130)
    bias[:64] = -torch.inf
    layer = triton_kernels.TritonLayer(torch.zeros(130, 2).to(DEVICE), bias.to(DEVICE), 1.0, torch.arange(130).to(DEVICE))
    grid = torch.linspace(0, 1 - 2.0**-53, 67, dtype=torch.float64)[None]
    assert layer.draw(torch.zeros(1, 4).to(DEVICE), grid.to(DEVICE)).unique().tolist() == list(range(64, 130))


def test_weights_that_are_nan_still_draw_tokens_of_the_vocabulary():
    layer = triton_kernels.TritonLayer(
        torch.full((70, 2), torch.nan).to(DEVICE), torch.zeros(70).to(DEVICE), 1.0, torch.arange(70).to(DEVICE)
    )
    tokens = layer.draw(torch.ones(5, 4).to(DEVICE), torch.rand(5, dtype=torch.float64).to(DEVICE))
    assert tokens.min() >= 0 and tokens.max() < 70


def test_the_order_of_the_tokens_is_that_of_torchs_blocks(use):
    """So that a seed gives the same tokens whatever draws."""
    use(None)
    for vocab_size in (1, 2, 5, 12, 50):
        grid = torch.linspace(0, 1 - 2.0**-53, 2000, dtype=torch.float64)[None].to(DEVICE)
        drawn = SoftmaxSampler(torch.zeros(vocab_size, 1).to(DEVICE), torch.zeros(vocab_size).to(DEVICE)).draw(
            torch.zeros(1, 1).to(DEVICE), grid
        )
        assert drawn[0].unique_consecutive().tolist() == token_order(vocab_size, DEVICE).tolist()


@pytest.mark.parametrize("hidden_dim", [1, 16, 50])
def test_a_step_is_that_of_the_generator(hidden_dim, use):
    model = tiny_generator(vocab_size=23, hidden_dim=hidden_dim).to(DEVICE)
    use(triton_kernels)
    fast = Decoder(model, 1)
    states, state = fast.zero_states(40), model.initial_state(40)
    for seed in range(3):
        tokens = torch.randint(23, (40, 2), generator=torch.Generator().manual_seed(seed)).to(DEVICE)[:, 1]  # every second number
        fast.advance(tokens, states)
        with torch.no_grad():
            state = model.advance(tokens, state)
        torch.testing.assert_close(states.padded[:, :hidden_dim], state[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(states.cell, state[1], rtol=1e-5, atol=1e-6)
        assert torch.equal(states.padded[:, hidden_dim:].cpu(), torch.tensor([[1.0, 0.0]]).expand(40, 2))


@pytest.mark.parametrize("end_token", [None, 0])
@pytest.mark.parametrize("hidden_dim", [6, 70])  # the second one is too large for Triton
def test_sequences_and_completions_are_those_of_torch(end_token, hidden_dim, use, monkeypatch):
    model = tiny_generator(vocab_size=23, hidden_dim=hidden_dim).to(DEVICE)
    model.end_token = end_token
    results = []
    for module in (None, triton_kernels):
        use(module)
        tokens = model.sample(4, 4, stream(1, "a"), temperature=1.3)
        primed = model.sample(2, 4, stream(1, "b"), prefix=tokens[0, :3].cpu())
        whole = completions(model, tokens, 2, stream(1, "c"))
        with monkeypatch.context() as few:  # rows at a time
            few.setitem(categorical.DRAW_ELEMENTS, DEVICE.type, 5)
            again = completions(model, tokens, 2, stream(1, "c"))
        assert torch.equal(whole, again)
        results.append((tokens, primed, whole))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
