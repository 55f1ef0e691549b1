"""Judges: their scores, their training, their file, and the numbers that are reported of them."""

import argparse
import copy
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from helpers.reference import enumerate_sequences, sequence_probability
from helpers.small_runs import small_run, weights

import residual.judges
from discriminator import Discriminator
from metrics import sequence_nll
from residual.judges import Judges, cross_entropy, logit, train_judge
from running.checkpoint import SavedModels, save_checkpoint
from running.judges_file import find_judges, save_judges
from running.judging import Judging, measure, report
from support.errors import UserError
from support.random_streams import stream
from train_state import make_generator

V, T = 6, 3


def judge(seed=0, seq_len=T):
    """A discriminator with large weights, left in training mode with much dropout: scores must not have it."""
    model = Discriminator(V, 4, [(1, 5), (seq_len, 5)], keep_prob=0.3).initialise(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        model.output.weight.normal_(std=2.0, generator=torch.Generator().manual_seed(seed))
    return model.train()


def random_tokens(num, length):
    return torch.randint(V, (num, length), generator=torch.Generator().manual_seed(length))


def test_a_logit_is_the_log_odds_of_real_without_dropout():
    model, tokens = judge(), random_tokens(2000, T)
    got = logit(model, tokens)  # in several parts
    assert not got.requires_grad
    p = copy.deepcopy(model).eval()(tokens).double().softmax(dim=1)[:, 1]
    torch.testing.assert_close(got, (p / (1 - p)).log().float(), rtol=1e-3, atol=1e-3)
    assert got.std() > 0.5


def test_threads_that_score_at_the_same_time_have_no_dropout():
    """One thread ends while another, which began after it, is at work."""
    model, tokens, expected = judge(), random_tokens(50, T), logit(judge(), random_tokens(50, T))
    forward, number = model.forward, itertools.count()
    first_has_begun, second_has_begun, first_has_ended = (threading.Event() for _ in range(3))

    def in_turn(tokens):
        if next(number) == 0:
            first_has_begun.set()
            assert second_has_begun.wait(20)
        else:
            second_has_begun.set()
            assert first_has_ended.wait(20)
        return forward(tokens)

    model.forward = in_turn
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(logit, model, tokens)
        assert first_has_begun.wait(20)
        second = pool.submit(logit, model, tokens)
        assert torch.equal(first.result(), expected)
        first_has_ended.set()
        assert torch.equal(second.result(), expected)


def test_several_judges_score_by_the_mean_of_their_logits():
    models, tokens = [judge(seed) for seed in range(3)], random_tokens(9, T)
    expected = sum(logit(model, tokens) for model in models) / 3
    torch.testing.assert_close(Judges(models, T, None).scores(tokens), expected)


@pytest.mark.parametrize(
    ("length", "windows"),
    [
        (3, {0: 1}),
        (4, {0: 1, 1: 1 / 3}),
        (5, {0: 1, 2: 2 / 3}),
        (6, {0: 1, 3: 1}),
        (7, {0: 1, 3: 1, 4: 1 / 3}),
        (9, {0: 1, 3: 1, 6: 1}),
    ],
)
def test_windows_of_a_longer_sequence_count_each_token_once(length, windows):
    model, tokens = judge(), random_tokens(8, length)
    expected = sum(share * logit(model, tokens[:, start : start + T]) for start, share in windows.items())
    torch.testing.assert_close(Judges([model], T, None).scores(tokens), expected)


def test_shorter_sequences_than_the_judges_know_are_refused():
    with pytest.raises(ValueError, match="3 tokens can't score sequences of 2"):
        Judges([judge()], T, None).scores(random_tokens(4, 2))


def test_cross_entropy_counts_both_kinds_by_half_however_many_there_are():
    p, q = torch.tensor([0.9, 0.6, 0.7]), torch.tensor([0.2, 0.4])
    expected = -(p.log().mean() + (1 - q).log().mean()).item() / 2
    assert cross_entropy(p.logit(), q.logit()) == pytest.approx(expected)
    assert cross_entropy(torch.zeros(3), torch.zeros(5)) == pytest.approx(0.693147, abs=1e-5)


SETTINGS = dict(vocab_size=V, seq_len=T, g_emb_dim=4, g_hidden_dim=5, d_emb_dim=4, d_filters=[[1, 4]], variable_length=False)
SETTINGS |= dict(seed=1, g_init="normal")


def saved_models(folder, generator, discriminator=None):
    args = argparse.Namespace(**SETTINGS)
    trained = None if discriminator is None else discriminator.state_dict()
    return SavedModels(folder / "best.pt", args, {}, generator.state_dict(), trained, "best.pt")


def test_judges_come_back_from_their_file_as_they_were_written(tmp_path):
    generator, tokens = make_generator(argparse.Namespace(**SETTINGS)), random_tokens(9, 8)
    judges = Judges([judge(0), judge(1, seq_len=2)], T, 0, beta=0.65)
    expected = judges.scores(tokens)
    save_judges(tmp_path / "judges.pt", judges, generator, "best.pt")
    for model in judges.models:  # the file has its own copy
        torch.nn.init.zeros_(model.output.weight)
    again = find_judges(saved_models(tmp_path, generator), generator, None)
    assert torch.equal(again.scores(tokens), expected)
    assert (again.beta, again.seq_len, again.end_token) == (0.65, T, 0)
    assert find_judges(saved_models(tmp_path, generator), generator, 2.0).beta == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["judges.pt"]


def test_judges_of_another_generator_are_refused(tmp_path):
    generator = make_generator(argparse.Namespace(**SETTINGS))
    save_judges(tmp_path / "judges.pt", Judges([judge()], T, None), generator, "last.pt")
    with torch.no_grad():
        generator.output.bias[0] += 1e-6  # one weight, next to nothing
    for beta in (None, 1.0):
        with pytest.raises(UserError, match=r"trained on last\.pt, not on .*best\.pt") as error:
            find_judges(saved_models(tmp_path, generator), generator, beta)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["kind", "judges", "none", "size", "memory", "length", "beta", "vocabulary", "bytes"])
