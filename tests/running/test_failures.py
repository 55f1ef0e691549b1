"""Runs that fail half-way, each with one line on stderr: divergence, a full disk, a terminal of another encoding."""

import io
import resource
import sys

import torch
from helpers.cli import ROOT, TINY, assert_one_line_error, folders, run
from helpers.processes import popen


def test_divergence_ends_with_one_line(capsys, tmp_path):
    assert run("--g_lr", "1e38", "--pretrain_g_epochs", "50", *folders(tmp_path)) == 2
    assert_one_line_error(capsys, "loss is nan")


def test_weights_that_are_not_finite_are_not_saved(tmp_path, capsys):
    assert run("--pretrain_g_epochs", "1", "--total_epochs", "0", "--g_lr", "1e38", *folders(tmp_path)) == 2
    assert_one_line_error(capsys, "no longer finite")
    saved = torch.load(tmp_path / "train/last.pt", weights_only=True)["state"]
    assert saved["counts"]["epochs_done"]["pretrain_g"] == 0
    assert all(w.isfinite().all() for w in saved["generator"].values())


def test_a_full_disk_ends_with_one_line(tmp_path, capsys):
    """A limit on the size of files stands for the full disk: the checkpoint does not fit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        assert run("--total_epochs", "0", *folders(tmp_path)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_one_line_error(capsys, "last.pt")
    assert not (tmp_path / "train/last.pt").exists()


RUN_WITH_LIMIT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
sys.path.insert(0, {root!r})
import main
sys.exit(main.main())
"""


def test_events_that_do_not_fit_the_disk_end_with_one_line(tmp_path):
    """TensorBoard's writer is a thread, whose traceback would come on top: only a process of its own shows that."""
    flags = ["--pretrain_g_epochs", "100000", "--save_every", "100000", "--eval_every", "1"]
    process = popen("-c", RUN_WITH_LIMIT.format(root=str(ROOT)), *TINY, *flags, *folders(tmp_path), cwd=tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.count("\n") == 1 and "train" in err, err


def test_characters_that_the_terminal_lacks_are_no_error(tmp_path, monkeypatch):
    terminal = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(terminal, encoding="ascii"))
    assert run("--pretrain_g_epochs", "1", "--total_epochs", "0", *folders(tmp_path)) == 0
    sys.stdout.flush()
    assert rb"\xb1" in terminal.getvalue()  # ± before a standard error


def test_means_of_gradients_that_are_not_finite_are_not_saved(tmp_path, capsys):
    """An Adam whose mean square is infinite changes its weight no more, and the program would refuse the checkpoint."""
    flags = ["--pretrain_g_epochs", "1", "--pretrain_d_epochs", "2", "--total_epochs", "1", "--d_l2", "1e30"]
    assert run(*flags, *folders(tmp_path)) == 2
    assert_one_line_error(capsys, "no longer finite: a lower learning rate may help")
    assert run("--resume", *folders(tmp_path)) == 2  # from the last good checkpoint, which is read
    assert_one_line_error(capsys, "no longer finite")
