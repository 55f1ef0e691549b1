"""Exact draws from softmax(h Wᵀ + b), one uniform number per draw.

Sampling a token is the inner loop of SeqGAN: one update at the default sizes draws some 100,000 tokens for its roll-outs.
`torch.multinomial` and the Gumbel trick need V random numbers a row. Inverting the cumulative distribution needs one, but a
flat float32 cumulative sum over V tokens is biased: on peaked rows some tokens can never be drawn. So the sum has two levels:
the V weights fall into about √V blocks, the float64 cumulative sum over block sums picks a block, and a second one picks the
token inside it.

Shapes: M rows, K draws a row, H hidden units, V tokens, S tokens a block, G blocks (S·G ≥ V, the surplus weighs nothing).
Block g holds the tokens g, g + G, g + 2G, ..., side by side in memory.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from support.threads import on_cpu, scratch

# Logits held at a time: few enough for a CPU's cache, enough to keep a GPU busy.
CHUNK_ELEMENTS = {"cpu": 1_280_000, "cuda": 64_000_000}
# The same for drawing, which writes them into memory used before.
DRAW_ELEMENTS = {"cpu": 2_600_000, "cuda": 64_000_000}
MOST_ROWS = {"cpu": 2048, "cuda": 2**31}  # of a chunk of draws, where V is small
PROBES = 256  # tokens whose logits estimate a row's largest one


def chunk_rows(vocab_size: int, device: torch.device) -> int:
    """How many rows of V logits to work on at a time."""
    return max(1, CHUNK_ELEMENTS[device.type] // vocab_size)


class SoftmaxSampler:
    """Draws tokens given hidden states, for one fixed output layer. Several threads may use it at once.

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
        self.vocab_size, hidden_dim = weight.shape
        self.block_size = math.ceil(math.sqrt(self.vocab_size))  # S
        self.num_blocks = math.ceil(self.vocab_size / self.block_size)  # G
        columns = self.block_size * self.num_blocks
        device = weight.device.type
        self.max_rows = min(MOST_ROWS[device], max(1, DRAW_ELEMENTS[device] // columns))
        # Two more rows, met by a 1 and by a shift in the hidden state. On a CPU a bias inside the product halves its time.
        matrix = weight.new_zeros(hidden_dim + 2, columns)
        matrix[:hidden_dim, : self.vocab_size] = weight.detach().t() / temperature
        matrix[hidden_dim, : self.vocab_size] = bias.detach() / temperature
        matrix[: hidden_dim + 1, self.vocab_size :] = matrix[: hidden_dim + 1, :1]  # any real logit: never above the row's largest
        matrix[hidden_dim + 1].fill_(-1)
        self.matrix = matrix.view(-1, self.block_size, self.num_blocks).transpose(1, 2).reshape(-1, columns)
        self.bound, self.probes = -1.0, self.matrix  # a GPU would have to wait for the value of a bound
        if on_cpu(weight.device):
            norms = self.matrix[:-1].norm(dim=0)
            self.bound = norms.max().item()
            self.probes = self.matrix[:, norms.topk(min(PROBES, columns)).indices].contiguous()  # (H + 2, P)

    def padded(self, hidden: Tensor) -> Tensor:
        """Hidden states with the two columns that the product needs: (M, H) -> (M, H + 2)."""
        rows = torch.nn.functional.pad(hidden, (0, 2), value=0.0)
        rows[:, -2].fill_(1)
        return rows

    def draw(self, hidden: Tensor, uniforms: Tensor) -> Tensor:
        """One token for each uniform number: hidden (M, H), uniforms (M,) or (M, K) in [0, 1) float64 -> int64 like uniforms."""
        return self.draw_padded(self.padded(hidden), uniforms)

    def draw_padded(self, rows: Tensor, uniforms: Tensor) -> Tensor:
        """The same from `padded` hidden states (M, H + 2), whose last column is for the draw and 0 between draws."""
        tokens = []
        for part, numbers in zip(rows.split(self.max_rows), uniforms.view(len(rows), -1).split(self.max_rows), strict=True):
            blocks = self.buffer(len(part))
            sums = softmax_weights(part, self.matrix, self.probes, self.bound, self.vocab_size, blocks)
            tokens.append(draw_from_blocks(blocks, sums, numbers, self.vocab_size))
        return torch.cat(tokens).view(uniforms.shape)

    def buffer(self, num: int) -> Tensor:
        """This thread's memory for the weights of some rows: (M, G, S)."""
        return scratch("weights", (num, self.num_blocks, self.block_size), self.matrix)


# The two functions below also run as TorchScript: their constants stand inside, and their arguments are plain.


def softmax_weights(rows: Tensor, matrix: Tensor, probes: Tensor, bound: float, vocab_size: int, blocks: Tensor) -> Tensor:
    """Unnormalised probabilities of every token, each row relative to a number of its own.

    Args:
        rows: padded hidden states, (M, H + 2).
        matrix, probes, bound, vocab_size: those of a SoftmaxSampler. A bound below 0 means not to look at values, as on a GPU.
        blocks: where to write the weights, (M, G, S); the columns past V become 0.

    Returns:
        The float32 sums over S, (M, G).
    """
    # exp of less than about -87 is a denormal float32, which costs a CPU 10 to 15 times the time. A token 80 below the row's
    # largest logit has probability under 2e-35: counting all such tokens as 80 below moves no probability that float32 can see.
    lowest = -80.0
    safe = 60.0  # exp of logits within ±60 neither overflows nor leaves the normal numbers, and V of them still have a sum
    largest_sum = 1e37  # that is trusted after a shift by an estimate; float32 ends at 3.4e38
    num_blocks, block_size = blocks.shape[1], blocks.shape[2]
    surplus = num_blocks * block_size - vocab_size  # at most G: the last tokens of the last blocks
    weights = blocks.view(blocks.shape[0], num_blocks * block_size)
    shift = rows.narrow(1, rows.shape[1] - 1, 1)  # (M, 1)
    exact = bound < 0
    if not exact:
        # The norm of (h, 1) times the largest norm of (w, b) bounds every logit; mostly it allows exp as it is.
        shifted = float(torch.linalg.vector_norm(rows, dim=1).max()) * bound > safe
        if shifted:  # by the largest of some logits: not above the row's largest, and seldom far below
            shift.copy_(torch.mm(rows, probes).amax(1, keepdim=True))
        torch.mm(rows, matrix, out=weights)
        if shifted:
            weights.clamp_(min=lowest)
            shift.zero_()
        weights.exp_()
        exact = shifted and not bool(blocks.sum(dim=2).max() < largest_sum)  # too low for some row
    if exact:
        torch.mm(rows, matrix, out=weights)
        weights.sub_(weights.amax(1, keepdim=True)).clamp_(min=lowest).exp_()
    if surplus > 0:
        blocks.select(2, block_size - 1).narrow(1, num_blocks - surplus, surplus).zero_()
    return blocks.sum(dim=2)


def draw_from_blocks(blocks: Tensor, sums: Tensor, uniforms: Tensor, vocab_size: int) -> Tensor:
    """Inverse of the two-level cumulative sum.

    Args:
        blocks: non-negative float32 weights, (M, G, S), with a positive sum in every row; token s·G + g is blocks[:, g, s].
        sums: their float32 sums over S, (M, G).
        uniforms: float64 in [0, 1), (M, K).
        vocab_size: V.

    Returns:
        Token numbers, int64 (M, K). A token of weight 0 is never drawn.
    """
    below_one = 1 - 2.0**-52  # a product of this, a number of at most 1 and x > 0 is rounded to less than x
    num, num_blocks, block_size = blocks.shape[0], blocks.shape[1], blocks.shape[2]
    totals = torch.cumsum(sums, 1, dtype=torch.float64)  # (M, G)
    # Rounding may carry u·total to the total itself, where no block lies any more: stay below it.
    target = totals.narrow(1, num_blocks - 1, 1).mul(below_one) * uniforms  # (M, K)
    # The first block whose total exceeds the target, (M, K). Weights that are not numbers end in some token, not in none.
    block = torch.searchsorted(totals, target, right=True).clamp_(max=num_blocks - 1)
    width = sums.gather(1, block)  # (M, K), positive
    inside = target.sub_(totals.gather(1, block)).add_(width).clamp_(min=0.0)  # what is left once the earlier blocks are taken off

    first = torch.arange(0, num * num_blocks, num_blocks, device=blocks.device).unsqueeze(1)  # (M, 1)
    chosen = blocks.view(-1, block_size).index_select(0, first.add(block).view(-1))  # (M·K, S)
    inner = torch.cumsum(chosen, 1, dtype=torch.float64)
    # The float32 sum of the block and this one differ by rounding: the share of the one is the share of the other.
    share = inside.div_(width).clamp_(max=1.0).view(-1, 1).mul_(inner.narrow(1, block_size - 1, 1)).mul_(below_one)  # (M·K, 1)
    position = torch.searchsorted(inner, share, right=True).view(block.shape)
    return position.mul_(num_blocks).add_(block).clamp_(max=vocab_size - 1)
