"""Files that ask for far more time or memory than they take up on the disk, or that break a reader: the bytes of each.

Those in place of an oracle are in nasty_oracles.py.
"""

import hashlib
import io
import json
import struct
import zipfile

from support.cache import MAGIC


def zip_of(members, method=zipfile.ZIP_DEFLATED):
    """A zip with these members, name -> content."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def number(value):
    """A number as MIDI files have it: 7 bits a byte."""
    data = bytes([value & 0x7F])
    while value := value >> 7:
        data = bytes([0x80 | value & 0x7F]) + data
    return data


def midi_of(*tracks, division=480, end=b"\x00\xff\x2f\x00"):
    """A MIDI file of tracks of events."""
    chunks = (b"MTrk" + struct.pack(">L", len(track + end)) + track + end for track in tracks)
    return b"MThd" + struct.pack(">LHHH", 6, 1, len(tracks), division & 0xFFFF) + b"".join(chunks)


NOTE = b"\x00\x90\x3c\x40" + number(480) + b"\x80\x3c\x40"


def midi_of_running_status(size=1_900_000):
    """Notes of three bytes each."""
    return midi_of(b"\x00\x90\x3c\x40" + b"\x01\x3c\x00\x00\x3c\x40" * (size // 6))


def midi_of_short_events(size=1_900_000):
    """Changes of the instrument of two bytes each."""
    return midi_of(NOTE + b"\x00\xc0\x00" + b"\x00\x01" * (size // 2))


def midi_of_empty_texts(size=1_900_000):
    """Texts without a letter, of four bytes each."""
    return midi_of(NOTE + b"\x01\xff\x01\x00" * (size // 4))


def midi_of_tempo_changes(size=1_900_000):
    """A tempo of its own for each tick."""
    changes = (b"\x01\xff\x51\x03" + struct.pack(">L", 500_000 + index % 7)[1:] for index in range(size // 7))
    return midi_of(NOTE + b"".join(changes))


def midi_of_instruments(size=1_900_000):
    """A note each of as many instruments as there is room for."""
    track = b"".join(bytes((0, 0xC0 | c, p, 0, 0x90 | c, 60, 64, 1, 60, 0)) for c in range(16) for p in range(128))
    return midi_of(*[track] * (size // len(track)))


def midi_of_tracks(number=32_767):
    """Tracks of one note each, as many as there can be."""
    return midi_of(*[NOTE] * number)


def midi_of_pending_notes(notes=190_000, ticks=3_000_000):
    """Notes of one key that begin at once and end together, more than a hundred thousand frames later."""
    return midi_of(b"\x00\x90\x3c\x40" + b"\x00\x3c\x40" * (notes - 1) + number(ticks) + b"\x3c\x00", division=24)


def midi_of_repeated_ends(notes=90_000):
    """Notes that begin when an earlier one ends, which keeps them open for the next of as many ends."""
    begin = b"\x00\x90\x3c\x40" + b"\x01\x3c\x40" + b"\x00\x3c\x40" * (notes - 1)
    return midi_of(begin + b"\x00\x3c\x00" * notes)


def midi_with_a_long_number(size=1_900_000):
    """A time of millions of digits."""
    return midi_of(b"\xff" * size + b"\x00\x90\x3c\x40")


def midi_of_one_message(size=900_000):
    """System exclusive messages of nearly a megabyte each."""
    return midi_of(NOTE + (b"\x00\xf0" + number(size) + bytes(size - 1) + b"\xf7") * 2)


def midi_with_a_late_note(ticks=9_900_000):
    """A note after so many ticks that a table of their times takes hundreds of megabytes."""
    return midi_of(number(ticks) + NOTE[1:])


def midi_in_smpte_frames():
    """Times in frames of film, which the parser takes for negative ones, and the mark at the end of a song."""
    return midi_of(number(10_000) + b"\xff\x01\x0dend of tokens", division=-25 << 8 | 40)


def midi_without_time():
    """Quarters of no ticks."""
    return midi_of(NOTE, division=0)


def midi_with_an_event_across_the_end():
    """A track that ends within an event; the parser then takes what follows for events."""
    return midi_of(NOTE, NOTE).replace(struct.pack(">L", len(NOTE) + 4), struct.pack(">L", len(NOTE) + 3), 1)


REFUSED_MIDIS = {
    build.__name__: build
    for build in (
        midi_of_running_status,
        midi_of_short_events,
        midi_of_empty_texts,
        midi_of_tempo_changes,
        midi_of_instruments,
        midi_with_a_long_number,
        midi_in_smpte_frames,
        midi_without_time,
        midi_with_an_event_across_the_end,
    )
}
SLOW_MIDIS = {  # within all bounds: the most that a file may take
    build.__name__: build
    for build in (midi_of_tracks, midi_of_pending_notes, midi_of_repeated_ends, midi_of_one_message, midi_with_a_late_note)
}


def zip_of_a_large_tune():
    """20 KB that hold a MIDI file of 19 MB."""
    return zip_of({"train/a.mid": midi_of_running_status(19_000_000)})


def zip_with_a_false_size(size=30_000_000, claimed=1000, method=zipfile.ZIP_DEFLATED):
    """30 KB that hold 30 MB and claim to hold 1000 bytes."""
    return zip_of({"train/a.mid": bytes(size)}, method).replace(struct.pack("<L", size), struct.pack("<L", claimed))


def zip_in_bzip2():
    """The same in 200 bytes."""
    return zip_with_a_false_size(method=zipfile.ZIP_BZIP2)


def zip_in_lzma():
    """10 MB in 2 KB, which claim to hold 1000 bytes."""
    return zip_with_a_false_size(10_000_000, method=zipfile.ZIP_LZMA)


def zip_with_a_long_list(members=300):
    """A list of members of 20 MB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for index in range(members):
            info = zipfile.ZipInfo(f"{index}.mid")
            info.comment = bytes(65_535)
            archive.writestr(info, b"")
    return file.getvalue()


