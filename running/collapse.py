"""Noticing that the generator collapses: it knows held-out sequences less and less, or writes with few tokens."""

from __future__ import annotations

from collections.abc import Mapping

RISE = 0.5  # nats per token that NLL_test may rise above its lowest value
SHARE = 1 / 3  # of the tokens that as many real sequences use


class CollapseWatch:
    """Looks at every evaluation and warns once.

    Attributes:
        lowest: the lowest NLL_test since the end of the pre-training, in nats per token.
        warned: whether it has warned.
    """

    def __init__(self, lowest: float | None = None, warned: bool = False):
        self.lowest = lowest
        self.warned = warned

    def look(self, measured: Mapping[str, float]) -> str | None:
        """The warning that an evaluation of the adversarial phase gives, or None."""
        nll, tokens, real = (measured.get(name) for name in ("nll_test", "distinct_tokens", "real_distinct_tokens"))
        reason = None
        if nll is not None:
            self.lowest = nll if self.lowest is None else min(self.lowest, nll)
            if nll > self.lowest + RISE:
                reason = f"NLL_test is {nll:.2f}, {nll - self.lowest:.2f} above its lowest value"
        if reason is None and real is not None and tokens < SHARE * real:
            reason = f"the samples use {tokens:.0f} different tokens, as many real sequences {real:.0f}"
        if reason is None or self.warned:
            return None
        self.warned = True
        return f"warning: the generator collapses: {reason}"

    def before(self, measured: Mapping[str, float]) -> None:
        """Take NLL_test of the pre-training so far as the lowest: an overfit generator is another matter."""
        self.lowest = measured.get("nll_test")

    def state_dict(self) -> dict[str, float | bool | None]:
        """For the checkpoint: the arguments of a watch that goes on."""
        return {"lowest": self.lowest, "warned": self.warned}
