"""The residual model as a language model: against enumeration at V = 3, T = 3."""

import pytest
import torch
from helpers.reference import enumerate_sequences, tiny_generator

from residual.model import ResidualModel, draw_resampled

NUMBERS = torch.tensor([9, 3, 1])  # of a sequence, counted from 0 to 26
TABLE = torch.randn(27, generator=torch.Generator().manual_seed(0))


class TableJudges:
    """Scores from a table."""

    beta = 1.3

    def scores(self, tokens):
        return TABLE[(tokens * NUMBERS).sum(dim=1)]


@pytest.mark.parametrize("end_token", [None, 0])
def test_its_likelihoods_of_all_sequences_sum_to_one_and_weigh_those_of_g(end_token):
    g, tokens = tiny_generator(), enumerate_sequences(3, 3)
    g.end_token = end_token
    if end_token is not None:
        ended = (tokens == end_token).long().cumsum(dim=1)
        tokens = tokens[((tokens == end_token) | (ended == 0)).all(dim=1)]
    weighted = -g.nll(tokens).double().sum(dim=1) + 1.3 * TableJudges().scores(tokens)
    model = ResidualModel(g, TableJudges(), weighted.exp().sum().log().item())
    log_p = -model.nll(tokens).double().sum(dim=1)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(log_p - log_p[0], weighted - weighted[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(model.counted(tokens), g.counted(tokens))


def test_a_draw_is_one_of_its_own_candidates():
    """The candidates of sequence n are the rows n·K to n·K + K − 1; the certain choice is the best of them."""
    judges = TableJudges()
    judges.beta = 1e4
    rngs = (torch.Generator().manual_seed(4), torch.Generator().manual_seed(5))
    drawn, effective = draw_resampled(tiny_generator(), judges, 50, 3, 6, rngs)
    candidates = tiny_generator().sample(300, 3, torch.Generator().manual_seed(4)).view(50, 6, 3)
    best = judges.scores(candidates.flatten(0, 1)).view(50, 6).argmax(dim=1)
    assert torch.equal(drawn, candidates[torch.arange(50), best])
    assert 1 <= effective < 3  # a candidate may be there twice


def test_temperature_and_prefix_reach_the_candidates():
    def drawn(*rest):
        rngs = (torch.Generator().manual_seed(4), torch.Generator().manual_seed(5))
        return draw_resampled(tiny_generator(), TableJudges(), 200, 3, 2, rngs, *rest)[0]

    assert len(drawn(1e-6).unique(dim=0)) == 1 < len(drawn(1.0).unique(dim=0))
    assert (drawn(1.0, torch.tensor([2, 1]))[:, :2] == torch.tensor([2, 1])).all()
