"""Random streams by seed and purpose."""

import torch

from support.random_streams import stream


def test_streams_differ_by_seed_and_purpose_and_repeat():
    draws = {key: torch.rand(4, generator=stream(*key)).tolist() for key in [(1, "a"), (1, "b"), (2, "a"), (1, "a", 1)]}
    assert len({tuple(d) for d in draws.values()}) == 4
    assert draws[1, "a"] == torch.rand(4, generator=stream(1, "a")).tolist()
