"""A corpus: lines of text in a file or a folder, read once, encoded, split into train, valid and test.

A folder with the files train.txt, valid.txt and test.txt keeps that split, and must have all three. Otherwise the different lines
are split at random with a seed, 80/10/10, so that equal lines stay together (text/splits.py). The vocabulary comes from the
training lines alone. Encoded corpora go to a cache, where the files' sizes and times of change show whether they are still the
same.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from support.cache import cache_path, read_cache, write_cache
from support.files import regular_size
from text import END, SPECIAL, UNKNOWN
from text.splits import SPLITS, CorpusError, leave_out_copies, random_split, without_copies
from text.tokens import JOINER, SPLITTERS
from text.vocabulary import Vocabulary

CACHE_FORMAT = 3
MAX_LINE_BYTES = 100_000  # a longer line is a sign that the file does not hold one sequence a line
MAX_DIFFERENT = 10_000_000  # tokens; each takes about 200 bytes, and no model has so many
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
CHUNK_BYTES = 2**24  # between two movements of the progress bar
SEQUENCES_AT_ONCE = 100_000


class Reading(NamedTuple):
    """How a corpus is read.

    Attributes:
        kind: of the tokens: words, chars or ids.
        seq_len: T.
        long: what happens to longer lines: cut, split or drop.
        min_count: tokens that occur less often in the training lines are unknown.
        max_vocab: the largest vocabulary, the two special tokens included; 0: no limit.
        seed: of the split by line.
    """

    kind: str
    seq_len: int
    long: str = "cut"
    min_count: int = 1
    max_vocab: int = 0
    seed: int = 0


@dataclass
class Corpus:
    """An encoded corpus.

    Attributes:
        vocabulary: of the training lines.
        lines: of each split, (N, T) in the smallest unsigned type, padded with END.
        notes: what a user should know of how they were read.
    """

    vocabulary: Vocabulary
    lines: dict[str, np.ndarray]
    notes: list[str] = field(default_factory=list)

    @property
    def variable_length(self) -> bool:
        """Whether some line is shorter than T."""
        return any((lines[:, -1] == END).any() for lines in self.lines.values() if len(lines))

    def fingerprint(self) -> str:
        """A hash of everything that a run depends on."""
        digest = hashlib.sha256(self.vocabulary.to_text().encode())
        for split in SPLITS:
            digest.update(np.ascontiguousarray(self.lines[split]))
        return digest.hexdigest()


def load_corpus(source: Path, reading: Reading, progress: Callable[[int], Any]) -> Corpus:
    """Read and encode a file or a folder, or take it from the cache.

    Args:
        source: a file of lines, or a folder with train.txt, valid.txt and test.txt or with any other .txt files.
        reading: how to read it.
        progress: given the number of bytes, returns a bar with `update(bytes)` and `close()`, as tqdm does.

    Raises:
        CorpusError: it holds no usable text.
        OSError: it can't be read.
    """
    if reading.seq_len > MAX_LINE_BYTES:
        raise CorpusError(f"{source}: no line has --seq_len {reading.seq_len} tokens: lines have at most {MAX_LINE_BYTES:,} bytes")
    files = _files(source)
    cache = _cache_file(files, reading)
    corpus = _read_cache(cache, reading)
    if corpus is None:
        corpus = _encode(files, reading, progress, str(source))
        _write_cache(cache, corpus)
    return corpus


def _files(source: Path) -> dict[Path, str | None]:
    """The files of a source with the split that each is; None where lines are split at random."""
    if not source.exists():
        raise CorpusError(f"no text at {source}")
    if not source.is_dir():
        regular_size(source)
        return {source: None}
    given = {source / f"{split}.txt": split for split in SPLITS}
    present = [path for path in given if path.is_file()]
    if present and len(present) < len(SPLITS):
        missing = " and ".join(path.name for path in given if path not in present)
        raise CorpusError(f"{source} has {' and '.join(path.name for path in present)}, but no {missing}: a split needs all three")
    if present:
        return dict(given)
    files = sorted(path for path in source.glob("*.txt") if path.is_file())
    if not files:
        raise CorpusError(f"{source} holds no .txt file")
    return dict.fromkeys(files)


class _Encoder:
    """Collects the tokens of lines under provisional numbers, in order of appearance."""

    def __init__(self, reading: Reading):
        self.split, self.joiner = SPLITTERS[reading.kind], JOINER[reading.kind]
        self.compared = reading.seq_len if reading.long == "cut" else None  # how many tokens make two lines the same
        self.numbers: defaultdict[str, int] = defaultdict()
        self.numbers.default_factory = self.numbers.__len__
        self.tokens = array("i")
        self.lengths = array("i")
        self.hashes = array("q")

    def add(self, line: bytes, path: Path, number: int, offset: int) -> None:
        """Add a line that is not empty; `number` and `offset` say where it is in the file."""
        if len(line) > MAX_LINE_BYTES:
            raise CorpusError(f"{path}, line {number}: longer than {MAX_LINE_BYTES:,} bytes; each line is one sequence")
        try:
            tokens = self.split(line.decode())
        except UnicodeDecodeError as error:
            raise CorpusError(f"{path} is not UTF-8 text: byte {offset + error.start}, in line {number}") from None
        except ValueError as error:
            raise CorpusError(f"{path}, line {number}: {error}") from None
        if len(self.numbers) > MAX_DIFFERENT:
            raise CorpusError(f"{path}, line {number}: more than {MAX_DIFFERENT:,} different tokens")
        if tokens:
            self.tokens.extend(map(self.numbers.__getitem__, tokens))
            self.lengths.append(len(tokens))
            same = self.joiner.join(tokens[: self.compared]).encode()
            self.hashes.append(int.from_bytes(hashlib.blake2b(same, digest_size=8).digest(), "big", signed=True))


def _encode(files: dict[Path, str | None], reading: Reading, progress: Callable[[int], Any], source: str) -> Corpus:
    encoder = _Encoder(reading)
    file_of = array("i")
    bar = progress(sum(path.stat().st_size for path in files))
    empty = 0
    for index, path in enumerate(files):
        for number, offset, line in _lines(path, bar):
            before = len(encoder.lengths)
            encoder.add(line, path, number, offset)
            empty += len(encoder.lengths) == before
        file_of.extend([index] * (len(encoder.lengths) - len(file_of)))
    bar.close()
    if not len(encoder.lengths):
        raise CorpusError(f"{source}: no line of text")
    hashes = np.frombuffer(encoder.hashes, dtype=np.int64)
    splits = list(files.values())
    if splits[0] is None:
        split_of, notes = random_split(hashes, reading.seed, source)
    else:
        split_of = np.array([SPLITS.index(split) for split in splits])[np.frombuffer(file_of, dtype=np.int32)]
        split_of, notes = without_copies(split_of, hashes)
    if empty:
        notes.append(f"{empty} empty lines left out")
    return _build(encoder, split_of, reading, source, notes)


def _lines(path: Path, bar: Any) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and content of each line of a file, without its end; raises CorpusError for a file that is not text."""
    offset = number = shown = 0
    most = MAX_LINE_BYTES + len(BYTE_ORDER_MARK) + 3  # enough to see that a line is too long, but not all of it
    with path.open("rb") as file:
        while line := file.readline(most):
            number += 1
            content = line.rstrip(b"\n").removesuffix(b"\r")
            start = offset
            if number == 1 and content.startswith(BYTE_ORDER_MARK):
                content, start = content[len(BYTE_ORDER_MARK) :], len(BYTE_ORDER_MARK)
            if b"\0" in content:
                raise CorpusError(f"{path} is not text: it has a zero byte at {start + content.index(0)}")
            yield number, start, content
            offset += len(line)
            if offset - shown > CHUNK_BYTES:
                bar.update(offset - shown)
                shown = offset
        bar.update(offset - shown)


