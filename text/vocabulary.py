"""The tokens of a corpus by number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from text import END, SPECIAL, UNKNOWN
from text.tokens import JOINER, SPLITTERS


class Vocabulary:
    """Numbers for the tokens of a kind of text.

    Args:
        kind: "words", "chars" or "ids".
        tokens: the tokens from number 2 on, most frequent first.
    """

    def __init__(self, kind: str, tokens: Sequence[str]):
        self.kind = kind
        self.tokens = [*SPECIAL, *tokens]
        self.numbers = {token: number for number, token in enumerate(tokens, start=len(SPECIAL))}

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, line: str) -> tuple[np.ndarray, list[str]]:
        """A line's token numbers, int64 (L,), and the tokens that the vocabulary lacks; raises ValueError for ids that are none."""
        tokens = SPLITTERS[self.kind](line)
        numbers = np.array([self.numbers.get(token, UNKNOWN) for token in tokens], dtype=np.int64)
        return numbers, [token for token in tokens if token not in self.numbers]

    def decode(self, numbers: Iterable[int]) -> str:
        """The line of token numbers, up to the first end token."""
        tokens = []
        for number in numbers:
            if number == END:
                break
            tokens.append(self.tokens[number])
        return JOINER[self.kind].join(tokens)

    def to_text(self) -> str:
        """A readable file: one token a line; line n holds token n − 1."""
        return "".join(f"{token}\n" for token in self.tokens)

    @classmethod
    def from_text(cls, kind: str, text: str) -> Vocabulary:
        """What `to_text` wrote; raises ValueError for anything else, also for other types."""
        if not (isinstance(kind, str) and kind in SPLITTERS and isinstance(text, str)):
            raise ValueError("not a vocabulary")
        tokens = text.split("\n")
        if tokens[: len(SPECIAL)] != list(SPECIAL) or tokens[-1] != "" or len(set(tokens)) != len(tokens):
            raise ValueError("not a vocabulary")
        return cls(kind, tokens[len(SPECIAL) : -1])
