"""--start_from: a run that begins where the pre-training of another one ended."""

import json

import pytest
from helpers.cli import assert_one_line_error, folders, json_lines, run, same, snapshot, trained_state
from helpers.stops import STOPPED, run_until

PRETRAINING = ["--pretrain_g_epochs", "3", "--total_epochs", "0", "--train_size", "12"]


@pytest.fixture
def mle(tmp_path):
    """The training folder of a pre-trained run, which the test may change."""
    assert run(*PRETRAINING, *folders(tmp_path / "mle")) == 0
    return tmp_path / "mle/train"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder with sources that no test changes: a pre-trained run, a copy of its checkpoint, a trained run, a broken file."""
    folder = tmp_path_factory.mktemp("sources")
    assert run(*PRETRAINING, *folders(folder / "mle")) == 0
    assert run("--pretrain_g_epochs", "1", "--pretrain_d_epochs", "1", "--total_epochs", "1", *folders(folder / "done")) == 0
    (folder / "copy.pt").write_bytes((folder / "mle/train/last.pt").read_bytes())
    (folder / "broken.pt").write_bytes(b"no checkpoint")
    return folder


@pytest.mark.parametrize("reward", ["discriminator", "random"])
def test_a_run_from_a_checkpoint_is_the_uninterrupted_run(reward, shared, tmp_path):
    source = str(shared / "mle/train")
    before = snapshot(shared)
    rest = ["--pretrain_d_epochs", "2", "--total_epochs", "3", "--reward", reward]
    assert run(*rest, "--start_from", source, *folders(tmp_path / "started")) == 0
    assert run("--pretrain_g_epochs", "3", "--train_size", "12", *rest, *folders(tmp_path / "whole")) == 0
    assert same(trained_state(tmp_path / "started" / "train"), trained_state(tmp_path / "whole" / "train"))
    assert snapshot(shared) == before
    rows, whole = (json_lines(tmp_path / name / "train" / "metrics.jsonl") for name in ("started", "whole"))
    assert rows[0]["step"] == 3  # the curve begins where the other ended
    assert rows[-1] == whole[-1]
    assert json.loads((tmp_path / "started" / "train" / "config.json").read_text())["args"]["start_from"] == source


def test_a_started_run_can_be_resumed_without_its_source(mle, tmp_path):
    flags = ["--pretrain_d_epochs", "1", "--start_from", str(mle)]
    assert run(*flags, "--total_epochs", "4", *folders(tmp_path / "whole")) == 0
    assert run(*flags, "--total_epochs", "2", *folders(tmp_path / "parts")) == 0
    (mle / "last.pt").unlink()
    assert run("--resume", "--total_epochs", "4", *folders(tmp_path / "parts")) == 0
    assert same(trained_state(tmp_path / "whole" / "train"), trained_state(tmp_path / "parts" / "train"))


@pytest.mark.parametrize("source", ["mle/train", "mle/train/last.pt"])
def test_overwrite_does_not_replace_the_source(source, shared, monkeypatch, capsys):
    monkeypatch.chdir(shared)
    before = snapshot(shared)
    assert run("--start_from", source, "--overwrite", *folders(shared / "mle")) == 2
    assert_one_line_error(capsys, f"--start_from {source}", "replace that one")
    assert snapshot(shared) == before


@pytest.mark.parametrize(
    "new",
    [
        ["--log_dir", "new/train", "--eval_log_dir", "mle/eval"],
        ["--log_dir", "new/train", "--eval_log_dir", "mle/train"],
        ["--log_dir", "mle/eval", "--eval_log_dir", "new/eval"],
    ],
)
@pytest.mark.parametrize("source", ["mle/train", "copy.pt"])
def test_overwrite_replaces_neither_folder_of_the_source(source, new, shared, monkeypatch, capsys):
    """The evaluations belong to the source as well; a copy of its checkpoint still names both folders."""
    monkeypatch.chdir(shared)
    before = snapshot(shared)
    assert run("--start_from", source, "--overwrite", *new) == 2
    assert_one_line_error(capsys, f"--start_from {source}", "replace that one")
    assert snapshot(shared) == before


def test_the_former_folder_of_a_moved_source_may_be_used(mle, tmp_path):
    mle.parent.rename(tmp_path / "moved")
    rest = ["--pretrain_d_epochs", "1", "--total_epochs", "1", "--start_from", "moved/train"]
    assert run(*rest, *folders(tmp_path / "mle")) == 0


def test_an_untrained_discriminator_may_have_other_sizes(shared, tmp_path):
    source = ["--start_from", str(shared / "mle/train")]
    flags = ["--d_filters", "1x3,3x5", "--pretrain_d_epochs", "1", "--total_epochs", "1", *source]
    assert run(*flags, *folders(tmp_path / "other")) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--start_from", "missing"], ["missing"]),
        (["--start_from", "mle/train", "--g_hidden_dim", "9"], ["--g_hidden_dim 9", "4"]),
        (["--start_from", "mle/train", "--seed", "2"], ["--seed 2"]),
        (["--start_from", "mle/train", "--pretrain_g_epochs", "9"], ["--pretrain_g_epochs 9"]),
        (["--start_from", "mle/train", "--is_train", "False"], ["--is_train"]),
        (["--start_from", "done/train"], ["adversarial epochs already"]),
        (["--start_from", "broken.pt"], ["broken.pt"]),
        (["--reward_constant", "0.2"], ["--reward is discriminator", "no effect without --reward constant"]),
        (["--reward", "applause"], ["invalid choice"]),
        (["--scheduled_sampling", "2"], ["at most 1"]),
    ],
)
def test_flags_that_do_not_fit_end_with_one_line(flags, words, shared, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(shared)
    before = snapshot(shared)
    assert run(*flags, *folders(tmp_path)) == 2
    assert_one_line_error(capsys, *words)
    assert snapshot(shared) == before
    assert not list(tmp_path.iterdir())


def test_a_new_run_that_could_not_be_resumed_is_refused(shared, tmp_path, capsys):
    """Its source has more epochs of D than the new run is to have."""
    source = tmp_path / "source"
    assert run_until("pretrain_d", 3, "--pretrain_g_epochs", "1", "--pretrain_d_epochs", "5", *folders(source)) == STOPPED
    capsys.readouterr()
    flags = ["--start_from", str(source / "train"), "--total_epochs", "1", "--pretrain_g_epochs", "1"]
    flags += folders(tmp_path / "new")
    assert run(*flags, "--pretrain_d_epochs", "2") == 2
    assert_one_line_error(capsys, "--pretrain_d_epochs 2: the run of --start_from has made 3 epochs of that phase already")
    assert not (tmp_path / "new").exists()
    assert run(*flags, "--pretrain_d_epochs", "4") == 0
    assert run("--resume", "--total_epochs", "2", *folders(tmp_path / "new")) == 0
