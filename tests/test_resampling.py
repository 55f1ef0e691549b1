"""`python judges.py RUN`, then `python sample.py RUN --resample K`, from the command line."""

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from helpers.cli import assert_one_line_error, call, folders, run, same, snapshot

import judges
import residual.judges
import sample
from data_loader import make_data
from residual.judges import Judges
from running import judging
from running.checkpoint import load_models
from support.schema import UnfitError
from train_state import make_generator


def quickly(patch):
    """Judges that are trained in a fraction of a second."""
    first = residual.judges.RECIPES[0]
    small = replace(first, size=replace(first.size, number=6, emb_dim=6), learning_rate=0.02)
    for name, value in dict(MOST_UPDATES=60, EVERY=10, SAMPLES=200, RECIPES=(small,)).items():
        patch.setattr(residual.judges, name, value)
    patch.setattr("residual.model.AT_ONCE", 80)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    quickly(monkeypatch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with adversarial epochs and its own D, whose best and last models differ. Tests only read it."""
    folder = tmp_path_factory.mktemp("trained")
    flags = "--pretrain_g_epochs 12 --pretrain_d_epochs 1 --total_epochs 1 --train_size 8 --g_lr 0.1 --eval_every 2".split()
    assert run(*flags, "--eval_samples", "100", *folders(folder)) == 0
    return folder / "train"


@pytest.fixture(scope="module")
def judged(trained, tmp_path_factory):
    """The same with two judges of its best generator. Tests only read it."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("judged") / "run")
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        assert call(judges.main, str(folder), "--samples", "400", "--seed", "3") == 0
    return folder


def generator_of(saved):
    generator = make_generator(saved.args)
    generator.load_state_dict(saved.generator)
    return generator


def drawn(log_dir, out, *flags):
    """The sequences that sample.py writes."""
    assert call(sample.main, str(log_dir), "--out", str(out), "--overwrite", *flags) == 0
    return torch.from_numpy(np.load(out))


def test_judges_are_of_the_best_generator_and_their_numbers_of_the_test_sequences(judged):
    numbers = json.loads((judged / "judges.json").read_text())
    payload = torch.load(judged / "judges.pt", weights_only=True)
    assert numbers["which"] == payload["about"] == "best.pt" and numbers["judges"] == 2 == len(payload["judges"]["models"])
    assert numbers["beta"] == payload["judges"]["beta"]
    saved = load_models(judged, "best")
    data, generator = make_data(saved.args, torch.device("cpu")), generator_of(saved)
    assert numbers["nll_test"] == pytest.approx(generator.nll(data.final_held_out(50)).mean().item(), rel=1e-5)
    assert not same(*payload["judges"]["models"])


def test_a_long_training_of_judges_is_shown_where_there_is_no_progress_bar(trained, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(trained, tmp_path / "run")
    quickly(monkeypatch)
    monkeypatch.setattr(judging, "SHOWN_EVERY", 20)
    assert call(judges.main, str(folder), "--samples", "400", "--judges", "1") == 0
    out, err = capsys.readouterr()
    assert "judge 1: 20 updates so far, cross-entropy 0." in out
    assert err == ""


def test_judges_are_not_replaced_unasked_and_a_seed_decides_them(judged, tmp_path, capsys):
    folder = shutil.copytree(judged, tmp_path / "run")
    before = snapshot(folder)
    capsys.readouterr()
    assert call(judges.main, str(folder), "--samples", "400") == 2
    assert_one_line_error(capsys, "judges.pt exists", "--overwrite")
    assert snapshot(folder) == before
    flags = ["--samples", "400", "--overwrite"]
    assert call(judges.main, str(folder), *flags, "--seed", "3") == 0
    again = snapshot(folder)
    assert again["judges.json"] == before["judges.json"]
    assert same(*(torch.load(each / "judges.pt", weights_only=True) for each in (folder, judged)))
    assert {name for name in again if again[name] != before.get(name)} <= {"judges.pt"}  # last.pt is as it was
    assert call(judges.main, str(folder), *flags, "--judges", "0", "--which", "last") == 0
    assert json.loads((folder / "judges.json").read_text())["which"] == "last.pt"
    assert call(sample.main, str(folder), "--resample", "2", "--which", "last") == 0
    capsys.readouterr()
    assert call(sample.main, str(folder), "--resample", "2") == 2
    assert_one_line_error(capsys, "trained on last.pt", "best.pt", "judges.py")


def test_resampled_sequences_are_those_of_high_scores_among_candidates_of_g(judged, tmp_path):
    saved = load_models(judged, None)
    payload = torch.load(judged / "judges.pt", weights_only=True)
    scores = Judges.from_state_dict(payload["judges"], 20, torch.device("cpu")).scores
    plain = drawn(judged, tmp_path / "a.npy", "--num", "800")
    chosen = drawn(judged, tmp_path / "b.npy", "--num", "100", "--resample", "8", "--resample_beta", "100")
    assert chosen.shape == (100, 5) and chosen.dtype == torch.int64
    best = scores(plain).view(100, 8).argmax(dim=1)  # the same candidates, in groups of 8
    picked = plain.view(100, 8, 5)[torch.arange(100), best]
    assert (scores(picked) - scores(chosen)).abs().max() < 0.1
    assert scores(chosen).mean() > scores(plain).mean() + scores(plain).std()
    assert saved.path.name == "best.pt"


def test_one_candidate_is_plain_sampling_and_a_seed_decides_the_choices(judged, tmp_path):
    flags = ["--num", "40", "--seed", "5"]
    one = drawn(judged, tmp_path / "a.npy", *flags)
    assert torch.equal(one, drawn(judged, tmp_path / "b.npy", *flags, "--resample", "1"))
    two = drawn(judged, tmp_path / "c.npy", *flags, "--resample", "4")
    assert torch.equal(two, drawn(judged, tmp_path / "d.npy", *flags, "--resample", "4"))
    assert not torch.equal(two, drawn(judged, tmp_path / "e.npy", *flags[:2], "--resample", "4", "--seed", "6"))


def test_parts_of_many_sequences_are_chosen_among_their_own_candidates(judged, tmp_path, monkeypatch, capsys):
    """30 sequences of 4 candidates in parts of 7: each part draws and chooses anew, and the report is a mean over all."""
    whole = drawn(judged, tmp_path / "a.npy", "--num", "30", "--resample", "4", "--resample_beta", "0")
    assert "effective candidates: 4.0 of 4, at β 0" in capsys.readouterr().err
    monkeypatch.setattr("residual.model.AT_ONCE", 28)
    parts = drawn(judged, tmp_path / "b.npy", "--num", "30", "--resample", "4", "--resample_beta", "0")
    assert "effective candidates: 4.0 of 4, at β 0" in capsys.readouterr().err
    assert parts.shape == whole.shape and len(parts.unique(dim=0)) > 25


def test_a_longer_sequence_is_weighed_too(judged, tmp_path):
    assert drawn(judged, tmp_path / "a.npy", "--num", "6", "--resample", "3", "--length", "12").shape == (6, 12)


@pytest.mark.parametrize(("beta", "warned"), [("100", True), ("0", False)])
def test_few_effective_candidates_are_warned_of(beta, warned, judged, capsys):
    capsys.readouterr()
    assert call(sample.main, str(judged), "--num", "30", "--resample", "50", "--resample_beta", beta) == 0
    captured = capsys.readouterr()
    assert ("warning: few candidates decide" in captured.err) == warned
    assert captured.err.count("\n") == 2 + warned and len(captured.out.splitlines()) == 30


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--resample_beta", "1"], ["--resample_beta has no effect without --resample"]),
        (["--resample", "4", "--length", "4"], ["--resample", "5 tokens or more", "--length is 4"]),
        (["--resample", "0"], ["at least 1"]),
        (["--resample", "4", "--resample_beta", "-1"], ["at least 0"]),
        (["--resample", "4", "--which", "last"], ["judges.py", "needs --resample_beta"]),
        (["--resample", "4", "--resample_beta", "1"], ["--resample needs judges"]),  # best.pt: D was not trained yet
    ],
)
def test_resampling_that_can_not_work_is_refused_with_one_line(flags, words, trained, capsys):
    before = snapshot(trained)
    assert call(sample.main, str(trained), *flags) == 2
    assert_one_line_error(capsys, *words)
    assert snapshot(trained) == before


