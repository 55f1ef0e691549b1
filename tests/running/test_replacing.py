"""A new run in place of an old one: at every moment there is the old one, or a new one that goes on."""

import itertools
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from helpers.cli import TINY, assert_one_line_error, call, folders, json_lines, run, same, scalars, snapshot, trained_state
from helpers.file_operations import ending_at
from helpers.processes import start, wait_for_epochs

import main
from running.checkpoint import load_run
from running.run_folder import FolderLocks
from running.settings import _check_own_folders
from support.errors import UserError

SHORT = ["--pretrain_g_epochs", "2", "--total_epochs", "0", "--eval_every", "1"]
NEW = [*SHORT, "--seed", "2", "--overwrite"]


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    assert run(*SHORT, *folders(folder)) == 0
    return folder


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new")
    assert run(*SHORT, "--seed", "2", *folders(folder)) == 0
    return folder


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "full disk"])
def test_at_every_file_operation_there_is_the_old_run_or_the_new_one(old, new, tmp_path, capsys, kill):
    """Whatever is left goes on: the old run as if nothing had been, the new one to the end that it would have had."""
    untouched, where = 0, tmp_path / "runs"
    for operation in itertools.count(1, step=2 if kill else 5):
        shutil.rmtree(where, ignore_errors=True)
        shutil.copytree(old, where)
        before = snapshot(where)
        capsys.readouterr()
        with ending_at(operation, where, kill) as watch:
            status = run(*NEW, *folders(where))
        if not watch.reached:
            break
        if not kill:
            assert status == 2
            assert_one_line_error(capsys, "No space left on device")
        seed = load_run(where / "train/last.pt")["args"]["seed"]
        if seed == 1:
            untouched += 1
            left = {name: data for name, data in snapshot(where).items() if not Path(name).name.startswith(".")}
            assert left == before
            continue
        assert call(main.main, "--resume", "--log_dir", str(where / "train")) == 0, capsys.readouterr().err
        assert same(trained_state(where / "train"), trained_state(new / "train"))
        assert json_lines(where / "train/metrics.jsonl") == json_lines(new / "train/metrics.jsonl")
        assert scalars(where / "eval") == scalars(new / "eval")
    assert untouched and operation > 20  # before and after the rename of the first checkpoint


@pytest.mark.parametrize("flags", [["--oracle_params", "/nowhere"], ["--device", "cuda:77"], ["--d_filters", "9x4"]])
def test_flags_that_are_refused_leave_the_old_run_as_it_was(old, tmp_path, capsys, flags):
    shutil.copytree(old, tmp_path / "runs")
    before = snapshot(tmp_path)
    assert run(*NEW, *flags, *folders(tmp_path / "runs")) == 2
    assert_one_line_error(capsys)
    assert snapshot(tmp_path) == before


def test_the_first_checkpoint_goes_on_into_no_other_runs_folder(old, tmp_path, capsys, monkeypatch):
    """A process that died before its first evaluation: what it was to replace lies in its own folders only."""
    shutil.copytree(old, tmp_path / "other")

    def killed(_log):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("running.run_log.RunLog.open", killed)
        assert run(*SHORT, *folders(tmp_path / "runs")) == 130
    assert load_run(tmp_path / "runs/train/last.pt")["begun"] is False
    before = snapshot(tmp_path)
    flags = ["--log_dir", str(tmp_path / "runs/train"), "--eval_log_dir", str(tmp_path / "other/eval")]
    assert call(main.main, "--resume", *flags) == 2
    assert_one_line_error(capsys, "holds another run's events")
    assert snapshot(tmp_path) == before


def test_the_folder_of_evaluations_is_locked_too(tmp_path, capsys):
    process = start("--pretrain_g_epochs", "100000", *folders(tmp_path), cwd=tmp_path)
    wait_for_epochs(process, tmp_path / "train", 1)
    flags = ["--log_dir", str(tmp_path / "other"), "--eval_log_dir", str(tmp_path / "eval"), "--overwrite"]
    assert run(*SHORT, *flags) == 2
    assert_one_line_error(capsys, "eval: another process is at work on this run")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert scalars(tmp_path / "eval")["nll"][0][0] == 0


def test_a_run_that_goes_on_reads_its_checkpoint_under_the_lock(old, tmp_path, capsys, monkeypatch):
    """Another process that still trains would replace it between reading and locking."""
    shutil.copytree(old, tmp_path / "runs")
    path, held = tmp_path / "runs/train/last.pt", []
    monkeypatch.setattr("running.settings.load_run", lambda path: held.append(path) or load_run(path))
    with FolderLocks() as locks:
        locks.take(path.parent)
        assert call(main.main, "--resume", "--log_dir", str(path.parent)) == 2
    assert_one_line_error(capsys, "another process")
    assert held == []
    flags = ["--log_dir", str(path.parent), "--eval_log_dir", str(tmp_path / "runs/eval")]
    assert call(main.main, "--resume", *flags, "--pretrain_g_epochs", "3") == 0
    assert held == [path]


