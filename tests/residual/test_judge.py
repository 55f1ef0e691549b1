"""One judge: what it is shown of repeats, what it is not shown behind the end, and that repeats at a distance can be learnt."""

import pytest
import torch

from residual.judge import Judge, Size

SIZE = Size((1, 3), number=5, emb_dim=4, lags=16, drop=0.5)


def judge(seq_len=6, end_token=None, size=SIZE, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return Judge(9, seq_len, end_token, size, torch.Generator().manual_seed(1)).initialise(rng)


def test_repeats_are_those_of_the_lag_and_of_tokens_and_steps_apart():
    tokens = torch.tensor([[3, 5, 3, 5, 7, 5]])
    model = judge()
    flags = model._repeats(tokens)[0]  # (6, 10)
    assert model.lags == 5
    for lag in range(1, 6):
        for t in range(6):
            same = t >= lag and tokens[0, t] == tokens[0, t - lag]
            steps = [None, *(tokens[0, 1:] - tokens[0, :-1]).tolist()]
            same_step = t > lag and steps[t] == steps[t - lag]  # the first token has no step
            assert flags[t].tolist()[lag - 1] == same, (t, lag)
            assert flags[t].tolist()[5 + lag - 1] == same_step, (t, lag)


def test_what_follows_the_end_token_changes_nothing():
    model = judge(end_token=0).eval()
    one, two = torch.tensor([[3, 4, 0, 0, 0, 0]]), torch.tensor([[3, 4, 0, 5, 3, 4]])
    assert torch.equal(model(one), model(two))
    assert not torch.equal(model(one), model(torch.tensor([[3, 4, 5, 0, 0, 0]])))


@pytest.mark.parametrize("seq_len", [1, 2, 6])
@pytest.mark.parametrize("widths", [(1,), (2, 4), (9,)])
def test_any_length_and_width_gives_a_number_for_each_sequence(seq_len, widths):
    model = judge(seq_len, size=Size(widths, number=3, emb_dim=2, lags=4, drop=0.5))
    tokens = torch.randint(9, (7, seq_len), generator=torch.Generator().manual_seed(0))
    logits = model.eval()(tokens)
    assert logits.shape == (7,)
    torch.testing.assert_close(model(tokens[3:4]), logits[3:4])  # each by itself
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_dropout_is_of_training_only_and_from_its_own_stream():
    tokens = torch.randint(9, (5, 6), generator=torch.Generator().manual_seed(0))
    model = judge()
    before = torch.get_rng_state()
    assert not torch.equal(model(tokens), model(tokens))
    assert torch.equal(torch.get_rng_state(), before)
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


def test_a_repeat_far_apart_is_learnt_though_no_filter_is_as_wide():
    """Real: the last token is that ten places before. Counts of tokens and neighbours are the same in both kinds."""
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randint(9, (2000, 12), generator=rng)
    labels = (torch.arange(2000) % 2).float()
    tokens[1::2, 11] = tokens[1::2, 1]
    model = judge(12, size=Size((1, 3), number=8, emb_dim=4, lags=11, drop=0.1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(tokens[:1000]), labels[:1000]).backward()
        optimizer.step()
    with torch.no_grad():
        right = ((model.eval()(tokens[1000:]) > 0).float() == labels[1000:]).float().mean()
    assert right > 0.8
