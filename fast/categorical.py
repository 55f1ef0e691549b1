"""Exact draws from softmax(h Wᵀ + b), one uniform number per draw.

Sampling a token is the inner loop of SeqGAN: one update at the default sizes draws some 100,000 tokens for its roll-outs.
`torch.multinomial` and the Gumbel trick need V random numbers a row. Inverting the cumulative distribution needs one, but a
flat float32 cumulative sum over V tokens is biased: on peaked rows some tokens can never be drawn. So the sum has two levels:
the V weights are grouped in about √V blocks, the float64 cumulative sum over block sums picks a block, and a second one picks
the token inside it.

Shapes: M rows, K draws a row, H hidden units, V tokens, S tokens a block, G blocks (S·G ≥ V, the surplus has weight 0).
Block g holds the tokens g, g + G, g + 2G, ..., side by side in memory.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fast.kernel import NativeLayer
from fast.native import gpu_kernels_for, kernel_for
from support.threads import on_cpu, scratch, second_level_cache

# Logits computed at a time: few enough for a CPU's cache, enough to keep a GPU busy.
CHUNK_ELEMENTS = {"cpu": 1_280_000, "cuda": 64_000_000}
# The same for drawing by torch, which writes them into a reused buffer. Smaller chunks suit CPUs with a small second-level cache.
LARGE_CACHE = 2**20  # bytes
DRAW_ELEMENTS = {"cpu": 1_300_000 if 0 < second_level_cache() < LARGE_CACHE else 2_600_000, "cuda": 64_000_000}
MAX_ROWS = {"cpu": 2048, "cuda": 2**31}  # of a chunk of draws, where V is small
PROBES = 256  # tokens whose logits estimate a row's largest one


def chunk_rows(vocab_size: int, device: torch.device) -> int:
    """How many rows of V logits to compute at a time."""
    return max(1, CHUNK_ELEMENTS[device.type] // vocab_size)


def block_sizes(vocab_size: int) -> tuple[int, int]:
    """S tokens a block, and G blocks."""
    block_size = math.ceil(math.sqrt(vocab_size))
    return block_size, math.ceil(vocab_size / block_size)


@functools.cache  # a recorded CUDA graph reads it where it is
def token_order(vocab_size: int, device: torch.device) -> Tensor:
    """The tokens block by block, (V,), which is their order in the cumulative distribution."""
    block_size, num_blocks = block_sizes(vocab_size)
    order = torch.arange(block_size * num_blocks).view(block_size, -1).t().flatten()
    return order[order < vocab_size].to(device)


class OutputLayer(NamedTuple):
    """An output layer, laid out for drawing.

    Its input has H + 2 columns: h, a constant 1 for the bias, and a number that is subtracted from all logits of the row.

    Attributes:
        matrix: (H + 2, G·S), its columns in the order of the blocks.
        probes: the columns of `matrix` with the largest norms, (H + 2, P).
        bound: the largest norm of a column; −1 on a GPU, which would have to wait for the value.
        vocab_size: V.
    """

    matrix: Tensor
    probes: Tensor
    bound: float
    vocab_size: int


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
        vocab_size = len(weight)
        self.block_size, self.num_blocks = block_sizes(vocab_size)
        device = weight.device.type
        gpu = gpu_kernels_for(weight)
        self.max_rows = min(MAX_ROWS[device], max(1, DRAW_ELEMENTS[device] // (self.block_size * self.num_blocks)))
        kernel = kernel_for(weight)
        self.layer: Any  # an OutputLayer, a NativeLayer or a TritonLayer
        if kernel is not None:
            self.layer = NativeLayer(kernel, weight, bias, temperature, token_order(vocab_size, weight.device))
        elif gpu is not None and vocab_size <= gpu.MOST_TOKENS and weight.shape[1] <= gpu.MOST_HIDDEN:
            self.layer = gpu.TritonLayer(weight, bias, temperature, token_order(vocab_size, weight.device))
            self.max_rows = min(MAX_ROWS[device], max(1, DRAW_ELEMENTS[device] // self.layer.groups))
        else:
            self.layer = lay_out(weight, bias, temperature, self.block_size, self.num_blocks)

    def draw(self, hidden: Tensor, uniforms: Tensor) -> Tensor:
        """One token for each uniform number: hidden (M, H), uniforms (M,) or (M, K) in [0, 1) float64 -> int64 like uniforms."""
        rows = torch.nn.functional.pad(hidden, (0, 2), value=0.0)  # (M, H + 2)
        rows[:, -2].fill_(1)
        return self.draw_padded(rows, uniforms)

    def draw_padded(self, rows: Tensor, uniforms: Tensor) -> Tensor:
        """The same for rows (M, H + 2) with the two columns of `OutputLayer`; the last one is 0 before and after the call."""
        if not isinstance(self.layer, OutputLayer):
            return self.layer.draw(rows, uniforms)
        tokens = []
        for part, numbers in zip(rows.split(self.max_rows), uniforms.view(len(rows), -1).split(self.max_rows), strict=True):
            blocks = self.weights_buffer(len(part))
            sums = softmax_weights(part, self.layer, blocks)
            tokens.append(draw_from_blocks(blocks, sums, numbers, self.layer.vocab_size))
        return torch.cat(tokens).view(uniforms.shape)

    def weights_buffer(self, num: int) -> Tensor:
        """This thread's buffer for torch's weights of `num` rows: (num, G, S)."""
        return scratch("weights", (num, self.num_blocks, self.block_size), self.layer.matrix)


def lay_out(weight: Tensor, bias: Tensor, temperature: float, block_size: int, num_blocks: int) -> OutputLayer:
    """The output layer of weights (V, H) and a bias (V,) for blocks of S tokens."""
    vocab_size, hidden_dim = weight.shape
    columns = block_size * num_blocks
    matrix = weight.new_zeros(hidden_dim + 2, columns)
    matrix[:hidden_dim, :vocab_size] = weight.detach().t() / temperature
    matrix[hidden_dim, :vocab_size] = bias.detach() / temperature  # a separate addition would take twice as long on a CPU
    matrix[: hidden_dim + 1, vocab_size:] = matrix[
        : hidden_dim + 1, :1
    ]  # surplus columns copy token 0, so they never raise the maximum
    matrix[hidden_dim + 1].fill_(-1)
    matrix = matrix.view(-1, block_size, num_blocks).transpose(1, 2).reshape(-1, columns)
    bound, probes = -1.0, matrix
    if on_cpu(weight.device):
        norms = matrix[:-1].norm(dim=0)
        bound = norms.max().item()
        probes = matrix[:, norms.topk(min(PROBES, columns)).indices].contiguous()  # (H + 2, P)
    return OutputLayer(matrix, probes, bound, vocab_size)


# The two functions below also run as TorchScript: constants stand inside them, arguments are tensors, numbers and NamedTuples.


def softmax_weights(rows: Tensor, layer: OutputLayer, blocks: Tensor) -> Tensor:
    """Unnormalised probabilities of every token; each row has a scale of its own.

    Args:
        rows: hidden states with the two columns of `OutputLayer`, (M, H + 2).
        layer: the output layer.
        blocks: receives the weights, (M, G, S); the columns past V become 0.

    Returns:
        The float32 sums over S, (M, G).
    """
    # exp of less than about -87 is a denormal float32, which takes a CPU 10 to 15 times as long. A token whose logit is 80 below
    # the row's largest has a probability below 2e-35: raising all such logits to 80 below changes no float32 probability.
    lowest = -80.0
    safe = 60.0  # exp of logits within ±60 is a normal float32, and so is the sum of V of them
    largest_sum = 1e37  # after a shift by an estimate, larger sums are computed again; float32 overflows at 3.4e38
    num_blocks, block_size = blocks.shape[1], blocks.shape[2]
    surplus = num_blocks * block_size - layer.vocab_size  # at most G: the last tokens of the last blocks
    weights = blocks.view(blocks.shape[0], num_blocks * block_size)
    shift = rows.narrow(1, rows.shape[1] - 1, 1)  # (M, 1)
    exact = False
    if layer.bound < 0:  # a GPU passes over the weights once instead of five times, and has no slow denormals
        torch.softmax(torch.mm(rows, layer.matrix), 1, out=weights)
    else:
        # The norm of (h, 1) times the largest norm of (w, b) bounds every logit. It is mostly so small that no shift is needed.
        shifted = float(torch.linalg.vector_norm(rows, dim=1).max()) * layer.bound > safe
        if shifted:  # by the largest of some logits: at most the row's largest, and seldom far below it
            shift.copy_(torch.mm(rows, layer.probes).amax(1, keepdim=True))
        torch.mm(rows, layer.matrix, out=weights)
        if shifted:
            weights.clamp_(min=lowest)
            shift.zero_()
        weights.exp_()
        exact = shifted and not bool(blocks.sum(dim=2).max() < largest_sum)  # the estimate was too low for some row
    if exact:
        torch.mm(rows, layer.matrix, out=weights)
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
    below_one = 1 - 2.0**-52  # a factor just below 1, so that rounding can't reach the total
    num, num_blocks, block_size = blocks.shape[0], blocks.shape[1], blocks.shape[2]
    totals = torch.cumsum(sums, 1, dtype=torch.float64)  # (M, G)
    # Rounding may raise u·total to the total itself, which no block contains: stay below it.
    target = totals.narrow(1, num_blocks - 1, 1).mul(below_one) * uniforms  # (M, K)
    # The first block whose total exceeds the target, (M, K); clamped, so that NaN weights give a valid token as well.
    block = torch.searchsorted(totals, target, right=True).clamp_(max=num_blocks - 1)
    width = sums.gather(1, block)  # (M, K), positive
    inside = target.sub_(totals.gather(1, block)).add_(width).clamp_(min=0.0)  # the target minus the earlier blocks

    first = torch.arange(0, num * num_blocks, num_blocks, device=blocks.device).unsqueeze(1)  # (M, 1)
    chosen = blocks.view(-1, block_size).index_select(0, first.add(block).view(-1))  # (M·K, S)
    inner = torch.cumsum(chosen, 1, dtype=torch.float64)
    # The block's float32 sum and this one differ by rounding, so the position inside the block is carried over as a share.
    share = inside.div_(width).clamp_(max=1.0).view(-1, 1).mul_(inner.narrow(1, block_size - 1, 1)).mul_(below_one)  # (M·K, 1)
    position = torch.searchsorted(inner, share, right=True).view(block.shape)
    return position.mul_(num_blocks).add_(block).clamp_(max=vocab_size - 1)
