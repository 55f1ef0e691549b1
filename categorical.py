"""Exact draws from softmax(h Wᵀ + b), one uniform number per draw.

Sampling a token is the inner loop of SeqGAN: one update at the default sizes draws some 100,000 tokens for its roll-outs.
`torch.multinomial` and the Gumbel trick need V random numbers a row. Inverting the cumulative distribution needs one, but a
flat float32 cumulative sum over V tokens is biased: on peaked rows some tokens can never be drawn. So the sum has two levels:
the V weights fall into about √V blocks, the float64 cumulative sum over block sums picks a block, and a second one picks the
token inside it.

Shapes: M rows, K draws a row, H hidden units, V tokens, S tokens a block, G blocks (S·G ≥ V, the surplus weighs nothing).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# exp of less than about -87 is a denormal float32, which costs a CPU 10 to 15 times the time. A token 80 below the row's
# largest logit has probability under 2e-35, so counting all such tokens as 80 below moves no probability that float32 can see.
LOWEST_LOGIT = -80.0

# Logits held at a time: small enough for a CPU's cache, large enough to keep a GPU busy.
CHUNK_ELEMENTS = {"cpu": 1_280_000, "cuda": 64_000_000}


def chunk_rows(vocab_size: int, device: torch.device) -> int:
    """How many rows of V logits to work on at a time."""
    return max(1, CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cpu"]) // vocab_size)


class SoftmaxSampler:
    """Draws tokens given hidden states, for one fixed output layer. Holds a reused buffer: one sampler per loop.

    Args:
        weight: output weights W, (V, H).
        bias: output bias b, (V,).
        temperature: the logits are divided by it; 1 samples the model itself.

    Raises:
        ValueError: the temperature is not a positive number.
    """

    def __init__(self, weight: Tensor, bias: Tensor, temperature: float = 1.0):
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be a positive number, not {temperature}")
        # The bias as one more row, met by a constant 1 in the hidden state, halves the time of the product on a CPU.
        self.matrix = torch.cat([weight.detach().t(), bias.detach()[None]]) / temperature  # (H + 1, V)
        self.vocab_size = weight.shape[0]
        self.block_size = math.ceil(math.sqrt(self.vocab_size))  # S
        self.num_blocks = math.ceil(self.vocab_size / self.block_size)  # G
        self.max_rows = chunk_rows(self.block_size * self.num_blocks, weight.device)
        self.buffer = weight.new_zeros(0, self.block_size * self.num_blocks)

    def draw(self, hidden: Tensor, uniforms: Tensor) -> Tensor:
        """One token for each uniform number: hidden (M, H), uniforms (M,) or (M, K) in [0, 1) float64 -> int64 like uniforms."""
        flat = uniforms.view(len(hidden), -1)  # (M, K)
        rows = min(self.max_rows, len(hidden))
        if len(self.buffer) < rows:
            self.buffer = hidden.new_zeros(rows, self.buffer.shape[1])
        tokens = [
            draw_from_weights(self._weights(h), u, self.block_size, self.num_blocks)
            for h, u in zip(hidden.split(self.max_rows), flat.split(self.max_rows), strict=True)
        ]
        return torch.cat(tokens).view(uniforms.shape)

    def _weights(self, hidden: Tensor) -> Tensor:
        """Unnormalised probabilities in the buffer, the columns past V left at zero: (M, H) -> (M, S·G)."""
        weights = self.buffer[: len(hidden)]
        logits = weights[:, : self.vocab_size]  # (M, V)
        torch.mm(torch.nn.functional.pad(hidden, (0, 1), value=1.0), self.matrix, out=logits)
        logits.sub_(logits.amax(dim=1, keepdim=True)).clamp_(min=LOWEST_LOGIT).exp_()
        return weights


def draw_from_weights(weights: Tensor, uniforms: Tensor, block_size: int, num_blocks: int) -> Tensor:
    """Inverse of the two-level cumulative sum.

    Block g holds the tokens g, g + G, g + 2G, ...: any partition serves, and this one sums along the faster axis.

    Args:
        weights: non-negative float32, (M, S·G), with a positive sum in every row.
        uniforms: float64 in [0, 1), (M, K).
        block_size: S.
        num_blocks: G.

    Returns:
        Token numbers, int64 (M, K). A token of weight 0 is never drawn.
    """
    blocks = weights.view(-1, block_size, num_blocks)  # (M, S, G)
    block_sums = blocks.sum(dim=1).double()  # (M, G)
    totals = block_sums.cumsum(dim=1)  # (M, G)
    # Rounding may carry u·total to the total itself, where no block lies any more: stay below it.
    target = _below(uniforms * totals[:, -1:], totals[:, -1:])  # (M, K)
    block = torch.searchsorted(totals, target, right=True).clamp_(max=num_blocks - 1)  # first block whose total exceeds it
    chosen_sum = block_sums.gather(1, block)  # (M, K)
    inside = target - (totals.gather(1, block) - chosen_sum)  # what is left once the earlier blocks are taken off

    rows = torch.arange(len(weights), device=weights.device)[:, None]  # (M, 1)
    inner = blocks.transpose(1, 2)[rows, block].double().cumsum(dim=2)  # (M, K, S)
    inner_total = inner[:, :, -1]  # (M, K)
    # The float32 block sum and the float64 one differ by rounding; scaling keeps the shares inside the block exact.
    inside = _below(inside.clamp_(min=0) * (inner_total / chosen_sum), inner_total)
    position = (inner <= inside[:, :, None]).sum(dim=2).clamp_(max=block_size - 1)  # (M, K)
    return position * num_blocks + block


def _below(value: Tensor, limit: Tensor) -> Tensor:
    """The value, or the next smaller number than the limit where it reaches the limit."""
    return torch.minimum(value, torch.nextafter(limit, torch.zeros_like(limit)))
