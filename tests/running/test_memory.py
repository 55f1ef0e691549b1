"""The memory that a run says it needs."""

import argparse
import re
import subprocess
import sys

import pytest
from helpers.cli import ROOT, TINY, run

import main
from running import memory
from running.flags import preset_settings
from support.errors import UserError

RUN_WITH_FEW_SEQUENCES = """
import sys
sys.path.insert(0, {root!r})
import data_loader, main
data_loader.ENTROPY_SEQUENCES = 1000
sys.exit(main.main())
"""


@pytest.mark.parametrize(
    "sizes",
    [
        "--vocab_size 30000 --seq_len 10 --batch_size 8 --rollout_num 4",
        "--vocab_size 60 --seq_len 100 --rollout_num 8",
        "--vocab_size 1000 --seq_len 20 --batch_size 64",
    ],
)
def test_a_run_needs_about_what_it_says(tmp_path, sizes):
    """The oracle's entropy is of 1,000 sequences here, not 10,000: as many as are evaluated at a time."""
    networks = "--g_emb_dim 32 --g_hidden_dim 50 --d_emb_dim 32 --d_filters 3x50,5x80 --oracle_emb_dim 20 --oracle_hidden_dim 50"
    epochs = "--pretrain_g_epochs 1 --pretrain_d_epochs 1 --total_epochs 1 --threads 1"
    flags = f"--batch_size 32 --rollout_num 16 {networks} {epochs} {sizes} --log_dir train --eval_log_dir eval".split()
    # a small process between: a child counts as large as its parent was when it began
    program = "import resource, subprocess, sys; status = subprocess.call(sys.argv[1:], stderr=subprocess.DEVNULL)\n"
    program += "print('PEAK', status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    command = [sys.executable, "-c", program, sys.executable, "-c", RUN_WITH_FEW_SEQUENCES.format(root=str(ROOT)), *TINY, *flags]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    said = float(re.search(r"needs about ([\d.]+) GiB", output)[1])
    status, kilobytes = map(int, re.search(r"PEAK (\d+) (\d+)", output).groups())
    assert status == 0
    assert 0.6 * said < kilobytes / 2**20 < 1.5 * said + 0.1


def test_a_machine_with_too_little_memory_is_named(monkeypatch):
    args = argparse.Namespace(**{**preset_settings("default"), "vocab_size": 100_000, "seq_len": 200})
    monkeypatch.setattr(memory, "machine_bytes", lambda: 2**29)
    assert "this machine has 0.5 GiB" in memory.summary(args, 4)
    monkeypatch.setattr(memory, "machine_bytes", lambda: 2**40)
    assert "this machine" not in memory.summary(args, 4)


def test_what_a_run_needs_is_said_before_anything_is_drawn(monkeypatch, capsys):
    def no_data(*_, **__):
        raise UserError("no data")

    monkeypatch.setattr(main, "make_data", no_data)
    assert run() == 2
    assert "needs about" in capsys.readouterr().out
