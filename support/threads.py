"""Independent pieces of work on several cores, each piece on one thread.

Drawing tokens is many short operations. Split over all cores one by one, each ends with threads waiting for each other, and
waiting threads spin: as soon as another program takes one of the cores, everything waits for it, a hundred times over. Here
each core takes a whole piece, and they meet once, at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")

CPU_TYPES = ("cpu",)  # device types whose work is best split over threads, in memory that is used again

_own = threading.local()  # each thread's memory
_pools: dict[int, ThreadPoolExecutor] = {}


def on_cpu(device: torch.device) -> bool:
    """Whether to work as a CPU likes it; elsewhere with few large operations, none of which looks at a value."""
    return device.type in CPU_TYPES


def run_all(pieces: Sequence[Callable[[], Result]], device: torch.device) -> list[Result]:
    """Do all pieces and return their results in order: on the CPU on as many threads as torch uses, elsewhere one by one.

    A piece must not depend on another one, nor need gradients. The first error of a piece is raised.
    """
    threads = min(torch.get_num_threads(), len(pieces))
    if not on_cpu(device) or threads < 2:
        return [piece() for piece in pieces]
    futures = [_pool(torch.get_num_threads()).submit(_without_gradient, piece) for piece in pieces]
    return [future.result() for future in futures]


def _without_gradient(piece: Callable[[], Result]) -> Result:
    with torch.inference_mode():  # which each thread has to say for itself
        return piece()


def _pool(threads: int) -> ThreadPoolExecutor:
    if threads not in _pools:
        ready = threading.Barrier(threads + 1)

        def begin() -> None:
            torch.set_num_threads(1)
            torch.get_num_threads()  # a thread takes the number over when it first asks, and keeps it
            ready.wait()

        _pools[threads] = ThreadPoolExecutor(threads, thread_name_prefix="worker", initializer=begin)
        for _ in range(threads):
            _pools[threads].submit(int)
        ready.wait()
        torch.set_num_threads(threads)  # for this thread, and for threads yet to come
    return _pools[threads]


def scratch(name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uninitialised memory of this thread, the same for each call with this name: fresh memory of megabytes costs a CPU more
    time than what is computed in it. Holds until the thread's next call with the name. On a GPU, fresh memory: it is cheap there,
    and a recorded step has to have its own."""
    if not on_cpu(like.device):
        return like.new_empty(shape)
    size = 1
    for length in shape:
        size *= length
    held = _own.__dict__.setdefault("held", {})
    key = (name, like.dtype, like.device)
    if key not in held or held[key].numel() < size:
        held[key] = like.new_empty(size)
    return held[key][:size].view(shape)
