"""Changed files for every reader: each must be read, or be refused with one line, within seconds and with little memory."""

from __future__ import annotations

import contextlib
import io
import random
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

TIME_LIMIT = 20  # seconds, on a machine that does other things as well
MOST_CHANGES = 4
LARGEST_CHANGED = 500_000  # bytes: larger ones are read once, as they are


@dataclass(frozen=True)
class Reader:
    """A reader and the inputs that its changed ones are made of.

    Attributes:
        name: for the report.
        seeds: good inputs, and bad ones of known kinds.
        read: reads an input; its result says whether it is as it must be. Raises one of `refusals` where it refuses the input.
        refusals: what becomes one line on stderr.
    """

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes], bool]
    refusals: tuple[type[BaseException], ...]


class HangsError(BaseException):
    """A reader takes too long."""


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Inside, HangsError is raised after TIME_LIMIT."""

    def end(_number: int, _frame: object) -> None:
        raise HangsError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def changed(data: bytes, others: tuple[bytes, ...], rng: random.Random) -> bytes:
    """An input after some random changes."""
    for _ in range(rng.randint(1, MOST_CHANGES)):
        if not data:
            return rng.choice(others)
        at = rng.randrange(len(data))
        end = min(len(data), at + rng.choice((1, 2, 4, 8, 64)))
        kind = rng.choice(("bit", "byte", "field", "cut", "removed", "repeated", "inserted", "spliced"))
        if kind == "bit":
            new = bytes([data[at] ^ 1 << rng.randrange(8)])
            data = data[:at] + new + data[at + 1 :]
        elif kind == "byte":
            data = data[:at] + bytes([rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))]) + data[at + 1 :]
        elif kind == "field":
            field = rng.choice((b"\xff", b"\x00", b"\x7f")) * 4
            data = data[:at] + field + data[at + 4 :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "removed":
            data = data[:at] + data[end:]
        elif kind == "repeated":
            data = data[:at] + data[at:end] * rng.choice((2, 3, 100)) + data[end:]
        elif kind == "inserted":
            data = data[:at] + rng.randbytes(end - at) + data[at:]
        else:
            other = rng.choice(others)
            data = data[:at] + other[rng.randrange(len(other) + 1) :]
    return data


def outcome(reader: Reader, data: bytes) -> tuple[str, str]:
    """What a reader does with an input: accepted, refused, wrong or hung; and what is wrong with it."""
    err = io.StringIO()
    try:
        with limited(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            right = reader.read(data)
    except reader.refusals:
        return "refused", ""
    except HangsError:
        return "hung", traceback.format_exc()
    except BaseException:
        return "wrong", traceback.format_exc()
    return ("accepted", "") if right else ("wrong", f"read as something else; stderr: {err.getvalue()[-500:]}")


def fuzz(reader: Reader, inputs: int, seed: int, keep: Path, show: Callable[[str], None]) -> Counter[str]:
    """Read so many changed inputs, the seeds among them; wrong and hanging ones are kept as files.

    Args:
        reader: the reader.
        inputs: how many inputs.
        seed: of the changes.
        keep: the folder for inputs that show a fault.
        show: prints a line for each of those.

    Returns:
        How many were accepted, refused, wrong and hung.
    """
    rng, counts = random.Random(f"{reader.name} {seed}"), Counter()
    small = tuple(data for data in reader.seeds if len(data) <= LARGEST_CHANGED)
    for number in range(inputs):
        data = reader.seeds[number] if number < len(reader.seeds) else changed(rng.choice(small), small, rng)
        result, reason = outcome(reader, data)
        counts[result] += 1
        if result in ("wrong", "hung"):
            path = keep / f"{reader.name.replace(' ', '_')}-{seed}-{number}"
            path.write_bytes(data)
            show(f"{reader.name}, input {number}: {result}, kept as {path}\n{reason}")
    return counts
