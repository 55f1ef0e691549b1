"""Tasks on several threads, and the buffers that each thread reuses."""

import os
import types

import pytest
import torch

from support.threads import keep_freed_memory, run_all, scratch


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


@pytest.mark.parametrize(
    ("variable", "value", "calls"),
    [
        ("OTHER", "1", [(-3, 2**25), (-1, 2**31 - 1)]),  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h
        ("MALLOC_TRIM_THRESHOLD_", "100000", []),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=100000", []),
    ],
)
@pytest.mark.parametrize("gnu", [True, False])
def test_the_c_library_keeps_freed_memory_unless_the_user_says_otherwise(variable, value, calls, gnu, monkeypatch):
    made = []
    library = types.SimpleNamespace(mallopt=lambda *given: made.append(given))
    if gnu:
        library.gnu_get_libc_version = None
    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr("support.threads.ctypes.CDLL", lambda name: library)
    keep_freed_memory()
    assert made == (calls if gnu else [])
