"""Commands on a GPU: they run there, resume bit for bit, and go on on a CPU."""

import json

import pytest
import torch
from helpers.cli import assert_one_line_error, call, folders, json_lines, run, same, trained_state

import main
import sample
from support.device import choose_device, describe_device

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
SHORT = "--pretrain_g_epochs 5 --pretrain_d_epochs 2 --total_epochs 3 --train_size 20 --threads 1".split()


def checkpointed(folder, *flags):
    assert run(*SHORT, *flags, *folders(folder)) == 0
    return trained_state(folder / "train")


def test_auto_takes_the_gpu_and_names_it():
    device = choose_device("auto")
    assert device == choose_device("cuda") == torch.device("cuda", 0)
    assert torch.cuda.get_device_name() in describe_device(device)


def test_a_gpu_that_is_not_there_is_refused(tmp_path, capsys):
    assert run("--device", "cuda:99", *folders(tmp_path)) == 2
    assert_one_line_error(capsys, "cuda:99", "counted from 0")


@pytest.mark.parametrize("native", ["False", "True"])
def test_a_run_is_repeatable_and_resumes_bit_for_bit(native, tmp_path, capsys):
    flags = ["--device", "cuda", "--native_draws", native]
    whole = checkpointed(tmp_path / "whole", *flags)
    assert same(whole, checkpointed(tmp_path / "again", *flags))
    checkpointed(tmp_path / "parts", *flags, "--total_epochs", "1")
    assert run("--resume", "--total_epochs", "3", *folders(tmp_path / "parts")) == 0, capsys.readouterr().err
    assert same(whole, trained_state(tmp_path / "parts/train"))
    config = json.loads((tmp_path / "whole/train/config.json").read_text())
    assert "cuda:0" in json.dumps(config)
    capsys.readouterr()


def test_cuda_and_cpu_follow_each_other(tmp_path, capsys):
    rows = []
    for device in ("cuda", "cpu"):
        checkpointed(tmp_path / device, "--device", device, "--d_keep_prob", "1")
        rows.append(json_lines(tmp_path / device / "train/metrics.jsonl"))
    for one, other in zip(*rows, strict=True):
        assert one == {key: pytest.approx(value, rel=1e-2, abs=1e-2) for key, value in other.items()}
    assert "warning" not in capsys.readouterr().err


def test_a_run_goes_on_on_the_other_device(tmp_path, capsys):
    checkpointed(tmp_path, "--device", "cuda")
    assert run("--resume", "--total_epochs", "4", "--device", "cpu", *folders(tmp_path)) == 0, capsys.readouterr().err
    assert run("--resume", "--total_epochs", "5", "--device", "cuda", *folders(tmp_path)) == 0, capsys.readouterr().err
    for device in ("cpu", "cuda"):
        capsys.readouterr()
        assert call(sample.main, str(tmp_path / "train"), "--num", "3", "--device", device) == 0
        assert len(capsys.readouterr().out.splitlines()) == 3


def test_evaluation_alone_and_a_profile(tmp_path, capsys):
    checkpointed(tmp_path, "--device", "cuda", "--profile")
    names = {path.name for path in (tmp_path / "train/profile").iterdir()}
    assert {"pretrain_g.json.gz", "adversarial.json.gz", "adversarial.txt"} <= names
    assert call(main.main, "--is_train", "False", "--resume", *folders(tmp_path)) == 0, capsys.readouterr().err