def test_a_broken_file_of_judges_is_refused(damage, tmp_path):
    generator, path = make_generator(argparse.Namespace(**SETTINGS)), tmp_path / "judges.pt"
    save_judges(path, Judges([judge()], T, None), generator, "best.pt")
    payload = torch.load(path, weights_only=True)
    del payload["format"]
    saved = saved_models(tmp_path, generator)
    if damage == "kind":
        payload["kind"] = "best"
    elif damage == "judges":
        del payload["judges"]
    elif damage == "none":
        payload["judges"]["models"] = []
    elif damage == "size":
        payload["judges"]["models"][0]["filters"] = [[1, 6]]
    elif damage == "memory":
        payload["judges"]["models"][0]["emb_dim"] = 2**30
    elif damage == "length":
        payload["judges"]["seq_len"] = T + 1
    elif damage == "beta":
        del payload["judges"]["beta"]
    elif damage == "vocabulary":
        saved.args.vocab_size = 9
    save_checkpoint(path, payload)
    if damage == "bytes":
        path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError) as error:
        find_judges(saved, generator, 1.0)
    assert "\n" not in str(error.value) or damage in ("size", "vocabulary")  # main joins the lines of torch's messages


def test_the_runs_own_discriminator_judges_only_where_it_was_trained_and_a_beta_is_given(tmp_path):
    generator = make_generator(argparse.Namespace(**SETTINGS))
    with pytest.raises(UserError, match=r"judges\.py .* trains them"):
        find_judges(saved_models(tmp_path, generator), generator, 1.0)
    own = Discriminator(V, 4, [[1, 4]]).initialise(torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match="--resample_beta"):
        find_judges(saved_models(tmp_path, generator, own), generator, None)
    judges = find_judges(saved_models(tmp_path, generator, own), generator, 1.5)
    assert judges.beta == 1.5
    assert torch.equal(judges.scores(random_tokens(5, T)), logit(own, random_tokens(5, T)))


@pytest.fixture(autouse=True)
def _few_resampled_sequences(monkeypatch):
    monkeypatch.setattr("residual.model.AT_ONCE", 80)


@pytest.fixture
def quick(monkeypatch):
    """Judges that are trained in a fraction of a second."""
    first = residual.judges.RECIPES[0]
    small = replace(first, size=replace(first.size, number=6, emb_dim=6), learning_rate=0.02)
    for name, value in dict(MOST_UPDATES=120, EVERY=10, PATIENCE=3, SAMPLES=200, BATCH=16, RECIPES=(small,)).items():
        monkeypatch.setattr(residual.judges, name, value)
    monkeypatch.setattr("data_loader.ENTROPY_SEQUENCES", 100)


def overfitting_run():
    """Few training sequences, so that the judge soon knows them by heart and gets worse on others; the test set is guarded."""
    state, data, _ = small_run(train_size=8, eval_samples=100)

    def touched(_self):
        raise AssertionError("the test sequences were looked at")

    data.__class__ = type("Guarded", (type(data),), {"held_out": property(touched), "final_held_out": touched})
    return state.generator, data


def test_training_keeps_the_best_judge_and_never_looks_at_test_sequences(quick):
    generator, data = overfitting_run()
    before, looks = weights(generator), []
    model, at, best = train_judge(generator, data, 0, 5, lambda *look: looks.append(look))
    assert torch.equal(weights(generator), before) and all(p.grad is None for p in generator.parameters())
    assert min(looks, key=lambda look: look[1]) == (at, best)
    assert at < looks[-1][0] == at + 30 < 120  # it got worse, and patience ended it
    samples = generator.sample(200, data.seq_len, stream(5, "judge 0: looks"))
    assert cross_entropy(logit(model, data.valid), logit(model, samples)) == pytest.approx(best, rel=1e-5)


