"""A collection of tunes: MIDI files in a folder or a zip, parsed once, split into train, valid and test.

A folder with subfolders train, valid and test keeps that split, and must then have all three; any other is split by file, seeded,
so that files with the same notes stay together.
Broken files among good ones, and files beside a split's folders, are skipped and named. Parsed tokens go to a cache, where a
file's size and time of change tell whether it is still the same.
"""

from __future__ import annotations

import itertools
import json
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from music import VOCAB_SIZE
from music.bounds import MAX_FILE_BYTES
from music.midi import Grid, MidiError, read_tokens
from support.cache import cache_path, read_cache, write_cache
from support.files import read_regular
from support.zips import open_zip, unpack_member

SPLITS = ("train", "valid", "test")
SHARES = (0.8, 0.1, 0.1)  # of the files, where the folder itself has no split
SUFFIXES = (".mid", ".midi")
CACHE_FORMAT = 3
MAX_MEMBERS = 100_000  # of a zip or a folder
LIST_BYTES = 2**24  # of its list of members
MAX_UNPACKED = 2**30  # bytes of a zip's MIDI files together
MAX_ALL_FRAMES = 100_000_000  # of all tunes together: a training window begins at each


class CorpusError(ValueError):
    """A folder or zip without usable data; the text says in one line what is wrong."""


