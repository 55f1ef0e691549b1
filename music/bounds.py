"""Bounds on MIDI files, checked before they are parsed: the parser takes 7 µs and 400 bytes of memory for an event.

An event takes two to four bytes of a file, so that a file of 20 MB, which may come from a zip of 20 KB, would take the parser
minutes and gigabytes.
"""

from __future__ import annotations

import struct

MAX_FILE_BYTES = 2_000_000  # the largest Nottingham tune has 18,922
MAX_EVENTS = 200_000  # two to four seconds of the parser; the largest Nottingham tune has 4,308
MAX_NUMBER_BYTES = 4  # of a number in a MIDI file, by the standard; the parser would read one of any length
UNREADABLE = "not a readable MIDI file"
META, SYSTEM_EXCLUSIVE = 0xFF, (0xF0, 0xF7)
# Data bytes of the other events, by status; the parser knows no others.
DATA_BYTES = {
    **{kind | channel: 1 if kind in (0xC0, 0xD0) else 2 for kind in range(0x80, 0xF0, 0x10) for channel in range(16)},
    **{0xF1: 1, 0xF2: 2, 0xF3: 1, 0xF6: 0, 0xF8: 0, 0xFA: 0, 0xFB: 0, 0xFC: 0, 0xFE: 0},
}


class MidiError(ValueError):
    """A file that gives no melody; the text says why, without the file's name."""


def check_bounds(data: bytes) -> None:
    """Refuse a file that would take its parser long, or that it can't read, in a tenth of the parser's time.

    Raises:
        MidiError: it is no MIDI file, its times are not in beats, or it is too large or has too many events.
    """
    if len(data) > MAX_FILE_BYTES:
        raise MidiError(f"larger than {MAX_FILE_BYTES:,} bytes")
    try:
        name, size, _, tracks, division = struct.unpack_from(">4sLhhh", data)
        if name != b"MThd" or size < 6 or tracks < 1 or not division:
            raise MidiError(UNREADABLE)
        if division < 0:
            raise MidiError("its times are in frames of a film, not in beats")
        place, events = 8 + size, 0
        for _ in range(tracks):
            name, size = struct.unpack_from(">4sL", data, place)
            if name != b"MTrk":
                raise MidiError(UNREADABLE)
            events += _count_events(data, place + 8, place + 8 + size, MAX_EVENTS - events)
            place += 8 + size
    except (struct.error, IndexError, KeyError) as error:  # cut short, or an event that there is not
        raise MidiError(UNREADABLE) from error


def _count_events(data: bytes, place: int, end: int, limit: int) -> int:
    """The events of a track, as the parser reads them from `place` to `end`; raises IndexError or KeyError where it is broken."""
    running, count = None, 0
    while place < end:
        count += 1
        if count > limit:
            raise MidiError(f"more than {MAX_EVENTS:,} events")
        if data[place] < 0x80:  # the time, mostly of one byte
            place += 1
        else:
            _, place = _number(data, place)
        status = data[place]
        if status >= 0x80:
            place += 1
            if status != META:
                running = status
        else:  # no status but the first data byte: the status of the event before holds on
            status = running
            place += status in SYSTEM_EXCLUSIVE  # the parser then skips a byte
        if status == META:
            place += 1  # its kind
        if status == META or status in SYSTEM_EXCLUSIVE:
            length, place = _number(data, place)
            place += length
        else:
            place += DATA_BYTES[status]
    if place != end:
        raise MidiError(UNREADABLE)
    return count


def _number(data: bytes, place: int) -> tuple[int, int]:
    """The number at a place, 7 bits a byte, and the place after it."""
    value = 0
    for after in range(place + 1, place + 1 + MAX_NUMBER_BYTES):
        value = value << 7 | data[after - 1] & 0x7F
        if data[after - 1] < 0x80:
            return value, after
    raise MidiError(UNREADABLE)
