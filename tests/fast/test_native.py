"""The compiled kernel: the draws of torch's path, and torch's path wherever it can't be used."""

import math
import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers.reference import tiny_generator

from fast import kernel_checks, native
from fast.categorical import SoftmaxSampler
from fast.decoder import Decoder, select_rows
from fast.kernel import CHUNK, NativeLayer, kernel_of
from generator import Generator
from support.errors import UserError

CPU = torch.device("cpu")
COMPILER = shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache folder, and no kernel loaded yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    native.load.cache_clear()
    yield tmp_path / "cache/seqgan"
    native.load.cache_clear()


def inputs(vocab_size, hidden_dim, rows, scale=1.0):
    rng = torch.Generator().manual_seed(vocab_size)
    weight, bias = torch.randn(vocab_size, hidden_dim, generator=rng) * scale, torch.randn(vocab_size, generator=rng)
    hidden = torch.rand(rows, hidden_dim, generator=rng) * 2 - 1
    return weight, bias, hidden, torch.rand(rows, 3, dtype=torch.float64, generator=rng)


def drawn_by(setting, weight, bias, hidden, uniforms, temperature=1.0):
    native.set_up(setting, CPU)
    return SoftmaxSampler(weight, bias, temperature).draw(hidden, uniforms)


@needs_compiler
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
@pytest.mark.parametrize(("vocab_size", "hidden_dim"), [(1, 1), (31, 2), (32, 5), (33, 8), (89, 32), (2047, 7), (5000, 50)])
def test_native_draws_are_those_of_torch_up_to_rounding(vocab_size, hidden_dim, scale):
    values = inputs(vocab_size, hidden_dim, 2000, scale)
    differ = (drawn_by("True", *values) != drawn_by("False", *values)).sum()
    assert differ <= 2 + scale / 5 + vocab_size / 1000  # rounding grows with the logits; each token has a boundary


@needs_compiler
@pytest.mark.parametrize("temperature", [0.01, 1e-4])
def test_a_temperature_near_zero_draws_the_largest_logit(temperature):
    weight, bias, hidden, uniforms = inputs(700, 9, 300)
    logits = hidden @ weight.t() + bias
    two = logits.topk(2).values
    sure = two[:, 0] - two[:, 1] > 60 * temperature
    tokens = drawn_by("True", weight, bias, hidden, uniforms, temperature)
    assert sure.sum() > 50 and (tokens == logits.argmax(1, keepdim=True))[sure].all()


@needs_compiler
def test_a_logit_far_above_those_of_all_groups_before_it_is_drawn():
    """The sums of the earlier groups, which no longer fit into float32 beside it, shrink with its shift."""
    bias = torch.linspace(0, 3000, 4000).round()
    grid = torch.linspace(0, 1 - 2.0**-53, 9999, dtype=torch.float64)[None]
    tokens = drawn_by("True", torch.zeros(4000, 1), bias, torch.zeros(1, 1), grid)
    counts = torch.bincount(tokens[0], minlength=4000)
    assert ((counts - 9999 * bias.double().softmax(dim=0)).abs() <= 2).all()


@needs_compiler
def test_a_shift_of_more_than_float32s_range_keeps_the_earlier_tokens():
    """The weights before it reach 2^100, so that a factor of 2^-182 leaves them a share of the whole."""
    bias = torch.full((5000,), 100 * math.log(2))
    bias[:128], bias[-1] = 0, 126.5 * math.log(2)
    sums = NativeLayer(native.load()[0], torch.zeros(5000, 1), bias).log_sums(torch.ones(1, 1) * 100)
    torch.testing.assert_close(sums[0], bias.double().logsumexp(dim=0), rtol=0, atol=2e-5)
    layer = NativeLayer(native.load()[0], torch.zeros(5000, 1), bias)
    uniforms = torch.linspace(1e-8, 6e-5, 1000, dtype=torch.float64)[None]
    exact = torch.searchsorted(bias.double().softmax(dim=0).cumsum(dim=0), uniforms, right=True)
    assert ((layer.draw(torch.ones(1, 1) * 100, uniforms) - exact).abs() <= 3).all() and (exact < 4999).sum() > 500


@needs_compiler
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_numbers_out_of_range_draw_valid_tokens(broken):
    for where in range(3):
        weight, bias, hidden, uniforms = inputs(100, 4, 50)
        (weight, bias, hidden)[where].view(-1)[5::7] = broken
        tokens = drawn_by("True", weight, bias, hidden, uniforms)
        assert tokens.min() >= 0 and tokens.max() < 100


@needs_compiler
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_neither_the_rows_of_a_call_nor_threads_change_a_draw(scale):
    weight, bias, hidden, uniforms = inputs(1000, 20, 500, scale)
    together = drawn_by("True", weight, bias, hidden, uniforms)
    sampler = SoftmaxSampler(weight, bias)
    for size in (1, 7, 193):
        parts = [sampler.draw(h, u) for h, u in zip(hidden.split(size), uniforms.split(size), strict=True)]
        assert torch.equal(torch.cat(parts), together)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: sampler.draw(hidden, uniforms), range(16)))
    assert all(torch.equal(tokens, together) for tokens in found)


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="flags of x86-64 compilers")
@pytest.mark.parametrize(
    ("cpu", "feature"), [("x86-64", "sse2"), ("haswell", "avx2"), ("skylake-avx512", "avx512f"), ("native", "fpu")]
)
def test_the_kernel_compiles_without_warnings_and_draws_right_on_other_cpus(cpu, feature, tmp_path):
    library = tmp_path / "draw.so"
    command = [COMPILER, *native.FLAGS, "-Wall", "-Wextra", "-Werror", f"-march={cpu}", native.SOURCES[0], "-o", library, "-lm"]
    subprocess.run(command, check=True)
    if feature in native._cpu().split():
        kernel_checks.check(kernel_of(library))


