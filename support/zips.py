"""Zips from strangers. Neither the list of members nor a member takes more memory than its reader allows, whatever it claims."""

from __future__ import annotations

import contextlib
import errno
import zipfile
from collections.abc import Iterator
from pathlib import Path

from support.files import regular_size

SIZE_OF_LIST = 5  # its place in what zipfile knows of a zip's end
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile unpacks the others all at once: a kilobyte of bzip2 is a gigabyte
PART = 4096  # bytes that are unpacked at a time


@contextlib.contextmanager
def open_zip(path: Path, list_bytes: int) -> Iterator[zipfile.ZipFile]:
    """Open a zip whose list of members has at most `list_bytes` bytes; zipfile needs ten times as much memory for it.

    Raises:
        zipfile.BadZipFile: it is no zip, its list is broken or longer.
        OSError: it can't be read, or is no regular file.
    """
    regular_size(path)
    with path.open("rb") as file:
        try:
            end = zipfile._EndRecData(file)  # the very numbers that ZipFile will believe
            if end and end[SIZE_OF_LIST] > list_bytes:
                raise zipfile.BadZipFile("too many members")
            archive = zipfile.ZipFile(file)
        except (OSError, MemoryError, zipfile.BadZipFile):
            raise
        except Exception as error:  # a broken list can raise anything
            raise zipfile.BadZipFile("a broken list of members") from error
        with archive:
            yield archive


def unpack_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    """The content of a member of at most `limit` bytes; the sizes in a zip may be false.

    Raises:
        zipfile.BadZipFile: the member is damaged, encrypted, larger, or compressed by another method than deflate.
        OSError: the zip can't be read.
    """
    if info.compress_type not in METHODS:
        raise zipfile.BadZipFile("not compressed by deflate")
    if max(info.file_size, info.compress_size) > limit:
        raise zipfile.BadZipFile(f"larger than {limit:,} bytes")
    data = bytearray()
    try:
        with archive.open(info) as file:
            while part := file.read(PART):  # at once, zipfile would unpack everything before it cuts it to the size it expects
                data += part
    except MemoryError:
        raise
    except Exception as error:  # damaged data can raise anything
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a seek to before the file; others are the disk's
            raise
        raise zipfile.BadZipFile("damaged or encrypted in the zip") from error
    return bytes(data)
