"""Tiny sizes gain nothing from threads, and lose much where other processes share the cores."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)
