"""The tests that need a GPU, in a process of their own, where there is one: all other tests are the same on every machine."""

import os
import subprocess
import sys

import pytest
import torch
from helpers.cli import ROOT

FILES = ("tests/fast", "tests/test_cuda_commands.py")


def with_gpu(*command: str) -> subprocess.CompletedProcess:
    """A command of Python that sees the devices that the tests were started with."""
    env = os.environ | {"SEQGAN_TESTS_ON_GPU": "1", "CUDA_VISIBLE_DEVICES": os.environ["SEQGAN_VISIBLE_DEVICES"]}
    if env["CUDA_VISIBLE_DEVICES"] == "all":
        del env["CUDA_VISIBLE_DEVICES"]
    env.pop("TRITON_INTERPRET", None)
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_no_other_test_sees_a_gpu():
    assert not torch.cuda.is_available()


def test_what_needs_a_gpu_passes_on_it():
    if torch.version.cuda is None or with_gpu("-c", "import torch; torch.cuda.current_device()").returncode:
        pytest.skip("needs CUDA")
    done = with_gpu("-m", "pytest", *FILES, "-k", "cuda or triton", "-q", "--numprocesses=4")
    assert done.returncode == 0, done.stdout[-5000:]
