"""Schemas: what a file from a stranger must hold, walked once before anything relies on it.

A check takes a value and the name of its place, and raises UnfitError where the value is not what it must be.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Check = Callable[[Any, str], None]

LARGEST = 2**63 - 1


class UnfitError(ValueError):
    """A value that is not what its place asks for; the text names the place."""


def _refuse(place: str, what: str) -> None:
    raise UnfitError(f"{place or 'the file'} is not {what}")


def anything(_value: Any, _place: str) -> None:
    """Every value."""


def whole(low: int = 0, high: int = LARGEST) -> Check:
    """A whole number from low to high."""

    def check(value: Any, place: str) -> None:
        if type(value) is not int or not low <= value <= high:
            _refuse(
                place, "a whole number" + (f" from {low}" if low > -LARGEST else "") + (f" to {high}" if high < LARGEST else "")
            )

    return check


def number(low: float = -math.inf, high: float = math.inf) -> Check:
    """A number from low to high; NaN is one only without limits."""

    def check(value: Any, place: str) -> None:
        limited = (low, high) != (-math.inf, math.inf)
        if type(value) not in (int, float) or (type(value) is int and abs(value) > LARGEST):
            _refuse(place, "a number")
        if limited and not low <= value <= high:
            _refuse(place, f"a number from {low:g} to {high:g}")

    return check


def text(value: Any, place: str) -> None:
    """A text that can be written as UTF-8, and be a part of the name of a file."""
    if type(value) is not str or "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        _refuse(place, "a text")


def text_of(longest: int) -> Check:
    """A text of at most so many characters."""

    def check(value: Any, place: str) -> None:
        text(value, place)
        if len(value) > longest:
            _refuse(place, f"a text of at most {longest} characters")

    return check


def truth(value: Any, place: str) -> None:
    """True or False."""
    if type(value) is not bool:
        _refuse(place, "True or False")


def one_of(values: Collection[Any]) -> Check:
    """One of some texts or numbers."""

    def check(value: Any, place: str) -> None:
        if type(value) not in (str, int, float) or value not in values:
            _refuse(place, f"one of {', '.join(map(str, values))}")

    return check


def optional(inner: Check) -> Check:
    """None, or what another check takes."""
    return lambda value, place: None if value is None else inner(value, place)


def either(key: str, with_it: Check, without: Check) -> Check:
    """One check for dictionaries with a key, another for all else."""
    return lambda value, place: (with_it if isinstance(value, dict) and key in value else without)(value, place)


def both(one: Check, two: Check) -> Check:
    """What two checks take."""

    def check(value: Any, place: str) -> None:
        one(value, place)
        two(value, place)

    return check


def list_of(inner: Check, longest: int, shortest: int = 0) -> Check:
    """A list, each item of which another check takes."""

    def check(value: Any, place: str) -> None:
        if type(value) is not list or not shortest <= len(value) <= longest:
            _refuse(place, f"a list of {shortest} to {longest} items")
        for index, item in enumerate(value):
            inner(item, f"{place}[{index}]")

    return check


def mapping(inner: Check) -> Check:
    """A dictionary from texts to what another check takes."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, dict):
            _refuse(place, "a dictionary")
        for key, item in value.items():
            text(key, f"a key of {place}")
            inner(item, _below(place, key))

    return check


def record(required: Mapping[Any, Check], possible: Mapping[Any, Check] | None = None, closed: bool = False) -> Check:
    """A dictionary with these keys.

    Args:
        required: must be there.
        possible: may be there.
        closed: nothing else may be there.
    """
    possible = possible or {}

    def check(value: Any, place: str) -> None:
        if not isinstance(value, dict):
            _refuse(place, "a dictionary")
        for key, inner in required.items():
            if key not in value:
                raise UnfitError(f"{_below(place, key)} is missing")
            inner(value[key], _below(place, key))
        for key, inner in possible.items():
            if key in value:
                inner(value[key], _below(place, key))
        if closed and (more := value.keys() - required.keys() - possible.keys()):
            raise UnfitError(f"{place} holds {len(more)} parts that do not belong there")

    return check


def tensor(dtype: torch.dtype, shape: tuple[int | None, ...], low: float = -math.inf, high: float = math.inf) -> Check:
    """A plain tensor.

    Args:
        dtype: its type.
        shape: its shape; None is any length but 0.
        low: no value is lower. Values that are not finite are refused.
        high: no value is higher.
    """

    def check(value: Any, place: str) -> None:
        # A tensor whose elements share memory, or that is sparse, has a right shape and breaks what writes into it.
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            _refuse(place, "a plain tensor")
        if value.is_neg() or value.is_conj():  # its memory holds other numbers than it shows
            _refuse(place, "a plain tensor")
        if value.dtype != dtype:
            raise UnfitError(f"{place} is of type {value.dtype}, not {dtype}")
        fits = len(shape) == value.dim() and all(m > 0 if n is None else m == n for n, m in zip(shape, value.shape, strict=True))
        if not fits:
            asked = ", ".join("any" if n is None else str(n) for n in shape)
            raise UnfitError(f"{place} has shape {tuple(value.shape)}, not ({asked})")
        if not value.is_contiguous():
            _refuse(place, "a contiguous tensor")
        if value.numel() and (dtype.is_floating_point or (low, high) != (-math.inf, math.inf)):
            lowest, highest = (x.item() for x in value.aminmax())  # NaN where a value is
            if not (math.isfinite(lowest) and math.isfinite(highest) and low <= lowest and highest <= high):
                raise UnfitError(
                    f"{place} holds values that are not " + ("finite" if low == -math.inf else f"from {low:g} to {high:g}")
                )

    return check


_RNG_BYTES = tensor(torch.uint8, (5056,))
_RNG_WORDS = 624  # of the Mersenne Twister


def random_stream(value: Any, place: str) -> None:
    """The state of a random stream on the CPU. Torch itself takes one by which it would read past its end."""
    _RNG_BYTES(value, place)
    left, seeded, following = struct.unpack_from("<iiQ", value.numpy().tobytes(), 8)
    if seeded != 1 or not 1 <= left <= _RNG_WORDS or following > _RNG_WORDS or left + following > _RNG_WORDS + 1:
        _refuse(place, "the state of a random stream")


def tensors_like(own: Mapping[str, Tensor]) -> Check:
    """A dictionary with the names, types and shapes of these tensors, and nothing else."""
    return record({name: tensor(value.dtype, tuple(value.shape)) for name, value in own.items()}, closed=True)


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """Inside, models are made that have shapes and no memory; raises UnfitError where there can be none of their sizes."""
    try:
        with torch.device("meta"):
            yield
    except RuntimeError as error:
        raise UnfitError(f"no model has these sizes: {error}") from error


def _below(place: str, key: object) -> str:
    return f"{place}.{key}" if place else str(key)