@dataclass
class Corpus:
    """Tunes by split, each a uint8 array of tokens, with their names; and what was skipped, as (name, reason)."""

    tunes: dict[str, list[np.ndarray]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    names: dict[str, list[str]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    skipped: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Member:
    """One MIDI file of a folder or zip: its name in it, a stamp that changes with its content, and how to read it."""

    name: str
    stamp: str
    read: Callable[[], bytes]


def load_corpus(source: Path, grid: Grid, seed: int, progress: Callable[[list[Member]], Iterable[Member]] = iter) -> Corpus:
    """Parse all tunes of a folder or zip.

    Args:
        source: the folder or zip.
        grid: how long a frame is.
        seed: of the split by file, where the folder has none.
        progress: wraps the members that must be parsed, to show how far it is.

    Raises:
        CorpusError: there is nothing usable, or the zip is broken or unsafe.
        OSError: the source can't be read.
    """
    if not source.exists():
        raise CorpusError(f"no data at {source}")
    if source.is_dir():
        return _split(_parse(list(folder_members(source)), source, grid, progress), source, seed)
    try:
        with open_zip(source, LIST_BYTES) as archive:
            return _split(_parse(list(zip_members(archive)), source, grid, progress), source, seed)
    except zipfile.BadZipFile as error:
        raise CorpusError(f"{source} is neither a folder nor a readable zip: {error}") from error


def folder_members(folder: Path) -> Iterator[Member]:
    """The MIDI files below a folder, by name; raises CorpusError where it is no folder of tunes, but for example a whole disk."""
    paths = list(itertools.islice(folder.rglob("*"), MAX_MEMBERS + 1))
    if len(paths) > MAX_MEMBERS:
        raise CorpusError(f"{folder} has more than {MAX_MEMBERS:,} files and folders in it")
    for path in sorted(paths):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."):
            status = path.stat()
            stamp = f"{status.st_size} {status.st_mtime_ns}"
            yield Member(path.relative_to(folder).as_posix(), stamp, partial(read_regular, path, MAX_FILE_BYTES))


def zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    """The MIDI files of a zip, by name.

    Raises:
        CorpusError: it is too large, or a member's name leads outside the folder it would be unpacked to.
    """
    if len(archive.infolist()) > MAX_MEMBERS:
        raise CorpusError(f"{archive.filename} has more than {MAX_MEMBERS:,} members: unpack it into a folder")
    unpacked = 0
    for info in sorted(archive.infolist(), key=lambda info: info.filename):
        name = info.filename.replace("\\", "/")
        path = PurePosixPath(name)
        control = any(unicodedata.category(letter) == "Cc" for letter in name)  # commands to a terminal that shows the name
        if path.is_absolute() or ".." in path.parts or ":" in name.split("/")[0] or control:
            raise CorpusError(f"{archive.filename} is not safe to unpack: it has a member {info.filename[:100]!r}")
        hidden = path.name.startswith(".") or "__MACOSX" in path.parts
        if path.suffix.lower() in SUFFIXES and not info.is_dir() and not hidden:
            unpacked += info.file_size
            if unpacked > MAX_UNPACKED:
                raise CorpusError(f"{archive.filename} has more than {MAX_UNPACKED:,} bytes of MIDI files: unpack it into a folder")
            yield Member(name, f"{info.file_size} {info.CRC}", _zip_reader(archive, info))


def _zip_reader(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return unpack_member(archive, info, MAX_FILE_BYTES)
        except zipfile.BadZipFile as error:
            raise MidiError(str(error)) from error

    return read


Parsed = dict[str, np.ndarray | str]  # name -> tokens, or the reason why there are none


def _parse(members: list[Member], source: Path, grid: Grid, progress: Callable[[list[Member]], Iterable[Member]]) -> Parsed:
    """Tokens of every member, from the cache where it is unchanged."""
    if not members:
        raise CorpusError(f"{source} holds no MIDI file (.mid or .midi)")
    cache = _cache_file(source, grid)
    known = _read_cache(cache)
    parsed: Parsed = {m.name: known[m.name][1] for m in members if m.name in known and known[m.name][0] == m.stamp}
    missing = [m for m in members if m.name not in parsed]
    unread, frames = set(), sum(map(_length, parsed.values()))
    for member in progress(missing) if missing else ():
        try:
            parsed[member.name] = read_tokens(member.read(), grid)
        except MidiError as error:
            parsed[member.name] = str(error)
        except OSError as error:
            parsed[member.name] = error.strerror or "can't be read"
            unread.add(member.name)  # not cached: when it becomes readable, for example by chmod, its stamp stays the same
        frames += _length(parsed[member.name])
        if frames > MAX_ALL_FRAMES:
            raise CorpusError(f"{source} holds more than {MAX_ALL_FRAMES:,} frames")
    if len(missing) > len(unread):
        _write_cache(cache, {m.name: (m.stamp, parsed[m.name]) for m in members if m.name not in unread})
    return {m.name: parsed[m.name] for m in members}


def _length(value: np.ndarray | str) -> int:
    return 0 if isinstance(value, str) else len(value)


def _cache_file(source: Path, grid: Grid) -> Path | None:
    return cache_path("music", CACHE_FORMAT, str(source.resolve()), tuple(grid))


def _read_cache(path: Path | None) -> dict[str, tuple[str, np.ndarray | str]]:
    """Name -> (stamp, tokens or reason); empty where there is no readable cache, or anything in it is no tune."""
    arrays = read_cache(path)
    try:
        index, tokens = json.loads(arrays["index"].tobytes()), arrays["tokens"]
        result, first = {}, 0
        for name, stamp, length, reason in index:
            if not (all(isinstance(text, str) for text in (name, stamp, reason)) and type(length) is int and length >= 0):
                return {}
            result[name] = (stamp, reason if reason else tokens[first : first + length])
            first += length
        fits = tokens.dtype == np.uint8 and tokens.shape == (first,) and tokens.max(initial=0) < VOCAB_SIZE
        return result if fits else {}
    except Exception:  # there is none, or another program wrote it
        return {}


def _write_cache(path: Path | None, entries: dict[str, tuple[str, np.ndarray | str]]) -> None:
    arrays = [value for _, value in entries.values() if not isinstance(value, str)]
    index = [(name, stamp, _length(value), value if isinstance(value, str) else "") for name, (stamp, value) in entries.items()]
    tokens = np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.uint8)
    write_cache(path, {"index": np.frombuffer(json.dumps(index).encode(), dtype=np.uint8), "tokens": tokens})


def _split(parsed: Parsed, source: Path, seed: int) -> Corpus:
    """Tunes by split, from the names of their folders, or by file."""
    corpus = Corpus()
    good = {name: value for name, value in parsed.items() if not isinstance(value, str)}
    corpus.skipped = [(name, value) for name, value in parsed.items() if isinstance(value, str)]
    if not good:
        name, reason = corpus.skipped[0]
        more = f" and {len(corpus.skipped) - 1} more" if len(corpus.skipped) > 1 else ""
        raise CorpusError(f"{source} holds no usable MIDI file: {name}: {reason}{more}")
    split_of = {name: folder_split(name)[0] for name in parsed}  # also of broken files: their folders show that a split is meant
    if any(split_of.values()):
        _check_given_split(parsed, split_of, source)
    else:
        split_of = _split_by_tune(good, source, seed)
    for name, tokens in good.items():
        split = split_of[name]
        if split is not None:
            corpus.tunes[split].append(tokens)
            corpus.names[split].append(name)
        else:
            corpus.skipped.append((name, "outside the folders train, valid and test"))
    return corpus


def folder_split(name: str) -> tuple[str | None, PurePosixPath]:
    """The split that a file's folders name, and where the file lies in that folder; without one, None and the whole path."""
    path = PurePosixPath(name)
    for depth, part in enumerate(path.parts[:-1], start=1):
        if part.lower() in SPLITS:
            return part.lower(), PurePosixPath(*path.parts[depth:])
    return None, path


def _check_given_split(parsed: Parsed, split_of: dict[str, str | None], source: Path) -> None:
    """Refuse a split that lacks a part. Splitting by file instead would train on tunes of the test folder."""
    problems = []
    for split in SPLITS:
        values = {name: value for name, value in parsed.items() if split_of[name] == split}
        if not values:
            problems.append(f"no folder {split} with MIDI files")
        elif all(isinstance(value, str) for value in values.values()):
            name, reason = next(iter(values.items()))
            problems.append(f"no usable MIDI file in {split} ({name}: {reason})")
    if problems:
        given = " and ".join(split for split in SPLITS if split in split_of.values())
        raise CorpusError(f"{source} has {given}, but {', and '.join(problems)}: a split needs train, valid and test")


def _split_by_tune(tunes: dict[str, np.ndarray], source: Path, seed: int) -> dict[str, str | None]:
    """A seeded split of different tunes: 80 % train, 10 % valid, 10 % test, at least one each. Copies stay together."""
    firsts: dict[bytes, str] = {}
    first_of = {name: firsts.setdefault(tunes[name].tobytes(), name) for name in sorted(tunes)}
    names = list(firsts.values())
    if len(names) < len(SPLITS):
        files = "usable MIDI files" if len(names) == len(tunes) else "different tunes"
        files = files if len(names) > 1 else files[:-1]
        raise CorpusError(f"{source} holds {len(names)} {files}: a split into train, valid and test needs at least 3")
    order = np.random.default_rng(seed).permutation(len(names))
    held_out = [max(1, round(share * len(names))) for share in SHARES[1:]]
    num_train = len(names) - sum(held_out)
    labels = ["train"] * num_train + ["valid"] * held_out[0] + ["test"] * held_out[1]
    split_of = {names[index]: label for index, label in zip(order.tolist(), labels, strict=True)}
    return {name: split_of[first] for name, first in first_of.items()}


def windows(tunes: list[np.ndarray], length: int, stride: int = 1) -> np.ndarray:
    """All windows of a length in each tune, at every stride-th position: uint8 (W, length). Tunes that are shorter give none."""
    parts = [np.lib.stride_tricks.sliding_window_view(tune, length)[::stride] for tune in tunes if len(tune) >= length]
    return np.concatenate(parts) if parts else np.zeros((0, length), dtype=np.uint8)
