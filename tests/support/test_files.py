"""A file is written whole or not at all, and read only where that has an end."""

import errno
import os

import pytest
from helpers.limits import at_most

from support.files import read_regular, write_atomically


def test_a_failed_write_leaves_the_old_file_and_no_partial_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"new")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(path, fail)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_regular_files_up_to_a_size_are_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes") as caught:
        read_regular(path, 4)
    assert caught.value.filename == str(path)
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", "/dev/zero"):
        with at_most(seconds=5), pytest.raises(OSError, match="not a regular file"):
            read_regular(tmp_path / name, 2**40)
    for name, number in ((tmp_path, errno.EISDIR), (tmp_path / "none", errno.ENOENT)):
        with pytest.raises(OSError, match=os.strerror(number)):
            read_regular(name, 5)


def test_the_size_is_checked_before_a_byte_is_read(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(3 * 2**30)
    with at_most(seconds=5, megabytes=1), pytest.raises(OSError, match="larger than"):
        read_regular(tmp_path / "sparse", 2**20)
