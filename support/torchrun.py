"""Whether this process is one of several that `torchrun` has started, from the environment. Does not load torch."""

from __future__ import annotations

import os

VARIABLES = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def number_of_ranks() -> int:
    """How many processes the run has."""
    return int(os.environ["WORLD_SIZE"]) if os.environ.keys() >= VARIABLES else 1


def is_first() -> bool:
    """Whether this process writes the run's files and lines; all others are silent."""
    return number_of_ranks() == 1 or os.environ["RANK"] == "0"


def local_rank() -> int:
    """Which of the run's processes on this machine this is."""
    return int(os.environ["LOCAL_RANK"]) if number_of_ranks() > 1 else 0