def test_a_seed_and_a_number_decide_a_judge(quick, monkeypatch):
    monkeypatch.setattr(residual.judges, "MOST_UPDATES", 10)

    def trained(number, seed):
        return weights(train_judge(*overfitting_run(), number, seed)[0])

    one = trained(0, 5)
    torch.manual_seed(77)  # the global stream has no part in it
    assert torch.equal(one, trained(0, 5))
    assert not torch.equal(one, trained(0, 6))
    assert not torch.equal(one, trained(1, 5))


def test_a_judge_knows_which_sequences_are_real(quick, monkeypatch):
    """With the classes mixed up, its loss would rise above guessing and the scores of real sequences fall below others."""
    monkeypatch.setattr(residual.judges, "MOST_UPDATES", 50)
    state, data, _ = small_run(eval_samples=300)
    with torch.no_grad():
        state.generator.output.bias[0] += 3  # G draws token 0 too often
    model, _, loss = train_judge(state.generator, data, 0, 0)
    assert loss < 0.6
    fake = state.generator.sample(300, data.seq_len, torch.Generator().manual_seed(0))
    assert logit(model, data.valid).mean() > logit(model, fake).mean() + 0.5


class Exact:
    """Judges that know the exact log ratio of oracle and generator, times a factor, up to a constant."""

    models, beta = (None,), 1.0

    def __init__(self, oracle, generator, factor):
        self.oracle, self.generator, self.factor = oracle, generator, factor

    def scores(self, tokens):
        return self.factor * (sequence_nll(self.generator, tokens) - sequence_nll(self.oracle, tokens)) + 3


def test_measured_nll_of_the_residual_model_is_the_oracles_for_judges_that_know_everything():
    state, data, _ = small_run(vocab_size=V, seq_len=T, d_filters=[[1, 4]], eval_samples=1000)
    judges = Exact(data.oracle, state.generator, 2.0)
    numbers = measure(judges, state.generator, data, Judging(1, seed=0, samples=4000), 4000)
    assert numbers["beta"] == judges.beta == pytest.approx(0.5, abs=0.1)
    held_out = data.final_held_out(4000)
    assert numbers["nll_test"] == pytest.approx(state.generator.nll(held_out).mean().item(), rel=1e-5)
    of_oracle, error = data.oracle.nll(held_out).mean().item(), numbers["gain_per_token_error"]
    assert 0 < error < 0.05 and abs(numbers["residual_nll_test"] - of_oracle) < 5 * error
    assert numbers["nll_test"] - of_oracle > 10 * error
    assert numbers["gain_per_token"] == pytest.approx(numbers["nll_test"] - numbers["residual_nll_test"])
    assert not numbers["resampled"].keys() & {"entropy_g", "kl_g_oracle", "jsd"}  # of no single distribution
    p, q = (sequence_probability(model, enumerate_sequences(V, T)).detach() for model in (data.oracle, state.generator))
    divergence = (p * (p / q).log()).sum().item()
    assert abs(numbers["knowledge"] - divergence) < 5 * numbers["knowledge_error"]
    assert numbers["auc"] > 0.55 and 1 < numbers["effective_candidates"] < 8


def test_test_sequences_do_not_choose_beta(monkeypatch):
    state, data, _ = small_run(vocab_size=V, seq_len=T, d_filters=[[1, 4]])
    chosen, known = [], []
    for held_out in (data.final_held_out(100), torch.zeros(100, T, dtype=torch.int64)):
        monkeypatch.setattr(data, "final_held_out", lambda _num, held_out=held_out: held_out)
        numbers = measure(Exact(data.oracle, state.generator, 1.0), state.generator, data, Judging(1, 0, 500), 100)
        chosen.append(numbers["beta"])
        known.append(numbers["knowledge"])
    assert chosen[0] == chosen[1] > 0 and known[0] != known[1]


@pytest.mark.parametrize(("error", "warned"), [(0.1, False), (0.3, False), (0.5, True)])
def test_numbers_of_judges_that_few_samples_decide_are_said_to_be_uncertain(error, warned):
    """β is chosen by other samples, so that an error a little above its bound is usual."""
    lines = []
    numbers = dict.fromkeys(
        ("beta", "nll_test", "residual_nll_test", "gain_per_token", "knowledge", "auc", "effective_candidates"), 1.0
    )
    report({**numbers, "log_z_error": error}, lines.append)
    assert any("few samples decide Z" in line and "--samples" in line for line in lines) == warned
