"""The kernels in C, fast/draw.c and fast/lstm.c, for CPUs: compiled once by the system's compiler, and checked when loaded.

`set_up` decides for the whole process, like `support.threads.set_up`; until then, and wherever the kernels can't be used, torch
draws (fast/categorical.py, fast/decoder.py). Both draw the same tokens, except where a uniform number lies within rounding of the
boundary between two of them. The sums that a draw needs also give log-likelihoods (fast/cross_entropy.py).

Shapes: M rows, K draws a row, T tokens of a sequence, E embedding, H hidden units, V tokens, P panels of 32 columns.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from support.cache import cache_path, read_cache, write_cache
from support.errors import UserError
from support.one_line import one_line
from support.threads import on_cpu, scratch

SOURCES = [Path(__file__).with_name(name) for name in ("lstm.c", "draw.c")]  # the first one includes the second
# gnu11, not c11: GCC then fuses products with additions. No -ffast-math: it would let the compiler ignore NaN and infinities.
FLAGS = ("-std=gnu11", "-O3", "-shared", "-fPIC")
COMPILER_SECONDS = 60.0
PANEL, MAX_PANELS, CHUNK = 32, 4, 192  # as in draw.c
UNITS, STEP_ROWS = 16, 6  # as in lstm.c
NO_WEIGHT = -1e30  # the bias of surplus columns


class Kernel(NamedTuple):
    """The functions of the compiled library; their calls release Python's lock."""

    draw: Callable[..., None]
    finish: Callable[..., None]


class _Layer(ctypes.Structure):
    """`layer` of draw.c."""

    _fields_ = (
        ("panels", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("groups", ctypes.c_int64),
        ("group_panels", ctypes.c_int64),
        ("hidden", ctypes.c_int64),
        ("vocab", ctypes.c_int64),
        ("bound", ctypes.c_float),
    )


class _Cell(ctypes.Structure):
    """`cell` of lstm.c."""

    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("embedding", ctypes.c_void_p),
        ("inputs", ctypes.c_int64),
        ("hidden", ctypes.c_int64),
        ("end_token", ctypes.c_int64),
    )


class Choice(NamedTuple):
    """What draws the tokens of this process: `kernel`, or torch where it is None; and the same in words."""

    kernel: Kernel | None
    words: str


_choice = Choice(None, "torch")


def set_up(setting: str, device: torch.device) -> None:
    """Choose what draws from now on, for all threads.

    Args:
        setting: of --native_draws; "auto" takes the kernel where it can be used, "False" torch, "True" the kernel.
        device: where tokens will be drawn.

    Raises:
        UserError: the setting is "True", and the kernel can't be used.
    """
    global _choice
    _choice = Choice(None, "torch")
    if setting == "False":
        return
    try:
        if not on_cpu(device):
            raise RuntimeError(f"native code draws on CPUs only, not on {device}")
        _choice = Choice(*load())
    except Exception as error:  # whatever the compiler, the file system or the loader raises: torch can draw
        reason = one_line(str(error))
        if setting == "True":
            raise UserError(f"--native_draws True: {reason}") from None
        _choice = Choice(None, f"torch ({reason})")


def set_up_like(args: argparse.Namespace, device: torch.device) -> None:
    """The same for a command that draws from a run's models: as its settings say, but torch where the kernel can't be used."""
    set_up("False" if args.native_draws == "False" else "auto", device)


def choice() -> Choice:
    """What draws the tokens of this process."""
    return _choice


def kernel_for(weight: Tensor) -> Kernel | None:
    """The kernel, if it is to draw from an output layer with these weights; None where torch does."""
    return _choice.kernel if on_cpu(weight.device) and weight.dtype == torch.float32 else None