@needs_compiler
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
@pytest.mark.parametrize(("vocab_size", "hidden_dim"), [(1, 1), (33, 8), (89, 32), (5000, 50)])
def test_sums_are_those_of_float64(vocab_size, hidden_dim, scale):
    weight, bias, hidden, _ = inputs(vocab_size, hidden_dim, 500, scale)
    native.set_up("True", CPU)
    found = NativeLayer(native.load()[0], weight, bias).log_sums(hidden)
    expected = (hidden.double() @ weight.double().t() + bias.double()).logsumexp(dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=2e-6)


@needs_compiler
@pytest.mark.parametrize("end_token", [None, 0, 4])
@pytest.mark.parametrize(
    ("vocab_size", "emb_dim", "hidden_dim"), [(5, 1, 1), (31, 3, 15), (40, 7, 16), (23, 16, 17), (600, 32, 50)]
)
def test_sequences_are_those_of_torch(vocab_size, emb_dim, hidden_dim, end_token):
    """From the start, from the middle, with numbers and rows that lie apart in memory; the states at the end as well."""
    model = Generator(vocab_size, emb_dim, hidden_dim, end_token=end_token)
    model.initialise(torch.Generator().manual_seed(1), 1.0, 1.0, 0.3, 0.5)
    rng = torch.Generator().manual_seed(2)
    for first, rows in ((0, 1), (0, 29), (3, 200), (8, 5)):
        last = torch.randint(vocab_size, (rows,), generator=rng)
        uniforms = torch.rand(8 - first, 2 * rows, dtype=torch.float64, generator=rng)[:, rows:]
        found = []
        for setting in ("False", "True"):
            native.set_up(setting, CPU)
            decoder, tokens = Decoder(model, 100), torch.zeros(rows, 8, dtype=torch.int64)
            states = decoder.zero_states(2 * rows)
            states.cell.copy_(torch.linspace(-2, 2, states.cell.numel()).view_as(states.cell))
            states = select_rows(states, slice(rows, None))
            decoder.finish(tokens, first, last, states, uniforms)
            found.append((tokens, *states))
        assert torch.equal(found[0][0], found[1][0])
        torch.testing.assert_close(found[0][1:], found[1][1:], rtol=1e-5, atol=2e-6)


@needs_compiler
@pytest.mark.parametrize("num", [0, 1, 12, 13, 383, 385, 1000])
def test_tasks_share_the_rows_evenly_and_change_no_draw(num):
    native.set_up("True", CPU)
    model, before = tiny_generator(vocab_size=23, hidden_dim=6), torch.get_num_threads()
    uniforms, found = torch.rand(5, num, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        size = Decoder(model, 1).rows_of_a_task(num)
        assert 0 < size <= CHUNK and size * threads * -(-num // (size * threads)) < num + 12 * threads * (1 + num // CHUNK)
        found.append(model.sample_from(uniforms))
    torch.set_num_threads(before)
    assert all(torch.equal(tokens, found[0]) for tokens in found)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "there is no C compiler cc"),
        ("echo 'cc: no such flag' >&2; exit 1", "fails: cc: no such flag"),
        ("exit 3", "fails: status 3"),
        ("echo version 1", "draw.so"),  # the library is missing
        ('while [ $# != 0 ]; do [ "$1" != -o ] || echo text > "$2"; shift; done; echo version 1', "draw.so"),  # it is no library
    ],
)
def test_without_a_working_compiler_torch_draws_and_says_why(script, reason, tmp_path, monkeypatch, own_cache):
    (tmp_path / "bin").mkdir()
    if script is not None:
        (tmp_path / "bin/cc").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin/cc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    native.set_up("auto", CPU)
    assert native.choice().kernel is None
    assert native.choice().words.startswith("torch (") and reason in native.choice().words and "\n" not in native.choice().words
    with pytest.raises(UserError, match="--native_draws True: ") as caught:
        native.set_up("True", CPU)
    assert reason in str(caught.value)


def test_a_gpu_draws_by_torch():
    native.set_up("auto", torch.device("cuda"))
    assert native.choice().kernel is None


@needs_compiler
def test_the_compiler_runs_once_for_all_processes(own_cache, tmp_path, monkeypatch):
    calls, run, library = [], native._run, tmp_path / "compiled"

    def compile_or_copy(*command):
        calls.append(command[1])
        if command[1] != "--version" and library.exists():
            shutil.copy(library, command[command.index("-o") + 1])  # as compiled before: compiling takes seconds
            return ""
        said = run(*command)
        if command[1] != "--version":
            shutil.copy(command[command.index("-o") + 1], library)
        return said

    monkeypatch.setattr(native, "_run", compile_or_copy)

    def compilations():
        calls.clear()
        native.load.cache_clear()  # as a new process
        native.set_up("True", CPU)
        return [call for call in calls if call != "--version"]

    assert len(compilations()) == 1
    assert compilations() == []
    (path,) = own_cache.iterdir()
    damaged = bytearray(path.read_bytes())
    damaged[-100] ^= 1
    path.write_bytes(damaged)
    assert len(compilations()) == 1
    path.chmod(0o666)  # anybody may have written it
    assert len(compilations()) == 1
    monkeypatch.setattr(native, "cache_path", lambda *key: None)  # a user without a home
    assert len(compilations()) == 1
    assert [p.name for p in own_cache.iterdir()] == [path.name] and os.stat(path).st_mode & 0o777 == 0o600
