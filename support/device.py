"""Choosing, describing and setting up the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from support.errors import UserError
from support.torchrun import local_rank, number_of_ranks


def choose_device(name: str) -> torch.device:
    """The device of a --device value, made the current one, with matrix products in float32.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"--device {name}: this machine or this build of torch has no CUDA device")
        if device.index is None:  # a device for each process, as far as they go
            device = torch.device("cuda", local_rank() % torch.cuda.device_count())
        if device.index >= torch.cuda.device_count():
            raise UserError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
        torch.cuda.set_device(device)
        torch.backends.cudnn.rnn.fp32_precision = "ieee"  # cuDNN's default is TF32
    return device


def describe_device(device: torch.device) -> str:
    """The device in words."""
    ranks = f", {number_of_ranks()} processes" if number_of_ranks() > 1 else ""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)}{ranks})"
    return f"{device} ({torch.get_num_threads()} threads{ranks})"


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to the device without waiting for the device's pending work."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@contextlib.contextmanager
def matmul_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Inside, matrix products round their factors to `precision`.

    Args:
        precision: "float32" keeps all 23 bits of the mantissa, "tf32" (CUDA only) 10 and "bf16" 7.
        device: where the products are computed.
    """
    if precision == "bf16":
        # cache_enabled=False: a CUDA graph has to cast the weights anew each time it is replayed
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            yield
        return
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
