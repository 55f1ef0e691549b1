"""The functions of the compiled library: what they are given, which threads they use, and that wrong ones are refused."""

import ctypes
import platform
import shutil
import subprocess
import sys

import pytest
import torch
from helpers.cli import ROOT

from fast import kernel_checks, native
from fast.kernel import PANEL, NativeLayer, kernel_of, torchs_team

COMPILER = shutil.which("cc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A compiled library that no other test has loaded."""
    path = tmp_path_factory.mktemp("kernel") / "draw.so"
    subprocess.run([COMPILER, *native.FLAGS, native.SOURCES[0], "-o", path, "-lm"], check=True)
    return path


def always_zero(layer, rows, stride, count, uniforms, draws, tokens, log_sums, space):
    if tokens:
        ctypes.memset(tokens, 0, 8 * count * draws)


def test_a_kernel_that_draws_wrongly_is_refused():
    with pytest.raises(RuntimeError, match="of 1000 draws of the compiled kernel are wrong"):
        kernel_checks.check(native.load()[0]._replace(draw=always_zero))


def test_a_kernel_whose_sums_are_wrong_is_refused():
    kernel = native.load()[0]

    def doubled(*args):
        kernel.draw(*args)
        if args[-2]:
            sums = (ctypes.c_double * args[3]).from_address(args[-2])
            sums[-1] += 1e-3

    with pytest.raises(RuntimeError, match="sums of the compiled kernel are wrong"):
        kernel_checks.check(kernel._replace(draw=doubled))


@pytest.mark.parametrize("argument", [2, 4, 9], ids=["h", "cells", "last"])
def test_a_kernel_whose_lstm_is_wrong_is_refused(argument):
    """It reads other numbers than the given ones."""
    kernel, others = native.load()[0], torch.ones(100, 20, dtype=torch.int64 if argument == 9 else torch.float32)

    def changed(*args):
        kernel.finish(*args[:argument], others.data_ptr(), *args[argument + 1 :])

    with pytest.raises(RuntimeError, match="sequences of the compiled kernel are wrong"):
        kernel_checks.check(kernel._replace(finish=changed))


@pytest.mark.parametrize(
    ("name", "field", "kind", "what"),
    [
        ("cross_entropy", "losses", ctypes.c_double, "losses"),
        ("cross_entropy", "gradients", ctypes.c_float, "losses"),
        ("cross_entropy", "factors", ctypes.c_float, "losses"),
        ("lstm_forward", "states", ctypes.c_float, "hidden states"),
        ("lstm_forward", "gates", ctypes.c_float, "hidden states"),
        ("lstm_forward", "read", ctypes.c_float, "hidden states"),
        ("lstm_backward", "gate_gradients", ctypes.c_float, "hidden states"),
    ],
)
def test_a_kernel_that_trains_wrongly_is_refused(name, field, kind, what):
    kernel = native.load()[0]

    def wrong(given, shares):
        getattr(kernel, name)(given, shares)
        (kind * 1).from_address(getattr(given._obj, field))[0] += 0.1

    with pytest.raises(RuntimeError, match=f"{what} of the compiled kernel are wrong"):
        kernel_checks.check(kernel._replace(**{name: wrong}))


@pytest.mark.parametrize("there", [True, False])
def test_shares_are_done_by_torchs_threads_or_by_one(there, library, monkeypatch):
    """Where the OpenMP library lacks the function that starts them, nothing but the time changes."""
    calls = []
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    def team(work, given, threads, flags):
        calls.append((threads, flags))
        for _ in range(threads):
            function(work)(given)

    monkeypatch.setattr("fast.kernel.torchs_team", lambda: ctypes.cast(team, ctypes.c_void_p).value if there else None)
    monkeypatch.setattr("fast.kernel.PRODUCTS_OF_THREADS", 0)
    torch.set_num_threads(3)
    try:
        kernel_checks.check(kernel_of(library))
    finally:
        torch.set_num_threads(1)
    assert set(calls) == ({(3, 0)} if there else set())


@pytest.mark.skipif(platform.system() != "Linux", reason="torch's OpenMP library is another one there")
def test_torchs_library_has_the_function_that_starts_its_threads():
    assert torchs_team()


def test_a_fork_does_not_wait_for_threads_that_it_has_not():
    program = """
import os, signal, torch
from fast import kernel, native
kernel.PRODUCTS_OF_THREADS = 0
torch.set_num_threads(2)
layer = kernel.NativeLayer(native.load()[0], torch.rand(40, 3), torch.rand(40))
if child := os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(20)
kernel.NativeLayer(layer.kernel, torch.rand(40, 3), torch.rand(40))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("threads", [1, 2, 70])
@pytest.mark.parametrize(("vocab_size", "hidden_dim"), [(1, 1), (33, 8), (1024, 3), (5000, 2)])
def test_a_layer_is_laid_out_in_panels_of_32_columns(vocab_size, hidden_dim, threads, monkeypatch):
    monkeypatch.setattr("fast.kernel.PRODUCTS_OF_THREADS", 0)
    rng = torch.Generator().manual_seed(vocab_size)
    weight, bias = torch.randn(vocab_size, hidden_dim, generator=rng), torch.randn(vocab_size, generator=rng)
    order = torch.randperm(vocab_size, generator=torch.Generator().manual_seed(1))
    torch.set_num_threads(threads)
    try:
        layer = NativeLayer(native.load()[0], weight.t().contiguous().t(), bias.repeat_interleave(2)[::2], 0.5, order)
    finally:
        torch.set_num_threads(1)
    panels = layer.panels.view(-1, hidden_dim + 1, PANEL).transpose(1, 2).flatten(0, 1)  # (V', H + 1)
    logits_of_log_2 = torch.cat([bias[:, None], weight], dim=1)[order] * (2 / torch.tensor(2.0).log())
    torch.testing.assert_close(panels[:vocab_size], logits_of_log_2, rtol=3e-7, atol=0)
    assert layer.layer.bound == pytest.approx(logits_of_log_2.norm(dim=1).max().item(), rel=1e-5)
    assert layer.columns == len(panels) >= vocab_size and (panels[vocab_size:, 1:] == 0).all()
    assert (panels[vocab_size:, 0] <= -1e30).all()
    for broken in (torch.nan, torch.inf):
        weight[vocab_size // 2, 0] = broken
        assert not NativeLayer(native.load()[0], weight, bias).layer.bound < torch.inf
