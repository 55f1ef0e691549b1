"""Token sources. A data set gives training batches, real sequences for the discriminator, held-out sequences, and a rendering.

Every source gives int64 tokens (B, T). Training and held-out sequences never mix: the oracle draws them from different
random streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from generator import Generator
from metrics import mean_nll


class OracleData:
    """Sequences from the oracle: the synthetic experiment of the paper.

    Args:
        oracle: G_oracle.
        seq_len: T.
        train_size: size of the fixed training set; 0 draws every batch fresh from the oracle.
        train_rng: the random stream of training sequences and of their order.
        held_out: sequences for NLL_test, (M, T), from another stream.
        train: the fixed training set (train_size, T) of an interrupted run; drawn here if None.
    """

    def __init__(
        self,
        oracle: Generator,
        seq_len: int,
        train_size: int,
        train_rng: torch.Generator,
        held_out: Tensor,
        train: Tensor | None = None,
    ):
        self.oracle = oracle
        self.vocab_size = oracle.vocab_size
        self.seq_len = seq_len
        self.train_rng = train_rng
        self.held_out = held_out
        if train is None and train_size:
            train = oracle.sample(train_size, seq_len, train_rng)
        self.train = train

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """The (B, T) batches of one generator epoch: one fresh batch, or a shuffled pass that leaves out the partial batch."""
        if self.train is None:
            yield self.oracle.sample(batch_size, self.seq_len, self.train_rng)
            return
        order = torch.randperm(len(self.train), generator=self.train_rng).to(self.train.device)
        for index in order.split(batch_size)[: len(order) // batch_size]:
            yield self.train[index]

    def real(self, batch_size: int) -> Tensor:
        """Real sequences for a round of discriminator training: the whole training set, or one fresh batch."""
        if self.train is not None:
            return self.train
        return self.oracle.sample(batch_size, self.seq_len, self.train_rng)

    def nll_oracle(self, tokens: Tensor) -> tuple[float, float]:
        """NLL_oracle of generated sequences (M, T) and its standard error, in nats per token."""
        return mean_nll(self.oracle, tokens)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must not draw anew: oracle, training set and held-out sequences."""
        return {"oracle": self.oracle.state_dict(), "held_out": self.held_out, "train": self.train}


def token_lines(tokens: Tensor) -> str:
    """Sequences as text, one a line, token numbers separated by blanks."""
    return "".join(" ".join(map(str, row)) + "\n" for row in tokens.tolist())