def zip_of_commands(name="train/\x1b]0;title\x07.mid"):
    """A name that a terminal would execute."""
    return zip_of({name: midi_of(NOTE)})


ZIPS = {
    build.__name__: build
    for build in (zip_of_a_large_tune, zip_with_a_false_size, zip_in_bzip2, zip_in_lzma, zip_with_a_long_list, zip_of_commands)
}


def cache_of(header, content=b"", length=None):
    """A cache with a right checksum and any header; `length` is what it says of the header's own length."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    rest = (len(header) if length is None else length).to_bytes(8, "big") + header + content
    return MAGIC + hashlib.sha256(rest).digest() + rest


CACHES = {
    "empty": lambda: b"",
    "of another program": lambda: b"PK\3\4" + bytes(100),
    "without a header": lambda: cache_of(b""),
    "with a header of any length": lambda: cache_of(b"[]", length=2**63),
    "with a header of deep brackets": lambda: cache_of(b"[" * 100_000),
    "with a header of one number": lambda: cache_of(b"9" * 100_000),
    "that claims terabytes": lambda: cache_of([["tokens", "|u1", [2**20, 2**20]]], bytes(100)),
    "that claims absurd lengths": lambda: cache_of([["tokens", "|u1", [10**300] * 300]], bytes(100)),
    "with negative lengths": lambda: cache_of([["tokens", "|u1", [-10, -10]]], bytes(100)),
    "without lengths": lambda: cache_of([["tokens", "|u1", []]], bytes(1)),
    "of other types": lambda: cache_of([["tokens", "<f4", [25]]], bytes(100)),
    "of objects": lambda: cache_of([["tokens", "|O", [1]]], bytes(8)),
    "with more than it names": lambda: cache_of([["tokens", "|u1", [99]]], bytes(100)),
    "with less than it names": lambda: cache_of([["tokens", "|u1", [101]]], bytes(100)),
}


TEXTS = {  # name -> content and kind of tokens
    "a line without an end": lambda: (b"a b\n" + b"x" * 20_000_000, "words"),
    "a character without an end": lambda: (b"a" + "\u0301".encode() * 10_000_000, "chars"),
    "zeros without an end": lambda: (bytes(20_000_000), "words"),
    "a number without an end": lambda: (b"1 2\n3 " + b"9" * 10_000_000 + b"\n", "ids"),
    "half a character": lambda: (b"a b\nc \xf0\x9f\n", "words"),
}


def lines_of_large_numbers(digits=5_000):
    """Numbers that Python refuses to turn into ints; the last ones are the same, but for the zeros before them."""
    numbers = [str(index) * digits for index in range(1, 10)] + ["0" * digits + "7", "7"]
    return "".join(f"{number} 1\n" for number in numbers).encode()
