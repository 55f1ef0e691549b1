"""The processes of one run: `torchrun` starts several ranks, which share the work of each step and otherwise do the same.

Every rank draws the same random numbers, computes its own rows, and receives the other ranks' (`gather`, `add_up`); both are sums
over ranks, so that all hold the same bits afterwards. `join` decides for the whole process, like `support.threads.set_up`; without
it, and without torchrun, there is one rank, and nothing here does anything.

The first rank that fails says so in the launcher's store, and prints the cause; the others miss it, and end silently.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from support.errors import INTERRUPTED_STATUS, TERMINATED_STATUS, Terminated, UserError
from support.torchrun import is_first, local_rank, number_of_ranks

STORE_SECONDS = 10.0  # for a question to the launcher's store; where it is gone, the launcher has ended


class LostRankError(UserError):
    """Another rank does not answer."""


class World(NamedTuple):
    """This process among those of its run: `rank` counts from 0 to `size` − 1."""

    rank: int = 0
    size: int = 1
    timeout: float = 0.0


_world = World()


def size() -> int:
    """How many ranks share the work."""
    return _world.size


@contextlib.contextmanager
def join(device: torch.device, timeout: float) -> Iterator[None]:
    """Inside, the ranks that torchrun has started are one run; without torchrun nothing changes.

    Args:
        device: this rank's. NCCL joins ranks that have a CUDA device each, gloo all others.
        timeout: seconds for which a rank waits for another one.

    Raises:
        LostRankError: the others can't be reached.
    """
    global _world
    if number_of_ranks() == 1:
        yield
        return
    several = int(os.environ["LOCAL_WORLD_SIZE"]) <= torch.cuda.device_count() and device.index == local_rank()
    own_device = device.type == "cuda" and several
    place = {}  # else the environment says where rank 0 keeps the store
    with _naming_the_lost(timeout):
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            place = dict(store=_launchers_store(timeout), rank=int(os.environ["RANK"]), world_size=number_of_ranks())
        dist.init_process_group("nccl" if own_device else "gloo", timeout=datetime.timedelta(seconds=timeout), **place)
    _world = World(dist.get_rank(), dist.get_world_size(), timeout)
    try:
        yield
    finally:
        _world = World()
        if sys.exc_info()[0] is None:  # else other ranks may hang, and so would this
            dist.destroy_process_group()


def rows(num: int) -> slice:
    """This rank's share of `num` rows; the shares of all ranks follow each other and differ by one row at most."""
    return slice(num * _world.rank // _world.size, num * (_world.rank + 1) // _world.size)


def gather(part: Tensor, num: int, dim: int = 0) -> Tensor:
    """All ranks' shares of `num` rows along a dimension, in order; the same on every rank."""
    if _world.size == 1:
        return part
    shape = [*part.shape]
    shape[dim] = num
    whole = part.new_zeros(shape)
    own = rows(num)
    whole.narrow(dim, own.start, own.stop - own.start).copy_(part)
    _sum(whole)
    return whole


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over ranks: one exchange for all of them, which are float32 on one device."""
    if _world.size == 1:
        return
    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    _sum(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.detach().copy_(total.view_as(tensor))


def together(flag: bool) -> bool:
    """Whether all ranks say so; each waits for all others."""
    if _world.size == 1:
        return flag
    device = f"cuda:{torch.cuda.current_device()}" if dist.get_backend() == "nccl" else "cpu"
    count = torch.tensor(float(flag), device=device)
    _sum(count)
    return count.item() == _world.size


def must_be_alike(tensors: Sequence[Tensor], otherwise: str) -> None:
    """Raise UserError with the text `otherwise` on all ranks where their tensors differ; each waits for all others."""
    if _world.size == 1:
        return
    own = torch.stack([tensor.detach().double().sum() for tensor in tensors])
    mean = own / _world.size
    others = mean.clone()
    _sum(others)
    if not together(bool(torch.isclose(others, own, rtol=1e-12, atol=0.0, equal_nan=True).all())):
        raise UserError(otherwise)


def first_to_report() -> bool:
    """Whether this rank is the one to print why the run ends: true for the first rank that asks the launcher's store."""
    if number_of_ranks() == 1:
        return True
    try:
        return _launchers_store(STORE_SECONDS).add("reports", 1) == 1
    except (RuntimeError, ValueError):  # the launcher has ended
        return is_first()


def _launchers_store(timeout: float) -> dist.Store:
    """The launcher's store, which outlives the ranks: what those of an earlier start have left there is not seen."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.TCPStore(address, port, timeout=datetime.timedelta(seconds=timeout))
    return dist.PrefixStore(f"start {restarts}", store)


@contextlib.contextmanager
def one_report() -> Iterator[None]:
    """Inside, an error that several ranks have ends all but one of them silently, with its exit status."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, SystemExit) or first_to_report():
            raise
        statuses = {KeyboardInterrupt: INTERRUPTED_STATUS, Terminated: TERMINATED_STATUS}
        raise SystemExit(statuses.get(type(error), 2)) from None


def _sum(tensor: Tensor) -> None:
    with _naming_the_lost(_world.timeout):
        dist.all_reduce(tensor)


@contextlib.contextmanager
def _naming_the_lost(timeout: float) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "out of memory" in str(error):
            raise
        raise LostRankError(
            f"another process of this run has ended, or did not answer within --dist_timeout {timeout:g} s"
        ) from None
