"""The same tests on every machine.

One thread for each test process and for what it starts: they share the cores, and tiny sizes gain nothing from more. Commands run
on the CPU, also where there is a GPU, except in tests that ask for it with the fixture `cuda`.
"""

import os

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is loaded, which pytest-xdist's main process need not do


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def cuda():
    """Lets commands of a test take the GPU; skips the test where there is none."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")


@pytest.fixture(autouse=True)
def _commands_take_the_cpu(request, monkeypatch):
    import torch

    if torch.cuda.is_available() and "cuda" not in request.fixturenames:
        torch.cuda.init()  # before the variable hides the GPU from what a test starts
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(autouse=True)
def _torch_draws_unless_a_test_says_otherwise():
    """A command that ran in this process has chosen what draws."""
    yield
    import torch

    from fast import native

    native.set_up("False", torch.device("cpu"))
