"""Declaring flags: their types, and a parser that reports errors in one line. Does not load torch."""

from __future__ import annotations

import argparse
import enum
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from support.one_line import one_line
from support.torchrun import is_first

LARGEST = 2**31 - 1  # of sizes and counts
LARGEST_SEED = 2**63 - 1


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports an error in one line, without the usage, and refuses text that is not UTF-8."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None) -> argparse.Namespace:
        """As ArgumentParser's."""
        words = [word.partition("=") for word in (sys.argv[1:] if args is None else args)]
        for flag, _, value in words:
            if flag.startswith("--") and value == "--":  # argparse would drop it and make the value an empty list
                self.error(f"argument {flag}: expected one argument")
        found = super().parse_args(args, namespace)
        flags = {flag for flag, _, _ in words}
        for name, value in vars(found).items():
            for text in _texts(value):
                if reason := unreadable(text):
                    self.error(f"argument {f'--{name}' if f'--{name}' in flags else name}: {reason}")
        return found

    def print_help(self, file: IO[str] | None = None) -> None:
        """As ArgumentParser's, from the first of several processes."""
        if is_first():
            super().print_help(file)

    def error(self, message: str) -> NoReturn:
        """Print one line on stderr and exit with status 2."""
        if is_first():
            print(f"error: {one_line(message)} (see --help)", file=sys.stderr)
        sys.exit(2)


def _texts(value: object) -> Iterator[str]:
    """The texts and paths in a flag's value, which may be a list of lists."""
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, (str, Path)):
        yield str(value)


def unreadable(text: str) -> str | None:
    """Why a word of the command line is no proper text, or None: Python keeps bytes that it can't decode as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raw = os.fsencode(text)
        try:
            raw.decode()
        except UnicodeDecodeError:
            return f"'{raw.decode(errors='backslashreplace')}' is not UTF-8 text"
        shown = raw.decode("ascii", errors="backslashreplace")
        return f"the encoding of this locale can't represent '{shown}': set PYTHONUTF8=1, or a locale with UTF-8"
    return None


def whole(minimum: int, maximum: int = LARGEST) -> Callable[[str], int]:
    """An argparse type: a whole number from `minimum` to `maximum`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, not {value}")
        if value > maximum:
            raise argparse.ArgumentTypeError(f"must be at most {maximum}, not {text if len(text) < 30 else f'{text[:20]}...'}")
        return value

    return parse


def real(low: float, high: float = math.inf, low_open: bool = False) -> Callable[[str], float]:
    """An argparse type: a finite number from low to high; `low_open` excludes low itself."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not math.isfinite(value) or not low <= value <= high or (low_open and value == low):
            bounds = f"above {low:g}" if low_open else f"at least {low:g}"
            raise argparse.ArgumentTypeError(f"must be {bounds}{f' and at most {high:g}' if high < math.inf else ''}, not {text}")
        return value

    return parse


def boolean(text: str) -> bool:
    """An argparse type: True or False as words or as 1 and 0."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")


def boolean_or_auto(text: str) -> bool | str:
    """An argparse type: the same, or auto."""
    if text.lower() == "auto":
        return "auto"
    try:
        return boolean(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error} nor auto") from None


class StartFrom(enum.Enum):
    """What --start_from does with a setting of the other run."""

    OWN = "not taken over"
    INHERITED = "taken over, unless the flag is given"
    FIXED = "taken over; another value is refused"
    FIXED_WITH_D = "FIXED where the other run has trained D, else INHERITED"


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One setting of a run; only the presets that change it are elsewhere.

    Attributes:
        name: without the dashes.
        group: its heading in --help.
        type: parses its value; a tuple lists the choices.
        default: its value in --preset default.
        help: one sentence.
        resumable: whether a resumed run may change it.
        compared: whether runs that differ in it are different experiments.
        start_from: what --start_from does with it.
        requires: (flag, values): without one of these values it has no effect, and is refused where it is given.
    """

    name: str
    group: str
    type: Callable[[str], Any] | tuple[str, ...]
    default: Any
    help: str
    resumable: bool = False
    compared: bool = True
    start_from: StartFrom = StartFrom.OWN
    requires: tuple[str, tuple[str, ...]] | None = None

    def add_to(self, group: Any, presets: str) -> None:
        """Add it to an argparse group; `presets` is appended to its help."""
        text = self.help.replace("%", "%%")
        if self.default is not None:
            text += f" (default: {self.default})"
        text += presets
        if isinstance(self.type, tuple):
            group.add_argument(f"--{self.name}", choices=self.type, help=text)
        elif self.type in (boolean, boolean_or_auto):
            values = "True|False" if self.type is boolean else "True|False|auto"
            group.add_argument(f"--{self.name}", type=self.type, nargs="?", const=True, metavar=values, help=text)
        else:
            group.add_argument(f"--{self.name}", type=self.type, metavar=self.name.upper(), help=text)
