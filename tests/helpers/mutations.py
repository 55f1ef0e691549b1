"""Checkpoints with one part changed into something else, and files with one bit flipped."""

import copy
import random

import torch

STRANGE = (
    *(None, True, 0, -1, 1, 3, 2**31, 2**62, -(2**62), 10**30, 0.5, -2.5, 1e308, float("nan"), float("inf")),
    *("", "x", "\udcff", "../../elsewhere", "a" * 5000, "-1", "pretrain_g"),
    *([], [[]], [0], [[1, 2]] * 3, {}, {"a": 1}, {1: 2}, {None: None}, (), (1, 2)),
)


def strange_tensors(like: torch.Tensor) -> list:
    """Tensors that a careless reader takes for this one."""
    found = [like.double() if like.dtype != torch.float64 else like.float(), like[:0] if like.dim() else like.reshape(1)]
    found += [torch.zeros(1, dtype=like.dtype), torch.zeros(1, dtype=like.dtype).expand(max(1, like.numel())).view(like.shape)]
    found += [like.reshape(-1)[:1].clone(), like.unsqueeze(0), like.to_sparse() if like.dim() else like]
    if like.is_floating_point():
        found += [torch.full_like(like, value) for value in (float("nan"), float("inf"), -1e30, 1e30)]
    else:
        found += [torch.full_like(like, value) for value in (100, 0)] + [like.bool()]
    return found


def places(value, path=()):
    """The paths to every part of nested dictionaries and lists."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def mutated(payload: dict, rng: random.Random) -> tuple[dict, str]:
    """A copy with one part replaced, removed, repeated or moved, and what was done."""
    result = copy.deepcopy(payload)
    *above, key = rng.choice(list(places(payload))[1:])
    parent = result
    for step in above:
        parent = parent[step]
    kind = rng.choice(["strange", "strange", "strange", "tensor", "removed", "other", "new key"])
    if kind == "removed":
        del parent[key]
    elif kind == "new key" and isinstance(parent, dict):
        parent[rng.choice(["x", 5, (1, 2)])] = parent[key]
    elif kind == "other":
        parent[key] = copy.deepcopy(rng.choice(list(payload.values())))
    elif isinstance(parent[key], torch.Tensor):
        parent[key] = rng.choice(strange_tensors(parent[key]))
    else:
        parent[key] = rng.choice(STRANGE)
    return result, f"{kind}: {'.'.join(map(str, [*above, key]))}"


def flipped(data: bytes, rng: random.Random) -> bytes:
    """The same with one bit flipped."""
    position = rng.randrange(len(data))
    return data[:position] + bytes([data[position] ^ 1 << rng.randrange(8)]) + data[position + 1 :]