def test_locks_know_a_folder_by_any_of_its_names(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").symlink_to(tmp_path / "one")
    with FolderLocks() as locks:
        locks.take(tmp_path / "one", tmp_path / "two", tmp_path / "one/../one")
    with FolderLocks() as locks:
        locks.take(tmp_path / "two")


@pytest.mark.parametrize("place", ["elsewhere", "runs/train/../../elsewhere", "runs/other/train"])
def test_a_checkpoint_does_not_choose_where_evaluations_are_written(old, tmp_path, capsys, place):
    """A stranger's checkpoint would make --resume write anywhere."""
    shutil.copytree(old, tmp_path / "runs")
    path = tmp_path / "runs/train/last.pt"
    payload = torch.load(path, weights_only=True)
    payload["folders"] = {"log": str(path.parent), "eval": str(tmp_path / place)}
    torch.save(payload, path)
    before = snapshot(tmp_path)
    assert call(main.main, "--resume", "--log_dir", str(path.parent)) == 2
    assert_one_line_error(capsys, "give --eval_log_dir DIR")
    assert snapshot(tmp_path) == before


def test_a_run_directly_below_the_root_has_its_evaluations_beside_it():
    """A usual place in containers."""
    for eval_log_dir in ("/eval", "/eval/output", "/output/eval"):
        _check_own_folders(Path("/output"), {"log": "/output", "eval": eval_log_dir})
    with pytest.raises(UserError, match="give --eval_log_dir DIR"):
        _check_own_folders(Path("/output"), {"log": "/output", "eval": "/etc"})


def test_a_strangers_first_checkpoint_removes_no_events(old, tmp_path, capsys):
    """It says that its process was to replace what lies beside it."""
    path = tmp_path / "runs/train/last.pt"
    shutil.copytree(old, tmp_path / "runs")
    payload = torch.load(path, weights_only=True)
    payload |= {"begun": False, "token": "", "marks": {"log": {}, "eval": {}}}
    payload["folders"] = {"log": str(path.parent), "eval": str(tmp_path / "runs/eval")}
    for token in ("", "a"):
        torch.save({**payload, "token": token}, path)
        before = snapshot(tmp_path)
        for flags in ([], ["--eval_log_dir", str(tmp_path / "runs/eval")]):
            assert call(main.main, "--resume", "--log_dir", str(path.parent), *flags) == 2
            assert_one_line_error(capsys, "holds another run's events")
            assert snapshot(tmp_path) == before


KINDS = {
    "pipe": lambda path, _mine: os.mkfifo(path),
    "folder": lambda path, _mine: path.mkdir(),
    "link": lambda path, mine: path.symlink_to(mine),
    "second name": lambda path, mine: os.link(mine, path),
}
NAMES = ("train/metrics.jsonl", "train/previous.pt", "eval/events.out.tfevents.1", "train/.last.pt.partial")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_of_the_run_is_neither_waited_for_nor_written_to(old, tmp_path, capsys, name, kind):
    shutil.copytree(old, tmp_path / "runs")
    mine, path = tmp_path / "mine", tmp_path / "runs" / name
    mine.write_text("mine")
    path.unlink(missing_ok=True)
    KINDS[kind](path, mine)
    places = ["--log_dir", str(tmp_path / "runs/train"), "--eval_log_dir", str(tmp_path / "runs/eval")]
    replaced = kind == "second name" and name.endswith((".pt", ".partial"))  # never written into
    before = None if replaced else snapshot(tmp_path / "runs/eval")
    for flags in (["--resume"], [*TINY, *NEW]):
        assert call(main.main, *flags, *places) == (0 if replaced else 2)
        if not replaced:
            assert_one_line_error(capsys, Path(name).name)
            assert snapshot(tmp_path / "runs/eval") == before
        assert mine.read_text() == "mine"


def test_logs_that_lack_a_part_are_named_and_stay_lines(old, tmp_path, capsys):
    shutil.copytree(old, tmp_path / "runs")
    path = tmp_path / "runs/train/training.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    flags = ["--log_dir", str(path.parent), "--eval_log_dir", str(tmp_path / "runs/eval"), "--pretrain_g_epochs", "3"]
    assert call(main.main, "--resume", *flags) == 0
    assert "training.jsonl is shorter than the checkpoint says" in capsys.readouterr().out
    assert [row["epoch"] for row in json_lines(path)] == [1, 3]


@pytest.mark.parametrize("place", ["runs/eval", "runs/eval/train", "eval/train", "runs/train", "runs/train/evaluations"])
def test_folders_beside_the_run_are_found_again(tmp_path, place):
    flags = ["--log_dir", str(tmp_path / "runs/train"), "--eval_log_dir", str(tmp_path / place)]
    assert run(*SHORT, *flags) == 0
    assert call(main.main, "--resume", "--log_dir", str(tmp_path / "runs/train"), "--pretrain_g_epochs", "3") == 0
    assert [step for step, _ in scalars(tmp_path / place)["nll"]] == [0, 1, 2, 3]


def test_a_checkpoint_names_no_file_to_write_the_oracle_to(old, tmp_path):
    shutil.copytree(old, tmp_path / "runs")
    path = tmp_path / "runs/train/last.pt"
    payload = torch.load(path, weights_only=True)
    payload["args"]["save_oracle"] = str(tmp_path / "oracle.npz")
    torch.save(payload, path)
    flags = ["--resume", "--log_dir", str(path.parent), "--eval_log_dir", str(tmp_path / "runs/eval"), "--pretrain_g_epochs", "3"]
    assert call(main.main, *flags) == 0
    assert not (tmp_path / "oracle.npz").exists()
    assert call(main.main, *flags, "--save_oracle", str(tmp_path / "mine.npz")) == 0
    assert (tmp_path / "mine.npz").exists()
