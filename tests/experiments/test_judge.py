"""judge.py: classifier two-sample tests, the classifiers that it uses, and its numbers in report.py."""

import argparse
import importlib
import json
import sys

import pytest
import torch
from helpers.cli import ROOT, assert_one_line_error, call, folders, run
from helpers.fake_runs import evaluation, write_run
from helpers.tables import table
from helpers.tunes import split_folder

import report
from discriminator import Discriminator
from generator import Generator, counted_tokens
from metrics import auc
from music.data_set import TuneData
from residual.judges import Judges
from running.judges_file import save_judges
from running.run_folder import run_files
from running.settings import resolve

SIZES = ["--eval_samples", "60", "--final_eval_samples", "60"]


@pytest.fixture
def judge(monkeypatch):
    """The script as a module."""
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module("judge")


@pytest.fixture
def classifiers(judge):
    return importlib.import_module("classifiers")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a short run on the oracle."""
    folder = tmp_path_factory.mktemp("run")
    assert run("--pretrain_g_epochs", "2", "--total_epochs", "0", *SIZES, *folders(folder)) == 0
    return folder / "train"


@pytest.fixture
def log_dir(finished, tmp_path):
    """A copy of it, without numbers of two-sample tests."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("config.json", "metrics.jsonl", "final.json", "last.pt", "best.pt"):
        (folder / name).write_bytes((finished / name).read_bytes())
    return folder


def uniform(num, vocab_size, seed):
    return torch.randint(1, vocab_size, (num, 10), generator=torch.Generator().manual_seed(seed))


def repeating(num, vocab_size, seed):
    """Each token as frequent as in `uniform`, but the second half repeats the first."""
    tokens = uniform(num, vocab_size, seed)
    return torch.cat([tokens[:, :5], tokens[:, :5]], dim=1)


