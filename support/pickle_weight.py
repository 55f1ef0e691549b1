"""How large what a pickle builds is when it is written out, found without building it.

A few bytes can build a tuple of two references to one tuple, of two references to one tuple, and so on: 50 such steps fit in 200
bytes, and whatever looks at the result, a hash for a dictionary's key first of all, takes 2⁵⁰ steps.
"""

from __future__ import annotations

import pickletools
from typing import Any

OBJECTS = 10**7  # more than a checkpoint has


class TooHeavyError(ValueError):
    """A pickle that builds more than it may, or that is none."""


def check_weight(data: bytes, most: int = OBJECTS) -> None:
    """Follow the operations of a pickle with the weight of every object instead of the object.

    Raises:
        TooHeavyError: an object's weight, the number of objects in it with repetitions, is over `most`, or the pickle is broken.
    """
    stack: list[int | None] = []  # weights, and None for a mark
    memo: dict[object, int | None] = {}
    try:
        for operation, argument, _ in pickletools.genops(data):
            name = operation.name
            if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[len(memo) if argument is None else int(argument)] = stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[int(argument)])
            elif name in ("MARK", "DUP"):
                stack.append(None if name == "MARK" else stack[-1])
            else:
                weight = 1 + sum(_taken(stack, operation.stack_before))
                if weight > most:
                    raise TooHeavyError("it repeats itself too often")
                stack += [weight] * len(operation.stack_after)
    except TooHeavyError:
        raise
    except Exception as error:  # a broken pickle can make genops raise anything
        raise TooHeavyError("a broken pickle") from error


def _taken(stack: list[int | None], asked: list[Any]) -> list[int]:
    """Takes from the stack what an operation asks for: the weights of the objects."""
    taken = []
    if pickletools.markobject in asked:
        while (weight := stack.pop()) is not None:
            taken.append(weight)
        asked = asked[: asked.index(pickletools.markobject)]
    return taken + [weight for weight in (stack.pop() for _ in asked) if weight is not None]
