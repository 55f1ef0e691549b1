"""Draws from softmax(h Wᵀ + b) against exact probabilities."""

import pytest
import torch

from fast.categorical import SoftmaxSampler, draw_from_blocks

pytestmark = pytest.mark.usefixtures("draws")
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))
# 99.99 % point of the χ² distribution: df + z·sqrt(2·df) + 2/3·(z² - 1), with z = 3.72 (Cornish-Fisher)
Z = 3.72


def chi_square_is_small(counts: torch.Tensor, probabilities: torch.Tensor) -> bool:
    """Whether counts (V,) fit probabilities (V,); tokens expected fewer than 5 times are pooled."""
    expected = probabilities.double() * counts.sum()
    rare = expected < 5
    pool = [torch.cat([x[~rare], x[rare].sum()[None]]) if rare.any() else x for x in (counts.double(), expected)]
    keep = pool[1] > 1e-3
    if not keep.all():
        assert pool[0][~keep].sum() <= 2  # next to impossible tokens
    observed, expected = pool[0][keep], pool[1][keep]
    freedom = len(observed) - 1
    statistic = ((observed - expected) ** 2 / expected).sum().item()
    return statistic <= freedom + Z * (2 * freedom) ** 0.5 + 2 / 3 * (Z**2 - 1)


