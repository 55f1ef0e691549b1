"""Named random streams: a draw from one never shifts another."""

from __future__ import annotations

import hashlib

import torch


def stream(seed: int, *purpose: object) -> torch.Generator:
    """The CPU random stream of a seed and a purpose: the same numbers on every device, whatever other streams have drawn."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
