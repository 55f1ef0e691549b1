"""The zip that torch.save writes, checked before torch.load reads it.

Torch's reader compares no checksums, and believes what a zip says of itself.
"""

from __future__ import annotations

import os
import struct
import zipfile
from typing import IO

from support.pickle_weight import check_weight

END = struct.Struct("<12s28xQQ4s4xQ4x4s16x2s")  # the record of the end in 64 bits, its place, and the end in 32 bits
RECORD = b"PK\6\6" + struct.pack("<Q", 44)  # how that record begins: its mark and its length
MARKS = (RECORD, b"PK\6\7", b"PK\5\6", b"\0\0")  # the last one is the length of a comment


class DamagedError(ValueError):
    """A file that torch.save wrote, and that has changed since."""


def verify(file: IO[bytes]) -> None:
    """Check a file's layout, the checksums of its members, and that they need no more memory than the file.

    Raises:
        Exception: of any kind, where the file is not as it was written; DamagedError where its checksums say so.
    """
    _check_layout(file)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = {member.filename.lower() for member in members}  # torch's reader does not tell capitals from small letters
        if len(names) < len(members) or not all(map(_is_plain, members)):
            raise ValueError("members that torch does not write")
        if sum(member.file_size for member in members) > file.seek(0, os.SEEK_END):
            raise ValueError("members that lie over each other")
        if archive.testzip() is not None:
            raise DamagedError("damaged: its checksums do not match")
        (described,) = (member for member in members if member.filename.endswith("/data.pkl"))
        check_weight(archive.read(described))


def _check_layout(file: IO[bytes]) -> None:
    """Refuse a file in which torch's reader could find another list of members than zipfile does.

    Torch writes the members from the first byte on, then their list, then the end.
    """
    if file.read(4) != b"PK\3\4":  # torch would take it for its older format, which has no checksums
        raise ValueError("no zip from the first byte on")
    start = file.seek(0, os.SEEK_END) - END.size
    file.seek(start)
    record, list_size, list_start, locator, place, last, comment = END.unpack(file.read())
    if (record, locator, last, comment) != MARKS or not start == place == list_start + list_size:
        raise ValueError("no end as torch writes it")


def _is_plain(member: zipfile.ZipInfo) -> bool:
    """Whether a member is stored as it is, under its own name.

    Of one with attributes, such as those of a folder, torch's reader reads nothing: the tensor is what the memory held before.
    """
    stored = member.compress_type == zipfile.ZIP_STORED
    return stored and not member.external_attr and member.filename == member.orig_filename