def test_the_runs_own_discriminator_is_taken_where_there_are_no_judges(trained, tmp_path):
    flags = ["--which", "last", "--resample", "6", "--num", "100", "--resample_beta", "100"]
    chosen, plain = drawn(trained, tmp_path / "a.npy", *flags), drawn(trained, tmp_path / "b.npy", *flags[:2], "--num", "600")
    from_d = torch.load(trained / "last.pt", weights_only=True)["state"]["discriminator"]
    saved = load_models(trained, "last")
    part = {"filters": saved.args.d_filters, "emb_dim": saved.args.d_emb_dim, "weights": from_d}
    own = dict(seq_len=5, end_token=None, beta=1.0, models=[part])
    scores = Judges.from_state_dict(own, 20, torch.device("cpu")).scores
    assert scores(chosen).mean() > scores(plain).mean() + 0.5 * scores(plain).std()
    with pytest.raises(UnfitError, match=r"models\[0\].filters: wider than 1 tokens"):
        Judges.from_state_dict({**own, "seq_len": 1}, 20, torch.device("cpu"))


def test_an_untrained_discriminator_is_no_judge(tmp_path, capsys):
    assert run("--pretrain_g_epochs", "1", "--total_epochs", "0", *folders(tmp_path)) == 0
    log_dir = tmp_path / "train"
    before = snapshot(tmp_path)
    for which in ("best", "last"):
        capsys.readouterr()
        assert call(judges.main, str(log_dir), "--judges", "0", "--which", which) == 2
        assert_one_line_error(capsys, "--judges 0", f"{which}.pt was never trained")
        assert call(sample.main, str(log_dir), "--resample", "2", "--which", which) == 2
        assert_one_line_error(capsys, "--resample needs judges", "judges.py")
    assert snapshot(tmp_path) == before
    assert call(judges.main, str(log_dir / "last.pt")) == 2
    assert_one_line_error(capsys, "no run at", "folder")


