"""The program on a fake device: nothing mixes devices, and no function that is to be recorded does what a CUDA graph can't hold."""

import sys

import pytest
import torch
from helpers import small_runs
from helpers.cli import ROOT, call, folders, run, same, trained_state
from helpers.fake_device import FAKE, FakeDeviceTensor, StrictRunner, fake_device
from helpers.small_runs import SETTINGS, trained
from helpers.tunes import split_folder

sys.path.append(str(ROOT / "benchmarks"))

import run as benchmarks
from scaling import point

import judges
import main
import sample
import train_state
from fast import categorical
from fast.cuda_graphs import PLAIN_RUNNER
from support.errors import UserError


@pytest.fixture
def device(monkeypatch):
    """The fake device, with a runner that refuses what a CUDA graph can't hold."""
    monkeypatch.setattr(train_state, "make_runner", lambda where, *_: StrictRunner() if where == FAKE else PLAIN_RUNNER)
    for module in (main, sample, judges):
        monkeypatch.setattr(module, "choose_device", lambda _: FAKE)
    with fake_device():
        yield FAKE


def test_the_device_is_as_strict_as_a_gpu(device):
    there, here = torch.ones(3, device=device), torch.ones(3)
    assert there.device == (there + 1).device == device
    assert (2 * there).tolist() == [2, 2, 2]
    there.view(3)[1:].mul_(5)
    assert there.tolist() == [1, 5, 5]
    layer = torch.nn.Linear(3, 1).to(device)
    assert isinstance(layer.weight, FakeDeviceTensor)
    layer(there).sum().backward()
    assert layer.weight.grad.tolist() == [[1, 5, 5]]
    assert torch.rand(3, generator=torch.Generator(device), device=device).device == device
    for mixed in (lambda: there + here, lambda: there[here.long()], lambda: torch.add(here, 1, out=there)):
        with pytest.raises(RuntimeError, match="different devices"):
            mixed()
    with pytest.raises(RuntimeError, match="random stream"):
        torch.rand(3, generator=torch.Generator(), device=device)
    with pytest.raises(RuntimeError):
        there.numpy()


@pytest.mark.parametrize(
    "wrong",
    [lambda x: x.sum().item(), lambda x: bool(x[0] > 0), lambda x: x.cpu(), lambda x: x.copy_(torch.ones(3)), lambda x: x[x > 0]],
)
def test_the_runner_refuses_what_a_recording_would(wrong, device):
    x = torch.ones(3, device=device)
    wrong(x)
    with pytest.raises(RuntimeError, match="to be recorded"):
        StrictRunner().run("bad", wrong, x)


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - {"bf16"}))  # torch knows no autocast for this device
def test_training_is_that_of_the_gpus_code_on_the_cpu(name, monkeypatch, device):
    monkeypatch.setattr(small_runs, "EPOCHS", 2)
    there, numbers = trained(None, monkeypatch, device, **SETTINGS[name])
    assert there.runner.names
    _, expected = trained(None, monkeypatch, **SETTINGS[name])
    for values, others in zip(numbers, expected, strict=True):
        assert values == {key: pytest.approx(value, rel=1e-3, abs=1e-5) for key, value in others.items()}


SHORT = "--pretrain_g_epochs 2 --pretrain_d_epochs 1 --total_epochs 1 --d_epochs 1 --train_size 8".split()


def test_a_run_resumes_on_the_device_and_on_the_cpu(tmp_path, device, monkeypatch, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*SHORT, "--total_epochs", "2", *folders(whole)) == 0, capsys.readouterr().err
    assert run(*SHORT, *folders(parts)) == 0, capsys.readouterr().err
    assert run("--resume", *folders(parts), "--total_epochs", "2") == 0, capsys.readouterr().err
    assert same(trained_state(whole / "train"), trained_state(parts / "train"))
    assert run("--resume", *folders(whole), "--is_train", "False") == 0, capsys.readouterr().err
    for where in (device, torch.device("cpu")):
        monkeypatch.setattr(sample, "choose_device", lambda _, where=where: where)
        capsys.readouterr()
        assert call(sample.main, str(whole / "train"), "--num", "3") == 0
        assert len(capsys.readouterr().out.splitlines()) == 3
    monkeypatch.setattr(main, "choose_device", lambda _: torch.device("cpu"))
    assert run("--resume", *folders(whole), "--total_epochs", "3") == 0, capsys.readouterr().err


def test_a_run_on_music_mixes_no_devices(tmp_path, device, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tunes = split_folder(tmp_path / "tunes", 5, 2, 3)
    music = ["--dataset", "Nottingham", "--vocab_size", "89", "--seq_len", "8", "--data_dir", str(tunes)]
    assert run(*SHORT, "--train_size", "0", *music, *folders(tmp_path)) == 0, capsys.readouterr().err
    prime = next((tmp_path / "train").rglob("*.mid"))
    flags = ["--prime", str(prime), "--length", "12", "--out", str(tmp_path / "song.mid")]
    assert call(sample.main, str(tmp_path / "train"), *flags) == 0
    assert (tmp_path / "song.mid").stat().st_size


def test_judges_and_resampling_mix_no_devices(tmp_path, device, monkeypatch, capsys):
    for name, value in (("MOST_UPDATES", 4), ("EVERY", 2), ("SAMPLES", 30), ("BATCH", 4)):
        monkeypatch.setattr(f"residual.judges.{name}", value)
    monkeypatch.setattr("residual.model.AT_ONCE", 40)
    monkeypatch.setattr("running.judging.SAMPLES", 50)
    assert run(*SHORT, "--judges", "2", *folders(tmp_path)) == 0, capsys.readouterr().err
    assert call(sample.main, str(tmp_path / "train"), "--num", "3", "--resample", "4") == 0, capsys.readouterr().err
    flags = [str(tmp_path / "train"), "--judges", "0", "--which", "last", "--samples", "100", "--overwrite"]
    assert call(judges.main, *flags) == 0, capsys.readouterr().err


def test_the_benchmarks_mix_no_devices(device, monkeypatch):
    monkeypatch.setattr(benchmarks, "SAMPLES", 10)
    monkeypatch.setattr("data_loader.ENTROPY_SEQUENCES", 100)
    monkeypatch.setitem(categorical.DRAW_ELEMENTS, device.type, 1000)
    tiny = dict(vocab_size=12, seq_len=5, batch_size=6, rollout_num=2, d_filters=[[2, 4], [3, 4]], train_size=0, d_steps=1)
    assert point(tiny, device, repeats=1)["seconds"] > 0
    setting = benchmarks.Setting("original", device, **tiny)
    for make in benchmarks.PARTS.values():
        part = make(setting)
        part.fast()
        part.plain()
        assert benchmarks.products_seconds(part, device) > 0


def test_no_memory_is_promised_that_is_not_the_cpus(device, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(main, "make_state", lambda *_: (_ for _ in ()).throw(UserError("no state")))
    assert run(*folders(tmp_path)) == 2
    assert "needs about" not in capsys.readouterr().out
