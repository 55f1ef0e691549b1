"""judges.py and experiments/judge.py on runs whose tunes or texts have moved since."""

import importlib

import pytest
from helpers.cli import ROOT, assert_one_line_error, call, folders, run, snapshot
from helpers.tunes import MUSIC, split_folder

import judges

EPOCHS = ["--pretrain_g_epochs", "1", "--total_epochs", "0", "--eval_samples", "20"]
WORDS = [f"word{number}" for number in range(18)]  # with <end> and <unk> the 20 tokens of the tiny runs
LINES = [" ".join(WORDS[(start + step * i) % 18] for i in range(5)) for step in range(1, 18) for start in range(18)]


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with runs on tunes, on text and on the oracle, and their data in `moved`, not where the runs read them."""
    folder = tmp_path_factory.mktemp("runs")
    tunes, text = split_folder(folder / "tunes"), folder / "lines.txt"
    text.write_text("".join(f"{line}\n" for line in LINES))
    for name, flags in (
        ("music", [*MUSIC, "--data_dir", str(tunes)]),
        ("text", ["--dataset", "Text", "--data_path", str(text)]),
        ("oracle", []),
    ):
        assert run(*flags, *EPOCHS, *folders(folder / name)) == 0
    (folder / "moved").mkdir()
    for path in (tunes, text):
        path.rename(folder / "moved" / path.name)
    return folder


@pytest.fixture(params=["judges.py", "experiments/judge.py"])
def command(request, monkeypatch):
    """The main function of each command, and the data that it takes; nothing is trained."""
    found = []
    if request.param == "judges.py":
        monkeypatch.setattr(judges, "judge", lambda _folder, _saved, data, *_: found.append(data))
        return judges.main, found
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(ROOT / "experiments")
    judge = importlib.import_module("judge")
    aucs = {name: [0.5] for name in judge.CLASSIFIERS}
    read = judge.read_reals
    monkeypatch.setattr(judge, "read_reals", lambda folder, data: found.append(data) or read(folder, data))
    monkeypatch.setattr(judge, "areas", lambda *_: {"generated": aucs, "floor": aucs})
    return judge.main, found


@pytest.mark.parametrize(
    ("name", "flag", "place", "other"),
    [("music", "--data_dir", "tunes", "tunes/train"), ("text", "--data_path", "lines.txt", "few.txt")],
)
def test_data_that_have_moved_can_be_named(name, flag, place, other, command, finished, capsys):
    main, found = command
    log_dir = str(finished / name / "train")
    assert call(main, log_dir) == 2
    assert_one_line_error(capsys, flag)
    (finished / "moved/few.txt").write_text("".join(f"{line}\n" for line in LINES[:100]))
    assert call(main, log_dir, flag, str(finished / "moved" / other)) == 2
    assert_one_line_error(capsys, flag, "this run began with")
    assert found == []
    assert call(main, log_dir, flag, str(finished / "moved" / place)) == 0
    (data,) = found
    assert data.seq_len == {"music": 8, "text": 5}[name]


@pytest.mark.parametrize(("name", "flag"), [("music", "--data_path"), ("text", "--data_dir"), ("oracle", "--data_dir")])
def test_a_place_that_the_runs_data_set_does_not_have_is_refused(name, flag, command, finished, capsys):
    main, found = command
    before = snapshot(finished)
    assert call(main, str(finished / name / "train"), flag, str(finished / "moved")) == 2
    assert_one_line_error(capsys, flag, "--dataset")
    assert found == [] and snapshot(finished) == before
