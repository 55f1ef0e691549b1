"""Entropy and divergences against closed form on models small enough to enumerate (V = 3, T = 4)."""

import json
import math

import pytest
import torch
from helpers.cli import run, scalars
from helpers.reference import enumerate_sequences, tiny_generator

from generator import Generator
from metrics import Likelihoods, divergences, sequence_nll, token_jsd
from running.run_log import chart

V, T = 3, 4
NAMES = ("entropy_g", "kl_g_oracle", "kl_oracle_g", "jsd")


def exact(g, oracle):
    """All four by summing over the 81 sequences."""
    tokens = enumerate_sequences(V, T)
    p, q = (torch.exp(-sequence_nll(model, tokens)) for model in (g, oracle))
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    m = (p + q) / 2

    def kl(a, b):
        return (a * (a / b).log()).sum().item()

    return dict(
        entropy_g=-(p * p.log()).sum().item() / T, kl_g_oracle=kl(p, q) / T, kl_oracle_g=kl(q, p) / T, jsd=(kl(p, m) + kl(q, m)) / 2
    )


def estimate(g, oracle, num, seed):
    rng = torch.Generator().manual_seed(seed)
    of_g, of_oracle = g.sample(num, T, rng), oracle.sample(num + 17, T, rng)
    nll = Likelihoods(*(sequence_nll(model, x) for x in (of_g, of_oracle) for model in (g, oracle)))
    return divergences(nll, T)


@pytest.fixture(scope="module")
def models():
    return tiny_generator(seed=1, scale=1.3), tiny_generator(seed=2, scale=1.3)


def test_estimates_approach_the_closed_form(models):
    expected, got = exact(*models), estimate(*models, 100_000, seed=0)
    assert expected["kl_g_oracle"] > 0.05 and abs(expected["kl_g_oracle"] - expected["kl_oracle_g"]) > 0.01
    for name in NAMES:
        assert 0 < got[f"{name}_error"] < 0.01
        assert abs(got[name] - expected[name]) < 4 * got[f"{name}_error"], name


def test_standard_errors_cover_as_often_as_they_should(models):
    """1.96 errors cover the truth in 95 % of all cases, which 400 repetitions measure to 1.1 %."""
    expected = exact(*models)
    runs = [estimate(*models, 300, seed) for seed in range(1, 401)]
    for name in NAMES:
        covered = sum(abs(r[name] - expected[name]) < 1.96 * r[f"{name}_error"] for r in runs) / len(runs)
        assert 0.91 < covered < 0.985, name


def test_divergences_of_a_model_from_itself_vanish(models):
    got = estimate(models[0], models[0], 2000, seed=3)
    for name in NAMES[1:]:
        assert got[name] == pytest.approx(0, abs=1e-6)


def test_models_without_a_common_sequence_are_ln_2_apart():
    low, high = torch.zeros(50, dtype=torch.float64), torch.full((50,), 2000.0, dtype=torch.float64)
    got = divergences(Likelihoods(low, high, high, low), T)
    assert got["jsd"] == pytest.approx(math.log(2))
    assert got["kl_g_oracle"] == pytest.approx(2000 / T) and got["kl_oracle_g"] == pytest.approx(2000 / T)


def test_every_evaluation_has_all_divergences(tmp_path):
    folders = ["--log_dir", str(tmp_path / "train"), "--eval_log_dir", str(tmp_path / "eval")]
    assert run("--pretrain_g_epochs", "2", "--total_epochs", "2", "--pretrain_d_epochs", "1", "--eval_every", "1", *folders) == 0
    rows = [json.loads(line) for line in (tmp_path / "train" / "metrics.jsonl").read_text().splitlines()]
    rows.append(json.loads((tmp_path / "train" / "final.json").read_text()))
    assert len(rows) == 6
    for row in rows:
        assert row["kl_g_oracle"] == pytest.approx(row["nll_oracle"] - row["entropy_g"], abs=1e-9)
        for name in NAMES:
            assert math.isfinite(row[name]) and row[f"{name}_error"] > 0
    # of the other direction the oracle's entropy is that of these held-out sequences, not the reference's
    assert rows[0]["kl_oracle_g"] == pytest.approx(rows[0]["nll_test"] - rows[0]["oracle_entropy"], abs=0.5)
    for name in NAMES:
        assert [step for step, _ in scalars(tmp_path / "eval")[chart(name)]] == [0, 1, 2, 3, 4]


def test_a_standard_error_of_one_sequence_is_left_out(tmp_path):
    folders = ["--log_dir", str(tmp_path / "train"), "--eval_log_dir", str(tmp_path / "eval")]
    assert run("--pretrain_g_epochs", "1", "--total_epochs", "0", "--eval_samples", "1", "--final_eval_samples", "1", *folders) == 0
    row = json.loads((tmp_path / "train" / "metrics.jsonl").read_text().splitlines()[0])
    assert "kl_g_oracle" in row and "nll_test" in row
    assert "NaN" not in (tmp_path / "train" / "metrics.jsonl").read_text()
    assert "NaN" not in (tmp_path / "train" / "final.json").read_text()
    assert [name for name in row if name.endswith("_error")] == ["oracle_entropy_error"]


def test_the_divergence_of_the_next_token_is_exact_at_every_prefix():
    one, other, tokens = tiny_generator(seed=0), tiny_generator(seed=1), enumerate_sequences(3, 3)
    p, q = one(tokens).exp().double(), other(tokens).exp().double()
    middle = (p + q) / 2
    expected = ((p * (p / middle).log() + q * (q / middle).log()).sum(dim=2) / 2).mean(dim=1)
    torch.testing.assert_close(token_jsd(one, other, tokens), expected, atol=1e-6, rtol=0)
    assert token_jsd(one, one, tokens).abs().max() < 1e-6


def test_a_token_that_neither_model_can_draw_adds_nothing_to_the_divergence():
    """After an end token everything else has probability 0 under both: 0 · (∞ − ∞) must be 0."""
    models = [Generator(3, 3, 4, end_token=0).initialise(torch.Generator().manual_seed(seed), 1, 1, 1, 1) for seed in (0, 1)]
    assert torch.isfinite(token_jsd(*models, enumerate_sequences(3, 3))).all()
