"""Choosing a device, and its settings."""

import pytest
import torch

from support.device import choose_device, matmul_precision
from support.errors import UserError
from support.torchrun import VARIABLES


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with two GPUs, as far as choosing one goes; the devices that were made the current one."""
    chosen = []

    def set_device(device):  # torch refuses a device without a number
        if device.index is None:
            raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{device}")
        chosen.append(device)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", torch.backends.cudnn.rnn.fp32_precision)
    return chosen


@pytest.mark.parametrize(("name", "number"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_gpu_is_chosen_with_its_number(name, number, two_gpus):
    assert choose_device(name) == torch.device("cuda", number)
    assert two_gpus == [torch.device("cuda", number)]
    assert torch.backends.cudnn.rnn.fp32_precision == "ieee"


def test_each_process_takes_a_gpu_of_its_own(two_gpus, monkeypatch):
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "3")
    for rank, number in enumerate((0, 1, 0)):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert choose_device("auto").index == number


@pytest.mark.parametrize("name", ["cuda:2", "gpu", "mps"])
def test_other_devices_are_refused(name, two_gpus):
    with pytest.raises(UserError, match=f"--device {name}: "):
        choose_device(name)
    assert not two_gpus


def test_tf32_is_set_inside_the_context_only():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    with matmul_precision("tf32", torch.device("cuda")):
        assert matmul.fp32_precision == "tf32"
    assert matmul.fp32_precision == before
    with matmul_precision("float32", torch.device("cuda")):
        assert matmul.fp32_precision == "ieee"
