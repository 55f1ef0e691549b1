"""Lines to the strings that are their tokens, and back."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Callable

JOINER = {"words": " ", "chars": "", "ids": " "}
ZERO_WIDTH_JOINER = "\u200d"
EMOJI_MODIFIERS = "\U0001f3fb-\U0001f3ff"


def split_words(line: str) -> list[str]:
    """The words of a line, between blanks and tabs; nothing else is changed."""
    if "\t" in line:
        line = line.replace("\t", " ")
    return [word for word in line.split(" ") if word]


def split_ids(line: str) -> list[str]:
    """Whole numbers between blanks, without leading zeros; raises ValueError for anything else, and for negative ones."""
    numbers = []
    for word in split_words(line):
        if not (word.isascii() and word.isdigit()):
            raise ValueError(f"{word[:20]!r} is not a whole number of at least 0")
        numbers.append(word.lstrip("0") or "0")
    return numbers


def split_characters(line: str) -> list[str]:
    """The characters of a line, blanks included, as a reader counts them.

    A combining mark, a variation selector or an emoji's skin tone stays with its base, and so do emoji that are joined by a
    zero-width joiner. Flags (two regional indicators) and conjoining Hangul letters are split into code points.
    """
    if line.isascii():
        return list(line)
    return _characters().findall(line)


@functools.cache
def _characters() -> re.Pattern[str]:
    marks = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Mn", "Me", "Mc")]
    ranges, first, last = [], marks[0], marks[0]
    for mark in [*marks[1:], None]:
        if mark is not None and ord(mark) == ord(last) + 1:
            last = mark
            continue
        ranges.append(f"{re.escape(first)}-{re.escape(last)}")
        first = last = mark
    attached = "".join(ranges) + EMOJI_MODIFIERS
    return re.compile(f".(?:[{attached}]|{ZERO_WIDTH_JOINER}.?)*", re.DOTALL)


SPLITTERS: dict[str, Callable[[str], list[str]]] = {"words": split_words, "chars": split_characters, "ids": split_ids}
