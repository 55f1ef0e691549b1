"""The oracle G_oracle: an LSTM with fixed random weights that stands for the real world (paper, "Synthetic Data Experiments").

Because its density is known, the quality of generated sequences can be measured exactly, up to sampling error.
"""

from __future__ import annotations

import torch

from generator import Generator

# Standard deviations of the oracle's weights. "glorot" is the command line's original, "normal" the authors' code.
ORACLE_INIT = {
    "glorot": dict(embedding_std=1.0, output_std=1.0, output_bias_std=1.0, lstm_std=None),
    "normal": dict(embedding_std=1.0, output_std=1.0, output_bias_std=1.0, lstm_std=1.0),
}


def make_oracle(vocab_size: int, emb_dim: int, hidden_dim: int, init: str, rng: torch.Generator) -> Generator:
    """A random oracle, not trainable. `init` is a key of ORACLE_INIT; `rng` a CPU random stream."""
    oracle = Generator(vocab_size, emb_dim, hidden_dim).initialise(rng, **ORACLE_INIT[init])
    return oracle.requires_grad_(False)
