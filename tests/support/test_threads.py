"""Tasks on several threads, and the buffers that each thread reuses."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from support.threads import run_all, scratch


def test_an_error_in_a_task_reaches_the_caller():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError):
            run_all([lambda: 1, lambda: 1 // 0], torch.device("cpu"))
        assert run_all([lambda k=k: k for k in range(9)], torch.device("cpu")) == list(range(9))
        assert run_all([torch.get_num_threads] * 4, torch.device("cpu")) == [1] * 4
    finally:
        torch.set_num_threads(before)


def test_a_buffer_is_reused_by_its_own_thread_only():
    like = torch.zeros(0)
    first = scratch("test", (3, 4), like)
    assert scratch("test", (2, 5), like).data_ptr() == first.data_ptr()
    assert scratch("other", (3, 4), like).data_ptr() != first.data_ptr()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        others = run_all([lambda: scratch("test", (3, 4), like).data_ptr()] * 4, torch.device("cpu"))
    finally:
        torch.set_num_threads(before)
    assert first.data_ptr() not in others


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")
@pytest.mark.parametrize("own_setting", [False, True])
def test_freed_memory_is_used_again_without_new_pages(own_setting):
    script = f"""
import resource, torch
from support.threads import set_up
set_up(1)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(20):
    if step == 5:
        before = faults()
    gradients = [torch.ones(n, {2**20}) for n in (1, 3, 7, 2)]
    del gradients
print(faults() - before)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    if own_setting:
        environment["MALLOC_TRIM_THRESHOLD_"] = "100000"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    pages = int(done.stdout)  # 13 MiB of float32 numbers are 13,312 pages of 4 KiB
    assert (pages > 10_000) if own_setting else (pages < 1000)
