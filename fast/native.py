"""The kernel in C, fast/kernels.c, for CPUs: compiled once by the system's compiler, and checked when loaded; and Triton for GPUs.

`set_up` decides for the whole process, like `support.threads.set_up`; until then, and wherever the kernel can't be used, torch
draws (fast/categorical.py, fast/decoder.py). Both draw the same tokens, except where a uniform number lies within rounding of the
boundary between two of them. What training needs is in the kernel too: log-likelihoods and their gradients (fast/cross_entropy.py),
the LSTM with its gradients (fast/lstm.py) and D's convolutions (fast/convolution.py).
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fast.kernel import Kernel, kernel_of
from fast.kernel_checks import check
from support.cache import cache_path, read_cache, write_cache
from support.errors import UserError
from support.one_line import one_line
from support.threads import on_cpu

PARTS = ("draw", "lstm", "threads", "layout", "convolution", "cross_entropy", "lstm_gradients")
SOURCES = [Path(__file__).with_name(f"{name}.c") for name in ("kernels", *PARTS)]  # the first includes the others
# gnu11, not c11: GCC then fuses products with additions. No -ffast-math: it would let the compiler ignore NaN and infinities.
FLAGS = ("-std=gnu11", "-O3", "-shared", "-fPIC")
COMPILER_SECONDS = 60.0


class Choice(NamedTuple):
    """What draws and trains in this process: `kernel` on a CPU, `gpu` on a GPU, or torch where they are None; the same in words."""

    kernel: Kernel | None
    words: str
    gpu: ModuleType | None = None


_choice = Choice(None, "torch")


def set_up(setting: str, device: torch.device) -> None:
    """Choose what draws and trains from now on, for all threads.

    Args:
        setting: of --native_draws; "auto" takes the kernel, on a GPU Triton, where it can be used, "False" torch, "True" the
            kernel or Triton.
        device: where tokens will be drawn.

    Raises:
        UserError: the setting is "True", and the kernel can't be used.
    """
    global _choice
    _choice = Choice(None, "torch")
    if setting == "False":
        return
    try:
        _choice = Choice(*load()) if on_cpu(device) else Choice(None, *load_for_gpu(device))
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


def kernel_for(like: Tensor) -> Kernel | None:
    """The kernel, if it is to compute with tensors like this one; None where torch does."""
    return _choice.kernel if on_cpu(like.device) and like.dtype == torch.float32 else None


def gpu_kernels_for(like: Tensor) -> ModuleType | None:
    """`fast.triton_kernels`, if they are to compute with tensors like this one; None where torch does."""
    return None if on_cpu(like.device) or like.dtype != torch.float32 else _choice.gpu


@functools.cache
def load_for_gpu(device: torch.device) -> tuple[str, ModuleType]:
    """What computes on a GPU, in words and as a module.

    Raises:
        RuntimeError: the device is none of CUDA, or there is no Triton, or what it makes computes wrongly.
        Exception: whatever Triton raises where it fails.
    """
    if device.type != "cuda":
        raise RuntimeError(f"there is no native code for {device}")
    try:
        kernels = importlib.import_module("fast.triton_kernels")
    except ImportError as error:
        raise RuntimeError(f"Triton can't be imported: {error}") from None
    kernels.check(device)
    return kernels.words(), kernels


@functools.cache
def load() -> tuple[Kernel, str]:
    """The kernel and its description; a library compiled before is taken from the user's cache.

    Raises:
        RuntimeError: there is no compiler, or it fails, or what it made computes wrongly.
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
    return kernel, f"native code ({version})"


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
