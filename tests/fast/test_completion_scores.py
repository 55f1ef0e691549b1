"""Scores of completions from shared tables against the discriminator itself."""

import pytest
import torch
from helpers.reference import tiny_generator

from discriminator import Discriminator
from fast.completion_scores import CompletionScorer, tables_are_faster
from rollout import action_values, completions


def small_discriminator(filters, vocab_size=9, seed=0):
    rng = torch.Generator().manual_seed(seed)
    discriminator = Discriminator(vocab_size, 4, filters).initialise(rng)
    with torch.no_grad():
        discriminator.output.weight.mul_(10)  # so that scores differ
        for layer in discriminator.convolutions.values():
            layer.bias.normal_(generator=rng)
    return discriminator


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("filters", [[(1, 3)], [(2, 5), (2, 4)], [(6, 3)], [(1, 2), (3, 4), (5, 2), (6, 7)]])
def test_scores_are_those_of_the_discriminator(filters, threads):
    """Every width at every prefix length: windows inside the prefix, across its end and after it, each alone and together."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        policy, discriminator = tiny_generator(vocab_size=9), small_discriminator(filters)
        rng = torch.Generator().manual_seed(1)
        tokens = policy.sample(4, 6, rng)
        scorer = CompletionScorer(discriminator, tokens)
        completed = completions(policy, tokens, 5, rng)  # (5, 4, 5, 6)
        for prefix in range(1, 6):
            expected = discriminator.prob_real(completed[prefix - 1].flatten(0, 1)).view(4, 5)
            assert expected.max() - expected.min() > 0.001
            torch.testing.assert_close(scorer(prefix, completed[prefix - 1]), expected, atol=1e-5, rtol=0)
    finally:
        torch.set_num_threads(before)


def test_windows_across_the_prefixs_end_see_the_completion():
    """Completions given by hand that differ from the sequence right after the prefix."""
    discriminator = small_discriminator([(2, 4), (3, 4)])
    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    completed = tokens[:, None].repeat(1, 2, 1)
    completed[:, 1, 2:] = torch.tensor([0, 0])
    got = CompletionScorer(discriminator, tokens)(2, completed)
    torch.testing.assert_close(got, discriminator.prob_real(completed.flatten(0, 1)).view(2, 2), atol=1e-5, rtol=0)


def test_a_new_scorer_sees_the_new_weights_and_sequences():
    """All scorers use the same reused buffers."""
    discriminator = small_discriminator([(2, 4), (3, 4)])
    for seed in range(3):
        tokens = torch.randint(9, (2, 5), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            discriminator.embed.weight.mul_(1.5)
            discriminator.convolutions["3"].weight.mul_(-0.7)
        completed = tokens[:, None].repeat(1, 3, 1)
        completed[:, :, 4] = torch.tensor([0, 1, 2])
        got = CompletionScorer(discriminator, tokens)(4, completed)
        torch.testing.assert_close(got, discriminator.prob_real(completed.flatten(0, 1)).view(2, 3), atol=1e-5, rtol=0)


def test_action_values_are_the_same_with_and_without_tables():
    policy, discriminator = tiny_generator(vocab_size=9), small_discriminator([(1, 3), (2, 5), (4, 4)])
    tokens = policy.sample(5, 6, torch.Generator().manual_seed(0))
    values = [
        action_values(policy, discriminator.prob_real, tokens, 7, torch.Generator().manual_seed(2), scorer)
        for scorer in (None, CompletionScorer(discriminator, tokens))
    ]
    torch.testing.assert_close(values[1], values[0], atol=1e-5, rtol=0)


def test_tables_are_used_where_they_are_faster():
    paper = Discriminator(5000, 64, [(1, 100), (5, 200), (20, 160)])
    assert tables_are_faster(paper, 19_456, 20)
    assert not tables_are_faster(paper, 19, 20)  # too few to look up
    assert not tables_are_faster(Discriminator(100_000, 64, [(5, 500)]), 19_456, 20)  # 1 GB