def _build(encoder: _Encoder, split_of: np.ndarray, reading: Reading, source: str, notes: list[str]) -> Corpus:
    lengths = np.frombuffer(encoder.lengths, dtype=np.int32).astype(np.int64)
    provisional = np.frombuffer(encoder.tokens, dtype=np.int32)
    starts = np.cumsum(lengths) - lengths
    starts, lengths, split_of = _pieces(starts, lengths, split_of, reading, notes)
    missing = [split for index, split in enumerate(SPLITS) if not (split_of == index).any()]
    if missing:
        reason = f" of at most --seq_len {reading.seq_len} tokens" if reading.long == "drop" else ""
        raise CorpusError("; ".join([f"{source}: no line{reason} is left for {' and '.join(missing)}", *notes]))
    vocabulary, numbers = _vocabulary(encoder, provisional, starts, lengths, split_of, reading)
    if len(vocabulary) < len(SPECIAL) + 2:
        raise CorpusError(f"{source}: the vocabulary of the training lines has fewer than 2 tokens")
    lines = {}
    for index, split in enumerate(SPLITS):
        own = split_of == index
        lines[split] = _padded(provisional, starts[own], lengths[own], numbers, reading.seq_len)
    notes += leave_out_copies(lines)
    unknown = {split: (lines[split] == UNKNOWN).sum() / max(1, (lines[split] != END).sum()) for split in SPLITS}
    if any(unknown.values()):
        notes.append("unknown tokens: " + ", ".join(f"{100 * share:.2f} % of {split}" for split, share in unknown.items()))
    return Corpus(vocabulary, lines, notes)


