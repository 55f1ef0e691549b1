"""--profile, and the memory that a run says it needs."""

import argparse
import gzip
import json
import re
import subprocess
import sys

import pytest
import torch
from helpers.cli import ROOT, TINY, run

import main
from running import memory
from running.flags import preset_settings
from support.errors import UserError


def test_a_trace_of_each_phase_with_the_threads_that_draw(tmp_path):
    flags = ["--profile", "--pretrain_g_epochs", "3", "--pretrain_d_epochs", "3", "--total_epochs", "4", "--batch_size", "8"]
    before = torch.get_num_threads()
    folders = ["--log_dir", str(tmp_path / "train"), "--eval_log_dir", str(tmp_path / "eval")]
    # 18 rows at a time: each prefix is a piece of its own
    assert run(*flags, *folders, "--threads", "2", "--rollout_num", "8") == 0
    torch.set_num_threads(before)
    folder = tmp_path / "train" / "profile"
    for phase in ("pretrain_g", "pretrain_d", "adversarial"):
        with gzip.open(folder / f"{phase}.json.gz") as file:
            events = json.load(file)["traceEvents"]
        assert any(event.get("name") == "aten::mm" for event in events)
        assert "Self CPU" in (folder / f"{phase}.txt").read_text()
    assert len({event["tid"] for event in events if event.get("cat") == "cpu_op"}) > 1
    assert not list(folder.glob(".*"))


def test_without_the_flag_nothing_is_recorded(tmp_path):
    folders = ["--log_dir", str(tmp_path / "train"), "--eval_log_dir", str(tmp_path / "eval")]
    assert run("--pretrain_g_epochs", "3", "--total_epochs", "0", *folders) == 0
    assert not (tmp_path / "train" / "profile").exists()


@pytest.mark.parametrize(
    "sizes",
    [
        "--vocab_size 30000 --seq_len 10",
        "--vocab_size 300 --seq_len 100 --rollout_num 8",
        "--vocab_size 5000 --seq_len 20 --batch_size 64",
    ],
)
def test_a_run_needs_about_what_it_says(tmp_path, sizes):
    networks = "--g_emb_dim 32 --g_hidden_dim 50 --d_emb_dim 32 --d_filters 3x50,5x80 --oracle_emb_dim 20 --oracle_hidden_dim 50"
    epochs = "--pretrain_g_epochs 1 --pretrain_d_epochs 1 --total_epochs 1 --threads 2"
    flags = f"--batch_size 32 --rollout_num 16 {networks} {epochs} {sizes} --log_dir train --eval_log_dir eval".split()
    # a small process between: a child counts as large as its parent was when it began
    program = "import resource, subprocess, sys; status = subprocess.call(sys.argv[1:], stderr=subprocess.DEVNULL)\n"
    program += "print('PEAK', status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    command = [sys.executable, "-c", program, sys.executable, str(ROOT / "main.py"), *TINY, *flags]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    said = float(re.search(r"needs about ([\d.]+) GiB", output)[1])
    status, kilobytes = map(int, re.search(r"PEAK (\d+) (\d+)", output).groups())
    assert status == 0
    assert 0.6 * said < kilobytes / 2**20 < 1.5 * said + 0.1


def test_more_than_the_machine_has_is_said(monkeypatch):
    args = argparse.Namespace(**{**preset_settings("default"), "vocab_size": 100_000, "seq_len": 200})
    monkeypatch.setattr(memory, "machine_bytes", lambda: 2**29)
    assert "this machine has 0.5 GiB" in memory.summary(args, 4, on_cpu=True)
    assert "this machine" not in memory.summary(args, 4, on_cpu=False)
    monkeypatch.setattr(memory, "machine_bytes", lambda: 2**40)
    assert "this machine" not in memory.summary(args, 4, on_cpu=True)


def test_what_a_run_needs_is_said_before_anything_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def no_data(*_, **__):
        raise UserError("no data")

    monkeypatch.setattr(main, "make_data", no_data)
    assert run() == 2
    assert "needs about" in capsys.readouterr().out
