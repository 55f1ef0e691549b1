"""The same tests on every machine.

One thread for each test process and for what it starts: they share the cores, and tiny sizes gain nothing from more. No test sees a
GPU but in the process that tests/test_gpu.py starts.
"""

import os

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is loaded, which pytest-xdist's main process need not do
if "SEQGAN_TESTS_ON_GPU" not in os.environ:
    os.environ.setdefault("SEQGAN_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))  # for tests/test_gpu.py
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _torch_draws_unless_a_test_says_otherwise():
    """A command that ran in this process has chosen what draws."""
    yield
    import torch

    from fast import native

    native.set_up("False", torch.device("cpu"))
