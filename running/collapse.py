"""Noticing that the generator collapses: it knows held-out sequences less and less, or writes with few tokens."""

from __future__ import annotations

from collections.abc import Mapping

RISE = 0.5  # nats per token that NLL_test may rise above its lowest value
SHARE = 1 / 3  # of the tokens that as many real sequences use
EPOCHS_WITHOUT_REWARD = 50  # in a row, until it is said


class CollapseWatch:
    """Looks at every evaluation and at the rewards of every epoch; warns once of a collapse, and when rewards have vanished.

    Attributes:
        lowest: the lowest NLL_test since the end of the pre-training, in nats per token.
        warned: whether it has warned of a collapse.
        without_reward: adversarial epochs up to now, in a row, whose rewards had vanished.
    """

    def __init__(self, lowest: float | None = None, warned: bool = False, without_reward: int = 0):
        self.lowest = lowest
        self.warned = warned
        self.without_reward = without_reward

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

    def rewarded(self, vanished: bool) -> str | None:
        """The warning that an adversarial epoch gives, whose rewards had vanished or not (`rewards.has_vanished`), or None."""
        self.without_reward = self.without_reward + 1 if vanished else 0
        if self.without_reward != EPOCHS_WITHOUT_REWARD:
            return None
        return (
            f"warning: D has won: for {EPOCHS_WITHOUT_REWARD} epochs it took all sequences of G for generated ones, "
            "so that its rewards teach G nothing any more"
        )

    def before(self, measured: Mapping[str, float]) -> None:
        """Take NLL_test of the pre-training so far as the lowest: an overfit generator is another matter."""
        self.lowest = measured.get("nll_test")

    def state_dict(self) -> dict[str, float | bool | None]:
        """For the checkpoint: the arguments of a watch that goes on."""
        return dict(vars(self))