def output_layer(vocab_size: int, scale: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A hidden state (1, 6), weights (V, 6) and bias (V,) whose logits are N(0, scale²)."""
    rng = torch.Generator().manual_seed(seed)
    hidden = torch.ones(1, 6)
    weight = torch.randn(vocab_size, 6, generator=rng) * scale / 7**0.5
    bias = torch.randn(vocab_size, generator=rng) * scale / 7**0.5
    return hidden, weight, bias


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0])
@pytest.mark.parametrize("vocab_size", [1, 2, 7, 88, 5000])
def test_frequencies_fit_the_softmax(vocab_size, scale, device):
    hidden, weight, bias = (x.to(device) for x in output_layer(vocab_size, scale))
    draws = 400_000
    uniforms = torch.rand(1, draws, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(device)
    tokens = SoftmaxSampler(weight, bias).draw(hidden, uniforms)
    probabilities = (hidden.double() @ weight.double().t() + bias.double()).softmax(dim=1)[0]
    counts = torch.bincount(tokens.flatten(), minlength=vocab_size)
    assert len(counts) == vocab_size
    assert chi_square_is_small(counts.cpu(), probabilities.cpu())


@pytest.mark.parametrize("vocab_size", [1, 2, 7, 88, 5000])
def test_equally_spaced_uniforms_measure_the_probabilities(vocab_size):
    """The inverse of a cumulative sum maps a grid of n uniforms to counts within 2 of n·p: far sharper than random draws."""
    hidden, weight, bias = output_layer(vocab_size, 3.0)
    n = 1_000_000
    grid = ((torch.arange(n, dtype=torch.float64) + 0.5) / n)[None]
    sampler = SoftmaxSampler(weight, bias)
    tokens = torch.cat([sampler.draw(hidden, part)[0] for part in grid.split(50_000, dim=1)])  # all at once would take gigabytes
    counts = torch.bincount(tokens, minlength=vocab_size)
    probabilities = (hidden.double() @ weight.double().t() + bias.double()).softmax(dim=1)[0]
    # float32 logits carry a relative error of some 1e-6 into each probability
    assert ((counts - n * probabilities).abs() <= 2 + 4e-6 * n * probabilities).all()


def test_each_row_is_drawn_from_its_own_distribution():
    """More rows than a chunk holds, every row a different certain token."""
    vocab_size, rows = 50, 70_000
    sampler = SoftmaxSampler(torch.eye(vocab_size) * 200, torch.zeros(vocab_size))
    assert rows > sampler.max_rows
    expected = torch.arange(rows) % vocab_size
    hidden = torch.nn.functional.one_hot(expected, vocab_size).float()
    uniforms = torch.rand(rows, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sampler.draw(hidden, uniforms), expected[:, None].expand(-1, 2))


def test_extreme_uniforms_stay_inside_the_vocabulary():
    largest = 1 - 2.0**-53
    for vocab_size in (1, 2, 3, 5, 7, 88, 5000):
        for scale in (0.0, 1.0, 50.0, 1000.0):
            hidden, weight, bias = output_layer(vocab_size, scale)
            tokens = SoftmaxSampler(weight, bias).draw(hidden, torch.tensor([[0.0, 5e-324, 0.5, largest]], dtype=torch.float64))
            assert tokens.min() >= 0 and tokens.max() < vocab_size


def test_tokens_without_weight_are_never_drawn():
    weights = torch.tensor([[0.0, 3.0, 0.0, 0.0, 1.0, 0.0]])
    blocks = weights.view(1, 3, 2).transpose(1, 2).contiguous()  # S = 3, G = 2
    grid = torch.linspace(0, 1 - 2.0**-53, 10_001, dtype=torch.float64)[None]
    counts = torch.bincount(draw_from_blocks(blocks, blocks.sum(dim=2), grid, 6)[0], minlength=6)
    assert counts[[0, 2, 3, 5]].sum() == 0
    assert abs(counts[1].item() / 10_001 - 0.75) < 1e-3


def test_rare_tokens_of_a_peaked_row_can_be_drawn():
    """A cumulative sum over all tokens in float32 never draws tokens of probability below 6e-8."""
    weight, bias = torch.zeros(5000, 1), torch.full((5000,), -16.0)
    bias[17] = 0.0
    tail = 4999 * torch.tensor(-16.0, dtype=torch.float64).exp()
    hit = set()
    # all the uniforms that fall on the other tokens, finely: token 17 takes one interval somewhere in [0, 1)
    sampler = SoftmaxSampler(weight, bias)
    low = torch.linspace(0, (tail / (1 + tail)).item(), 40_000, dtype=torch.float64)
    for uniforms in (low, 1 - 2.0**-53 - low):
        hit |= set(sampler.draw(torch.zeros(1, 1), uniforms[None]).flatten().tolist())
    assert hit == set(range(5000))


@pytest.mark.parametrize("shape", [(1, 50, 1), (1, 1, 50)])
def test_weights_too_small_for_a_float32_sum_are_drawn(shape):
    """50 blocks, or 50 tokens of one block: in float32 their cumulative sum stays at 1, the weight of the first."""
    blocks = torch.full(shape, 2.0**-30)
    blocks.view(-1)[0] = 1
    middles = 1 + (torch.arange(49, dtype=torch.float64) + 0.5) * 2.0**-30  # of each interval after the first
    uniforms = (middles / (1 + 49 * 2.0**-30))[None]
    assert draw_from_blocks(blocks, blocks.sum(dim=2), uniforms, 50)[0].tolist() == list(range(1, 50))


@pytest.mark.parametrize("scale", [5.0, 30.0, 300.0])
def test_sharp_rows_are_drawn_as_exactly_as_flat_ones(scale):
    """Their logits lie far outside ±60, between which no shift is needed."""
    rng = torch.Generator().manual_seed(0)
    vocab_size, hidden_dim, grid = 2000, 8, 20_000
    hidden = torch.rand(5, hidden_dim, generator=rng) * 2 - 1
    weight, bias = torch.randn(vocab_size, hidden_dim, generator=rng) * scale, torch.zeros(vocab_size)
    uniforms = ((torch.arange(grid, dtype=torch.float64) + 0.5) / grid).expand(5, -1).contiguous()
    tokens = SoftmaxSampler(weight, bias).draw(hidden, uniforms)
    probabilities = (hidden.double() @ weight.double().t()).softmax(dim=1)
    for row in range(5):
        counts = torch.bincount(tokens[row], minlength=vocab_size)
        assert ((counts - grid * probabilities[row]).abs() <= 2 + 1e-3 * scale / 30 * grid * probabilities[row]).all()


def test_a_largest_logit_that_the_estimate_misses_is_still_drawn():
    """All tokens but one have a larger norm than it, and logits 150 below its own."""
    hidden = torch.tensor([[1.0, 0.0]])
    weight = torch.tensor([[-100.0, 100.0]]).repeat(600, 1)
    weight[77] = torch.tensor([50.0, 0.0])
    tokens = SoftmaxSampler(weight, torch.zeros(600)).draw(
        hidden, torch.linspace(1e-9, 1 - 2.0**-53, 99, dtype=torch.float64)[None]
    )
    assert (tokens == 77).all()


def test_temperature_divides_the_logits():
    hidden, weight, bias = output_layer(7, 2.0)
    grid = ((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)[None]
    counts = torch.bincount(SoftmaxSampler(weight, bias, temperature=2.5).draw(hidden, grid)[0], minlength=7)
    probabilities = ((hidden @ weight.t() + bias) / 2.5).softmax(dim=1)[0]
    torch.testing.assert_close(counts / 100_000, probabilities, atol=3e-5, rtol=0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature"):
        SoftmaxSampler(torch.ones(3, 2), torch.ones(3), temperature)
