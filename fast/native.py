"""The drawing kernel in C, fast/draw.c, for CPUs: compiled once by the system's compiler, and checked each time it is loaded.

`set_up` decides for the whole process, like `support.threads.set_up`; until then, and wherever the kernel can't be used, torch
draws (fast/categorical.py). Both draw the same tokens, except where a uniform number lies within rounding of the boundary between
two of them.

Shapes: M rows, K draws a row, H hidden units, V tokens, P panels of 32 columns.
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

SOURCE = Path(__file__).with_name("draw.c")
# gnu11, not c11: GCC then fuses products with additions. No -ffast-math: it would let the compiler ignore NaN and infinities.
FLAGS = ("-std=gnu11", "-O3", "-shared", "-fPIC")
COMPILER_SECONDS = 60.0
PANEL, MAX_PANELS, CHUNK = 32, 4, 192  # as in draw.c
NO_WEIGHT = -1e30  # the bias of surplus columns

Kernel = Callable[..., None]


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


class NativeLayer:
    """An output layer, laid out for the kernel. Several threads may draw from it at once.

    Args:
        kernel: from `load`.
        weight: output weights W, float32 (V, H).
        bias: output bias b, (V,).
        temperature: the logits are divided by it.
        order: the tokens in the order of the cumulative sum, int64 (V,).
    """

    def __init__(self, kernel: Kernel, weight: Tensor, bias: Tensor, temperature: float, order: Tensor):
        vocab_size, hidden_dim = weight.shape
        group_panels = min(MAX_PANELS, max(1, round(math.sqrt(vocab_size) / PANEL)))
        groups = math.ceil(vocab_size / (group_panels * PANEL))
        matrix = weight.new_zeros(hidden_dim + 1, groups * group_panels * PANEL)
        scale = 1 / (temperature * math.log(2))  # weights are powers of 2
        matrix[0, :vocab_size] = bias.detach()[order] * scale
        matrix[1:, :vocab_size] = weight.detach()[order].t() * scale
        bound = matrix.norm(dim=0).max().item()
        matrix[0, vocab_size:] = NO_WEIGHT
        self.panels = matrix.view(hidden_dim + 1, -1, PANEL).transpose(0, 1).contiguous()  # (P, H + 1, 32)
        self.order = order.contiguous()
        self.kernel = kernel
        self.layer = _Layer(self.panels.data_ptr(), self.order.data_ptr(), groups, group_panels, hidden_dim, vocab_size, bound)
        self.space = CHUNK * (hidden_dim + groups)

    def draw(self, rows: Tensor, uniforms: Tensor) -> Tensor:
        """One token for each uniform number: float64 (M,) or (M, K); h is the first H numbers of a row, (M, H or more)."""
        tokens = torch.empty(uniforms.shape, dtype=torch.int64)
        numbers = uniforms.contiguous()
        space = scratch("native draws", (self.space,), self.panels)
        given = (rows.data_ptr(), rows.stride(0), len(rows), numbers.data_ptr(), numbers.numel() // max(1, len(rows)))
        self.kernel(ctypes.byref(self.layer), *given, tokens.data_ptr(), space.data_ptr())
        return tokens


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
    cache = cache_path("draw", SOURCE.read_text(), compiler, version, flags, _cpu())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        library = Path(folder) / "draw.so"
        compiled = read_cache(cache) if cache is not None and _is_ours(cache) else None
        if compiled is None:
            _run(compiler, *flags, str(SOURCE), "-o", str(library), "-lm")
            write_cache(cache, {"library": np.frombuffer(library.read_bytes(), dtype=np.uint8)})
        else:
            library.write_bytes(compiled["library"].tobytes())
        kernel = kernel_of(library)
    check(kernel)
    return kernel, f"native code ({version})"


def kernel_of(library: Path) -> Kernel:
    """The kernel in a compiled library; raises OSError where there is none."""
    try:
        kernel = ctypes.CDLL(str(library)).draw  # calls release Python's lock
    except AttributeError as error:
        raise OSError(str(error)) from None
    number, address = ctypes.c_int64, ctypes.c_void_p
    kernel.argtypes = [ctypes.POINTER(_Layer), address, number, number, address, number, address, address]
    kernel.restype = None
    return kernel


def check(kernel: Kernel) -> None:
    """Hold a few thousand draws to the float64 softmax; raises RuntimeError where they differ by more than rounding."""
    rng = torch.Generator().manual_seed(0)
    for vocab_size, hidden_dim, scale in ((3, 2, 1.0), (89, 32, 0.3), (1000, 9, 1.0), (300, 5, 60.0)):
        weight, bias = torch.randn(vocab_size, hidden_dim, generator=rng) * scale, torch.randn(vocab_size, generator=rng)
        rows = torch.rand(250, hidden_dim, generator=rng) * 2 - 1
        uniforms = torch.rand(250, 4, dtype=torch.float64, generator=rng)
        drawn = NativeLayer(kernel, weight, bias, 1.0, torch.arange(vocab_size)).draw(rows, uniforms)
        totals = (rows.double() @ weight.double().t() + bias.double()).softmax(dim=1).cumsum(dim=1)
        exact = torch.searchsorted(totals, uniforms * totals[:, -1:], right=True)
        if (differ := (drawn != exact).sum().item()) > 5:
            raise RuntimeError(f"{differ} of 1000 draws of the compiled kernel are wrong")


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