def _pieces(
    starts: np.ndarray, lengths: np.ndarray, split_of: np.ndarray, reading: Reading, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the sequences are: first tokens, lengths of at most T, and splits, after what --long does with longer lines."""
    limit = reading.seq_len
    long = int((lengths[split_of >= 0] > limit).sum())
    if long:
        did = {"cut": "cut to", "split": "split into pieces of", "drop": "left out, having more than"}[reading.long]
        notes.append(f"{long} of {len(lengths)} lines {did} {limit} tokens (--long {reading.long})")
    if reading.long == "cut":
        return starts, np.minimum(lengths, limit), split_of
    if reading.long == "drop":
        fit = lengths <= limit
        return starts[fit], lengths[fit], split_of[fit]
    pieces = -(-lengths // limit)
    line = np.repeat(np.arange(len(lengths)), pieces)
    number = np.arange(len(line)) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # of the piece in its line
    return starts[line] + number * limit, np.minimum(limit, lengths[line] - number * limit), split_of[line]


def _vocabulary(
    encoder: _Encoder, tokens: np.ndarray, starts: np.ndarray, lengths: np.ndarray, split_of: np.ndarray, reading: Reading
) -> tuple[Vocabulary, np.ndarray]:
    """The vocabulary, by frequency in the training lines, and the final number of each provisional one."""
    counts = np.zeros(len(encoder.numbers), dtype=np.int64)
    train = split_of == 0
    for first in range(0, int(train.sum()), SEQUENCES_AT_ONCE):  # some at a time, as counting needs 8 bytes a token
        part = slice(first, first + SEQUENCES_AT_ONCE)
        length = lengths[train][part]
        inside = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        counts += np.bincount(tokens[np.repeat(starts[train][part], length) + inside], minlength=len(counts))
    names = list(encoder.numbers)
    for special in SPECIAL:  # as a word of the text it is an unknown one
        if special in encoder.numbers:
            counts[encoder.numbers[special]] = 0
    order = np.argsort(-counts, kind="stable")
    kept = order[counts[order] >= max(1, reading.min_count)]
    if reading.max_vocab:
        kept = kept[: max(0, reading.max_vocab - len(SPECIAL))]
    numbers = np.full(len(names), UNKNOWN, dtype=np.int64)
    numbers[kept] = np.arange(len(kept)) + len(SPECIAL)
    return Vocabulary(reading.kind, [names[index] for index in kept.tolist()]), numbers


def _padded(tokens: np.ndarray, starts: np.ndarray, lengths: np.ndarray, numbers: np.ndarray, seq_len: int) -> np.ndarray:
    """Sequences side by side, (N, T) in the smallest unsigned type."""
    result = np.full((len(starts), seq_len), END, dtype=np.min_scalar_type(int(numbers.max(initial=1))))
    numbers = numbers.astype(result.dtype)
    for position in range(int(lengths.max(initial=0))):  # a column at a time: no index of N·T numbers
        there = lengths > position
        result[there, position] = numbers[tokens[starts[there] + position]]
    return result


def _cache_file(files: dict[Path, str | None], reading: Reading) -> Path | None:
    stamps = [(str(path.resolve()), split, path.stat().st_size, path.stat().st_mtime_ns) for path, split in files.items()]
    return cache_path("text", CACHE_FORMAT, stamps, tuple(reading))


def _read_cache(path: Path | None, reading: Reading) -> Corpus | None:
    """The corpus of a cache; None where there is no readable one, or anything in it can't have come from this reading."""
    arrays = read_cache(path)
    try:
        notes = json.loads(arrays["notes"].tobytes())
        vocabulary = Vocabulary.from_text(reading.kind, arrays["vocabulary"].tobytes().decode())
        lines = {split: arrays[split] for split in SPLITS}
        for array in lines.values():
            if array.ndim != 2 or array.shape[1] != reading.seq_len or array.max() >= len(vocabulary):
                return None
        if not (isinstance(notes, list) and all(isinstance(note, str) for note in notes)):
            return None
        return Corpus(vocabulary, lines, notes)
    except Exception:  # there is none, or another program wrote it
        return None


def _write_cache(path: Path | None, corpus: Corpus) -> None:
    texts = {"notes": json.dumps(corpus.notes), "vocabulary": corpus.vocabulary.to_text()}
    write_cache(path, {**corpus.lines, **{name: np.frombuffer(text.encode(), dtype=np.uint8) for name, text in texts.items()}})