class NativeLayer:
    """An output layer, laid out for the kernel. Several threads may draw from it at once.

    Args:
        kernel: from `load`.
        weight: output weights W, float32 (V, H).
        bias: output bias b, (V,).
        temperature: the logits are divided by it.
        order: the tokens in the order of the cumulative sum, int64 (V,); None means 0 to V − 1.
    """

    def __init__(self, kernel: Kernel, weight: Tensor, bias: Tensor, temperature: float = 1.0, order: Tensor | None = None):
        order = torch.arange(len(weight)) if order is None else order
        vocab_size, hidden_dim = weight.shape
        group_panels = min(MAX_PANELS, max(1, round(math.sqrt(vocab_size) / PANEL)))
        groups = math.ceil(vocab_size / (group_panels * PANEL))
        scale = 1 / (temperature * math.log(2))  # weights are powers of 2
        rows = weight.new_zeros(groups * group_panels * PANEL, hidden_dim + 1)
        torch.mul(bias.detach()[order], scale, out=rows[:vocab_size, 0])
        torch.mul(weight.detach()[order], scale, out=rows[:vocab_size, 1:])
        bound = rows.norm(dim=1).max().item()
        rows[vocab_size:, 0] = NO_WEIGHT
        self.panels = rows.view(-1, PANEL, hidden_dim + 1).transpose(1, 2).contiguous()  # (P, H + 1, 32)
        self.order = order.contiguous()
        self.kernel = kernel
        self.layer = _Layer(self.panels.data_ptr(), self.order.data_ptr(), groups, group_panels, hidden_dim, vocab_size, bound)
        self.space = CHUNK * (hidden_dim + groups)

    def draw(self, rows: Tensor, uniforms: Tensor) -> Tensor:
        """One token for each uniform number: float64 (M,) or (M, K); h is the first H numbers of a row, (M, H or more)."""
        tokens = torch.empty(uniforms.shape, dtype=torch.int64)
        numbers = uniforms.contiguous()
        self._run(rows, numbers.data_ptr(), numbers.numel() // max(1, len(rows)), tokens.data_ptr(), None)
        return tokens

    def log_sums(self, rows: Tensor) -> Tensor:
        """Logarithm of Σ_v exp(logit_v) of each row, in nats: (M, H or more) -> float64 (M,)."""
        sums = torch.empty(len(rows), dtype=torch.float64)
        self._run(rows, None, 0, None, sums.data_ptr())
        return sums

    def _run(self, rows: Tensor, uniforms: int | None, draws: int, tokens: int | None, log_sums: int | None) -> None:
        """Call the kernel for rows whose numbers lie side by side; the others are addresses."""
        space = scratch("native draws", (self.space,), self.panels)
        given = (rows.data_ptr(), rows.stride(0), len(rows), uniforms, draws, tokens, log_sums)
        self.kernel.draw(ctypes.byref(self.layer), *given, space.data_ptr())


class NativeLstm:
    """An LSTM with its output layer, laid out for the kernel. Several threads may draw from it at once.

    Args:
        layer: the output layer.
        embedding: float32 (V, E).
        weights: the biases of the gates, then their weights for the embedding and for the hidden state, (1 + E + H, 4, H); gates
            in the order i, f, o, g.
        end_token: the token after which only that one follows, or −1.
    """

    def __init__(self, layer: NativeLayer, embedding: Tensor, weights: Tensor, end_token: int):
        hidden_dim = weights.shape[2]
        units_of_log_2 = torch.tensor([1.0, 1.0, 1.0, 2.0])[:, None] / math.log(2)  # tanh(x) = 2 sigmoid(2x) − 1
        blocks = torch.nn.functional.pad(weights * units_of_log_2, (0, -hidden_dim % UNITS)).unflatten(2, (-1, UNITS))
        self.weights = blocks.permute(2, 0, 1, 3).contiguous()  # (blocks, 1 + E + H, 4, 16)
        self.embedding = embedding.contiguous()
        self.output = layer
        self.cell = _Cell(self.weights.data_ptr(), self.embedding.data_ptr(), embedding.shape[1], hidden_dim, end_token)
        self.space = layer.space + STEP_ROWS * hidden_dim

    def finish(self, tokens: Tensor, first: int, last: Tensor, padded: Tensor, cell: Tensor, uniforms: Tensor) -> None:
        """`fast.decoder.Decoder.finish`; the states are h, the first H numbers of a row of `padded`, and the cells, (M, H)."""
        space, last = scratch("native draws", (self.space,), self.weights), last.contiguous()
        states = (padded.data_ptr(), padded.stride(0), cell.data_ptr(), len(tokens))
        sequences = (tokens.data_ptr(), tokens.shape[1], first, last.data_ptr())
        numbers = (uniforms.data_ptr(), uniforms.stride(0))
        self.output.kernel.finish(
            ctypes.byref(self.output.layer), ctypes.byref(self.cell), *states, *sequences, *numbers, space.data_ptr()
        )


@functools.cache
def load() -> tuple[Kernel, str]:
    """The kernel and its description; a library compiled before is taken from the user's cache.

    Raises:
        RuntimeError: there is no compiler, or it fails, or what it made draws wrongly.
        OSError: a file can't be read or written, or the library can't be loaded.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("there is no C compiler cc")
    version = _run(compiler, "--version").partition("\n")[0]
    flags = (*FLAGS, "-march=native" if platform.machine().lower() in ("x86_64", "amd64") else "-mcpu=native")
    cache = cache_path("draw", [source.read_text() for source in SOURCES], compiler, version, flags, _cpu())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        library = Path(folder) / "draw.so"
        compiled = read_cache(cache) if cache is not None and _is_ours(cache) else None
        if compiled is None:
            _run(compiler, *flags, str(SOURCES[0]), "-o", str(library), "-lm")
            write_cache(cache, {"library": np.frombuffer(library.read_bytes(), dtype=np.uint8)})
        else:
            library.write_bytes(compiled["library"].tobytes())
        kernel = kernel_of(library)
    check(kernel)
    check_sequences(kernel)
    return kernel, f"native code ({version})"


def kernel_of(library: Path) -> Kernel:
    """The kernel in a compiled library; raises OSError where there is none."""
    number, address = ctypes.c_int64, ctypes.c_void_p
    layer, cell, rows = ctypes.POINTER(_Layer), ctypes.POINTER(_Cell), [address, number]
    try:
        loaded = ctypes.CDLL(str(library))
        kernel = Kernel(loaded.draw, loaded.finish)
    except AttributeError as error:
        raise OSError(str(error)) from None
    kernel.draw.argtypes = [layer, *rows, number, address, number, address, address, address]
    kernel.finish.argtypes = [layer, cell, *rows, address, number, *rows, number, address, *rows, address]
    for function in kernel:
        function.restype = None
    return kernel


def check(kernel: Kernel) -> None:
    """Hold a few thousand draws and sums to the float64 softmax; raises RuntimeError where they differ by more than rounding."""
    rng = torch.Generator().manual_seed(0)
    for vocab_size, hidden_dim, scale in ((3, 2, 1.0), (89, 32, 0.3), (1000, 9, 1.0), (300, 5, 60.0)):
        weight, bias = torch.randn(vocab_size, hidden_dim, generator=rng) * scale, torch.randn(vocab_size, generator=rng)
        rows = torch.rand(250, hidden_dim, generator=rng) * 2 - 1
        uniforms = torch.rand(250, 4, dtype=torch.float64, generator=rng)
        layer = NativeLayer(kernel, weight, bias)
        drawn = layer.draw(rows, uniforms)
        logits = rows.double() @ weight.double().t() + bias.double()
        totals = logits.softmax(dim=1).cumsum(dim=1)
        exact = torch.searchsorted(totals, uniforms * totals[:, -1:], right=True)
        if (differ := (drawn != exact).sum().item()) > 5:
            raise RuntimeError(f"{differ} of 1000 draws of the compiled kernel are wrong")
        if not torch.allclose(layer.log_sums(rows), logits.logsumexp(dim=1), rtol=1e-6, atol=1e-5):
            raise RuntimeError("sums of the compiled kernel are wrong")


def check_sequences(kernel: Kernel) -> None:
    """Hold drawn sequences to an LSTM in float64 and `draw`; raises RuntimeError where they differ by more than rounding."""
    rng, vocab_size, hidden_dim, num = torch.Generator().manual_seed(0), 50, 20, 100
    weights = torch.randn(1 + 5 + hidden_dim, 4, hidden_dim, generator=rng)  # E = 5
    output, embedding = torch.randn(vocab_size, hidden_dim, generator=rng), torch.randn(vocab_size, 5, generator=rng)
    layer, last = NativeLayer(kernel, output, torch.zeros(vocab_size)), torch.arange(num) % vocab_size
    tokens, uniforms = torch.empty(num, 4).long(), torch.rand(4, num, generator=rng).double()
    states, h, c = torch.zeros(2, num, hidden_dim), *torch.zeros(2, num, hidden_dim).double()
    NativeLstm(layer, embedding, weights, -1).finish(tokens, 0, last, *states, uniforms)
    wrong = 0
    for drawn, numbers in zip(tokens.t(), uniforms, strict=True):
        inputs = torch.cat([torch.ones(num, 1), embedding[last], h], dim=1)  # float64, as h is
        i, f, o, g = torch.einsum("mk,kgh->gmh", inputs, weights.double())
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        wrong += (layer.draw(h.float(), numbers) != drawn).sum().item()
        last = drawn
    if wrong > 2 or not torch.allclose(states.double(), torch.stack([h, c]), atol=1e-4):
        raise RuntimeError(f"sequences of the compiled kernel are wrong ({wrong} of {tokens.numel()} draws)")


def _run(*command: str) -> str:
    """What a command prints; raises RuntimeError where it fails, and OSError."""
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=COMPILER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{command[0]} took more than {COMPILER_SECONDS:.0f} s") from None
    if done.returncode:
        said = (done.stderr.decode(errors="replace").strip() or f"status {done.returncode}").splitlines()[0]
        raise RuntimeError(f"{command[0]} fails: {said}")
    return done.stdout.decode(errors="replace")


def _cpu() -> str:
    """What the code compiled for this CPU may depend on: a home folder may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {platform.processor()} {features}"


def _is_ours(path: Path) -> bool:
    """Whether nobody but this user can have written a file: it holds code that will run."""
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022
