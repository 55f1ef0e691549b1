"""--profile: a trace of each phase, and nothing without the flag."""

import gzip
import json

import torch
from helpers.cli import folders, run


def test_the_trace_of_each_phase_has_the_threads_that_draw(tmp_path):
    epochs = "--pretrain_g_epochs 3 --pretrain_d_epochs 3 --total_epochs 4 --d_epochs 1".split()
    before = torch.get_num_threads()
    # 18 rows at a time: each prefix is a task of its own
    sizes = ["--batch_size", "8", "--rollout_num", "8", "--threads", "2"]
    assert run("--profile", "--evaluate", "False", *epochs, *sizes, *folders(tmp_path)) == 0
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
    assert run("--pretrain_g_epochs", "3", "--total_epochs", "0", *folders(tmp_path)) == 0
    assert not (tmp_path / "train" / "profile").exists()