def test_a_discriminator_that_another_reward_left_alone_is_no_judge(tmp_path, monkeypatch):
    values = iter([5.0, 4.0, 3.0])
    monkeypatch.setattr("data_set.DataSet.nll_valid", lambda *_: next(values))
    assert run("--pretrain_g_epochs", "1", "--total_epochs", "1", "--reward", "constant", *folders(tmp_path)) == 0
    flags = [str(tmp_path / "train"), "--resample", "2", "--resample_beta", "1"]
    assert [call(sample.main, *flags, "--which", which) for which in ("best", "last")] == [2, 2]


def test_useless_judges_leave_g_as_it_is_and_are_reported(trained, tmp_path, capsys, monkeypatch):
    """Chosen β: 0. Nothing may divide by what they know."""
    folder = shutil.copytree(trained, tmp_path / "run")
    monkeypatch.setattr(Judges, "scores", lambda _self, tokens: torch.zeros(len(tokens)))
    assert call(judges.main, str(folder), "--judges", "1", "--samples", "200") == 0
    numbers = json.loads((folder / "judges.json").read_text())
    assert numbers["beta"] == numbers["knowledge"] == 0 and numbers["residual_nll_test"] == numbers["nll_test"]
    assert "β 0, chosen on validation sequences" in capsys.readouterr().out


def test_judges_at_the_end_of_a_training_are_those_that_judges_py_would_train(trained, tmp_path, monkeypatch):
    folder = shutil.copytree(trained.parent, tmp_path / "run")
    monkeypatch.setattr(judging, "Judging", partial(judging.Judging, samples=300))
    assert run("--resume", "--judges", "1", "--eval_samples", "100", *folders(folder)) == 0
    first = torch.load(folder / "train/judges.pt", weights_only=True)
    assert call(judges.main, str(folder / "train"), "--judges", "1", "--seed", "1", "--samples", "300", "--overwrite") == 0
    assert same(first, torch.load(folder / "train/judges.pt", weights_only=True))
