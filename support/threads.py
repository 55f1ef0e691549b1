"""Independent tasks on several CPU cores, one thread a task; and memory that each thread reuses.

Drawing tokens is thousands of short operations. If each operation is split over all cores, the threads synchronise after every
one of them and busy-wait meanwhile: as soon as another program uses one of the cores, everything waits for it. Here each thread
takes a whole task, and the threads synchronise once, at the end.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_BYTES = 2**31 - 1  # the largest that mallopt takes
LARGE_BYTES = 2**25  # larger blocks are the system's own; the largest that all versions of the library take
CPU_TYPES = ("cpu",)  # device types whose work is split over threads, with reused buffers

_thread_local = threading.local()  # each thread's buffers
_pools: dict[int, ThreadPoolExecutor] = {}


def set_up(num_threads: int) -> None:
    """Prepare for training: flush denormals, keep freed memory, and the number of torch's threads (0: torch's own choice).

    Denormals (below 1e-38) are flushed to zero because CPUs multiply them about 100 times slower, and a confident discriminator
    produces gradients of that size. Each thread inherits the setting from the one that starts it, so this comes before any work.
    """
    torch.set_flush_denormal(True)
    keep_freed_memory()
    if num_threads:
        torch.set_num_threads(num_threads)


def keep_freed_memory() -> None:
    """Let the C library keep what tensors free, up to KEPT_BYTES, for the next ones, instead of giving it back to the system.

    The system clears each page that it hands out again. The gradients of a large discriminator, freed by each update and
    allocated by the next, are thousands of pages: with them an update of D at the sizes of the paper takes a tenth longer, and some
    updates take twice as long.
    Does nothing where the C library is not GNU's, or where the environment has settings for it (MALLOC_..., GLIBC_TUNABLES).
    """
    library = ctypes.CDLL(None)
    users_own = any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if users_own or not hasattr(library, "gnu_get_libc_version"):
        return
    library.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
    library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def on_cpu(device: torch.device) -> bool:
    """Whether work is split into tasks for CPU threads; other devices get few large operations, none of which reads a value."""
    return device.type in CPU_TYPES


def run_all(tasks: Sequence[Callable[[], Result]], device: torch.device) -> list[Result]:
    """Do all tasks and return their results in order: on a CPU on as many threads as torch uses, elsewhere one by one.

    A task must not depend on another one, nor need gradients. The first error of a task is raised.
    """
    threads = min(torch.get_num_threads(), len(tasks))
    if not on_cpu(device) or threads < 2:
        return [task() for task in tasks]
    futures = [_pool(torch.get_num_threads()).submit(_without_gradient, task) for task in tasks]
    return [future.result() for future in futures]


def slices(number: int, size: int) -> list[slice]:
    """0 to `number` in parts of `size`, the last one perhaps smaller."""
    return [slice(first, min(first + size, number)) for first in range(0, number, size)]


def _without_gradient(task: Callable[[], Result]) -> Result:
    with torch.inference_mode():  # a setting of each thread
        return task()


def _pool(threads: int) -> ThreadPoolExecutor:
    if threads not in _pools:
        ready = threading.Barrier(threads + 1)

        def begin() -> None:
            torch.set_num_threads(1)
            torch.get_num_threads()  # a thread reads the number when it first asks, and keeps it
            ready.wait()

        _pools[threads] = ThreadPoolExecutor(threads, thread_name_prefix="worker", initializer=begin)
        for _ in range(threads):
            _pools[threads].submit(int)
        ready.wait()
        torch.set_num_threads(threads)  # for this thread, and for threads started later
    return _pools[threads]


def second_level_cache() -> int:
    """Bytes of a CPU core's second-level cache; 0 where the system does not say."""
    try:
        return os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (ValueError, OSError):  # the name is Linux's
        return 0


def scratch(name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uninitialised memory, valid until this thread's next call with the same name.

    On a CPU each call with a name returns the same memory: mapping fresh megabytes costs more time than computing in them. On a
    GPU it is fresh memory: it is cheap there, and a recorded CUDA graph needs memory of its own.
    """
    if not on_cpu(like.device):
        return like.new_empty(shape)
    size = 1
    for length in shape:
        size *= length
    buffers = _thread_local.__dict__.setdefault("buffers", {})
    key = (name, like.dtype, like.device)
    if key not in buffers or buffers[key].numel() < size:
        buffers[key] = like.new_empty(size)
    return buffers[key][:size].view(shape)
