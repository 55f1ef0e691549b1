"""A cache gives back what was written, or nothing."""

import os

import numpy as np
import pytest
from helpers.limits import at_most
from helpers.nasty_files import CACHES

from support import cache
from support.cache import cache_path, read_cache, write_cache

ARRAYS = {
    "tokens": np.arange(7, dtype=np.uint8),
    "lines": np.arange(12, dtype=np.uint32).reshape(3, 4),
    "none": np.zeros((0, 5), dtype=np.uint16),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_arrays_come_back_and_can_be_changed():
    path = cache_path("test", 1, "key")
    assert path != cache_path("test", 2, "key") and path.name.startswith("test-")
    assert read_cache(path) is None
    write_cache(path, ARRAYS)
    again = read_cache(path)
    assert again.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(again[name], array, strict=True)
        assert again[name].flags.writeable  # as torch asks of memory that it shares
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_every_changed_or_missing_byte_is_noticed():
    path = cache_path("test", 1)
    write_cache(path, ARRAYS)
    whole = path.read_bytes()
    changed = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(len(whole))]
    for damaged in (*changed, *(whole[:length] for length in range(0, len(whole), 10)), whole + b"\0"):
        path.write_bytes(damaged)
        assert read_cache(path) is None


@pytest.mark.parametrize("name", CACHES)
def test_another_file_counts_as_none_and_takes_no_memory(name, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CACHES[name]())
    with at_most(seconds=5, megabytes=5):
        assert read_cache(path) is None


def test_what_is_no_file_counts_as_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "none" / "none", None):
        with at_most(seconds=5):
            assert read_cache(path) is None


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(cache.Path, "home", no_home)
    assert cache_path("test") is None
    write_cache(None, ARRAYS)


def test_a_failed_write_is_no_error_and_leaves_no_file(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    path = cache_path("test", 1)
    monkeypatch.setattr(cache.os, "replace", full)
    write_cache(path, ARRAYS)
    assert list(path.parent.iterdir()) == []