def rare(num, vocab_size, seed):
    """Tokens of the first quarter of the vocabulary only."""
    return uniform(num, vocab_size // 4, seed)


@pytest.mark.parametrize(("name", "vocab_size"), [("recurrent", 12), ("features", 12), ("features", 1000)])
@pytest.mark.parametrize(("other", "low", "high"), [(uniform, 0.43, 0.57), (repeating, 0.9, 1.0), (rare, 0.9, 1.0)])
def test_equal_distributions_cannot_be_told_apart_and_different_ones_can(classifiers, name, vocab_size, other, low, high):
    real, drawn = uniform(300, vocab_size, 1), other(300, vocab_size, 2)
    kind = classifiers.Kind(vocab_size, None)
    scores = classifiers.CLASSIFIERS[name](classifiers.grouped(real), classifiers.grouped(drawn), kind, 0)
    assert low < auc(scores(uniform(500, vocab_size, 3)), scores(other(500, vocab_size, 4))) <= high


@pytest.mark.parametrize("name", ["recurrent", "features"])
def test_a_classifier_is_its_seed_and_leaves_torchs_own_stream_alone(classifiers, name):
    before = torch.get_rng_state()
    parts = [classifiers.grouped(uniform(60, 12, seed)) for seed in (1, 2)]
    one, two, three = (
        classifiers.CLASSIFIERS[name](*parts, classifiers.Kind(12, None), seed)(uniform(9, 12, 3)) for seed in (0, 0, 1)
    )
    assert torch.equal(one, two) and not torch.equal(one, three)
    assert torch.equal(torch.get_rng_state(), before)


def test_features_of_a_line_end_with_its_end_token(classifiers):
    kind = classifiers.Kind(9, 0)
    tokens = torch.tensor([[3, 4, 3, 4, 0, 0, 0, 0], [3, 4, 3, 4, 5, 6, 7, 8]])
    assert counted_tokens(tokens, 0).sum(dim=1).tolist() == [5, 8]
    assert counted_tokens(tokens, None).all()
    counts = classifiers.counts(tokens.numpy(), 9, counted_tokens(tokens, 0).numpy())
    assert counts.tolist() == [[1, 0, 0, 2, 2, 0, 0, 0, 0], [0, 0, 0, 2, 2, 1, 1, 1, 1]]
    one, two = classifiers.repeat_features(tokens.numpy(), counted_tokens(tokens, 0).numpy())[2:4]  # lag 2: number, longest
    assert (one.tolist(), two.tolist()) == ([2, 2], [2, 2])
    for features in (classifiers.small_features, classifiers.summary_features):
        assert features(tokens, kind).shape[0] == 2


@pytest.mark.parametrize("length", [1, 2, 3, 40])
def test_any_length_of_sequences_will_do(classifiers, length):
    tokens = torch.randint(0, 5, (40, length), generator=torch.Generator().manual_seed(0))
    for vocab_size in (5, 500):
        for fit in classifiers.CLASSIFIERS.values():
            scores = fit(classifiers.grouped(tokens), classifiers.grouped(tokens.flip(0)), classifiers.Kind(vocab_size, None), 0)
            assert scores(tokens).isfinite().all()


def test_windows_of_a_tune_stay_on_one_side_of_a_split(classifiers):
    tunes = [torch.randint(1, 80, (20 + i,), generator=torch.Generator().manual_seed(i)) for i in range(12)]
    windows = torch.cat([tune.unfold(0, 8, 1) for tune in tunes]).to(torch.uint8)
    found = classifiers.grouped(windows)
    assert found.groups.tolist() == [i for i, tune in enumerate(tunes) for _ in range(len(tune) - 7)]
    parts = classifiers.split(found, 0.25, torch.Generator().manual_seed(0))
    assert sum(len(part.tokens) for part in parts) == len(windows)
    one, two = (set(part.groups.tolist()) for part in parts)
    assert (len(one), len(two)) == (3, 9) and not one & two


def test_equal_lines_stay_on_one_side_of_a_split(classifiers):
    lines = uniform(40, 50, 0)[torch.arange(80) % 40]
    one, two = classifiers.split(classifiers.grouped(lines), 0.5, torch.Generator().manual_seed(0))
    assert len(one.tokens) == len(two.tokens) == 40
    assert not {tuple(row) for row in one.tokens.tolist()} & {tuple(row) for row in two.tokens.tolist()}


def test_a_split_of_few_groups_has_two_sides(classifiers):
    for num, share in ((2, 0.01), (2, 0.99), (30, 0.001), (30, 0.999)):
        same = classifiers.Sequences(torch.zeros(num, 4, dtype=torch.int64), torch.zeros(num, dtype=torch.int64))
        assert all(len(part.tokens) for part in classifiers.split(same, share, torch.Generator()))


class Rows:
    """A data set whose sequences say which split they are of: the first token."""

    valid = held_out = torch.zeros(1)

    def __init__(self, judged):
        self.splits = [torch.cat([torch.full((n, 1), i), uniform(n, 30, i)], dim=1) for i, n in enumerate((50, 40, 70))]
        self._judged = judged

    def judged(self):
        return self._judged(*self.splits)


def test_classifiers_learn_from_validation_sequences_and_are_measured_on_test_sequences(judge, monkeypatch):
    seen = []

    def fit(real, other, _kind, seed):
        scored = []
        seen.append((real.tokens, other.tokens, scored, seed))
        return lambda tokens: scored.append(tokens) or tokens[:, 1].double()

    monkeypatch.setattr(judge, "CLASSIFIERS", {"recorder": fit})
    reals = judge.read_reals("run", Rows(importlib.import_module("data_set").Judged))
    source = judge.Source(Generator(40, 4, 4), None, 11, 1.0, 1)
    args = argparse.Namespace(num=30, seeds=2, floor=True)
    found = judge.areas(reals, source, judge.Kind(40, None), args, judge.tqdm(disable=True))
    assert {name: len(values["recorder"]) for name, values in found.items()} == {"generated": 2, "floor": 2}
    assert [seed for *_, seed in seen] == [0, 0, 1, 1]
    for real, other, (test, other_test), _ in seen:
        assert real[:, 0].unique().tolist() == [0]  # validation
        assert test[:, 0].unique().tolist() == [1]
        assert len(real) == len(other) == len(test) == len(other_test) == 30
        learnt, measured = ({tuple(row) for row in part.tolist()} for part in (other, other_test))
        assert not learnt & measured
    floors = [torch.cat([other, scored[1]])[:, 0].unique().tolist() for _, other, scored, _ in seen]
    assert floors[1] == floors[3] == [2] and floors[0] != [2]
    assert not torch.equal(seen[0][1], seen[2][1])  # another seed, other samples


def test_the_file_holds_each_setting_and_the_table_the_last_one(judge, log_dir, capsys):
    flags = [str(log_dir), "--seeds", "2", "--num", "40", "--threads", "1"]
    assert call(judge.main, *flags) == 0
    shown = capsys.readouterr().out.splitlines()
    first = json.loads((log_dir / "two_sample.json").read_text())
    assert list(first) == ["best"]
    entry = first["best"]
    assert (entry["train"], entry["test"]) == (40, 40)
    assert entry["models"].startswith("epoch ")
    for values in (entry["recurrent"], entry["features"], entry["floor"]["recurrent"], entry["floor"]["features"]):
        assert values["auc"] == pytest.approx(sum(values["seeds"]) / 2)
        assert values["sd"] == pytest.approx(abs(values["seeds"][0] - values["seeds"][1]) / 2**0.5)
    assert len(shown) == 3 and len({len(line) for line in shown}) == 1
    assert shown[1].split() == [
        str(log_dir),
        "best",
        *judge.cell(entry["recurrent"]).split(),
        *judge.cell(entry["features"]).split(),
    ]
    assert "training sequences" in shown[2]

    assert call(judge.main, *flags) == 0
    assert json.loads((log_dir / "two_sample.json").read_text()) == first  # the same seeds, the same numbers
    again = [str(log_dir), "--seeds", "1", "--num", "40", "--which", "last", "--temperature", "0.01", "--no-floor"]
    assert call(judge.main, *again) == 0
    entries = json.loads((log_dir / "two_sample.json").read_text())
    assert entries.keys() == {"best", "last temperature 0.01"} and entries["best"] == entry
    cold = entries["last temperature 0.01"]
    assert cold["floor"] is None and cold["features"]["sd"] is None
    assert min(cold["features"]["auc"], cold["recurrent"]["auc"]) > 0.95  # a single sequence, next to zero
    assert log_dir / "two_sample.json" in run_files(log_dir, log_dir)


def test_resampled_sequences_are_those_that_the_judges_choose(judge, log_dir, capsys):
    model = Discriminator(20, 4, [[1, 4], [2, 4]])
    generator = Generator(20, 4, 4)
    generator.load_state_dict(torch.load(log_dir / "last.pt", weights_only=True)["state"]["generator"])
    judges = Judges([model], 5, None, beta=40.0)
    source = judge.Source(generator, judges, 5, 1.0, 8)
    chosen, plain = source.draw(300, 0).tokens, source._replace(judges=None, candidates=1).draw(300, 0).tokens
    assert chosen.shape == plain.shape == (300, 5)
    assert judges.scores(chosen).mean() > judges.scores(plain).mean() + judges.scores(plain).std()
    save_judges(log_dir / "judges.pt", judges, generator, "last.pt")
    flags = [str(log_dir), "--seeds", "1", "--num", "30", "--no-floor"]
    assert call(judge.main, *flags, "--which", "last", "--resample", "4") == 0
    assert call(judge.main, *flags, "--which", "last", "--resample", "4", "--resample_beta", "2") == 0
    assert list(json.loads((log_dir / "two_sample.json").read_text())) == ["last resample 4", "last resample 4 β 2"]


def test_music_is_judged_by_the_windows_at_every_frame(tmp_path):
    args = resolve({"dataset": "Nottingham", "data_dir": str(split_folder(tmp_path)), "seq_len": 8, "eval_samples": 20}).args
    data = TuneData(args, torch.device("cpu"))
    assert [len(part) for part in data.judged()] == [33, 33 + 34, 33 + 34 + 35]
    assert torch.equal(data.judged().train, torch.from_numpy(data.windows))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "RUN"),
        (["x", "--nosuch"], "--nosuch"),
        (["x", "--seeds", "0"], "at least 1"),
        (["x", "--num", "5"], "at least 20"),
        (["x", "--which", "first"], "--which"),
        (["x"], "no run at x"),
        (["empty"], "no checkpoint at"),
        (["broken"], "two_sample.json is not a JSON object"),
        (["copy", "--resample", "4"], "--resample needs judges"),
        (["copy", "--resample_beta", "4"], "no effect without --resample"),
    ],
)
def test_bad_input_ends_with_one_line(judge, log_dir, tmp_path, monkeypatch, capsys, flags, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/two_sample.json").write_text("[")
    assert call(judge.main, *flags) == 2
    assert_one_line_error(capsys, words)


def test_too_few_sequences_and_missing_packages_end_with_one_line(judge, tmp_path, monkeypatch, capsys):
    assert run("--pretrain_g_epochs", "1", "--total_epochs", "0", "--eval_samples", "19", *folders(tmp_path)) == 0
    capsys.readouterr()
    assert call(judge.main, str(tmp_path / "train")) == 2
    assert_one_line_error(capsys, "19 sequences of the valid split are too few")
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    assert call(judge.main, str(tmp_path / "train")) == 2
    assert_one_line_error(capsys, "scikit-learn", "requirements-dev.txt")


def entry(recurrent, features, floor):
    values = {"recurrent": {"auc": recurrent, "sd": 0.1}, "features": {"auc": features, "sd": None}}
    return {**values, "floor": {name: {"auc": floor} for name in values}}


@pytest.mark.parametrize(
    ("entries", "shown"),
    [
        ({"best": entry(0.1, 0.2, 0.5), "last resample 8": entry(0.3, 0.4, 0.5), "last": entry(0.7, 0.8, 0.5)}, ("0.700", "0.800")),
        ({"best resample 8": entry(0.1, 0.2, 0.5), "best": entry(0.6, 0.7, 0.5)}, (None, None)),
        ({"best resample 8": entry(0.1, 0.2, 0.5)}, (None, None)),
        ({"last": entry(0.6, None, 0.5) | {"floor": None}}, ("0.600", None)),
        ({"best resample 8": entry(0.1, 0.2, 0.5), "best temperature 2": entry(0.1, 0.2, 0.5)}, (None, None)),
        ({"last": 3, "best": entry(0.6, 0.7, 0.5)}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_the_report_shows_the_last_models_only(tmp_path, monkeypatch, capsys, entries, shown):
    monkeypatch.chdir(tmp_path)
    row = evaluation(120, 0.0, 2.0, bleu2=0.5)
    folder = write_run(tmp_path / "a-1", [row], {"step": 120, "nll_test": 2.0, "bleu2": 0.5}, dataset="Text")
    (folder / "two_sample.json").write_text(json.dumps(entries))
    assert "AUC, recurrent" not in table(capsys, "a=a-1")["a"]
    rows = table(capsys, "a=a-1", "--final")
    assert tuple(rows["a"].get(f"AUC, {name}") for name in ("recurrent", "features")) == shown
    if shown[1]:
        assert rows["real training data"]["AUC, features"] == "0.500"
    (folder / "two_sample.json").write_text("[")
    assert call(report.main, "a-1") == 2
    assert_one_line_error(capsys, "two_sample.json is not a JSON object")
