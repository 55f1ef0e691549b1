"""The readers of files from strangers, for helpers/fuzz.py, each with good inputs and bad ones of known kinds."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

import main
import music.corpus
import text.corpus
from helpers import nasty_files, nasty_oracles
from helpers.cli import TINY, call, folders, run, same
from helpers.damage import complaint
from helpers.fuzz import Reader
from helpers.mutations import STRANGE, mutated
from helpers.tunes import scale, split_folder, tune
from music.midi import Grid, MidiError, read_tokens
from oracle import NAMES, load_oracle, make_oracle, save_oracle
from residual.judge import Size
from residual.judges import Judge, Judges
from running.checkpoint import load_checkpoint, load_models, saved_generator
from running.flags import FLAGS
from running.judges_file import find_judges, save_judges
from support.cache import cache_path
from support.command_line import boolean
from support.errors import UserError
from support.random_streams import stream
from text.vocabulary import Vocabulary

SHORT = "--pretrain_g_epochs 3 --pretrain_d_epochs 2 --total_epochs 2 --eval_every 1".split()
ONE_LINE = (UserError, OSError)


def any_input(rng: random.Random, number: int) -> tuple[bytes, ...]:
    """Inputs that are no content, but seeds of a mutation."""
    return tuple(rng.randbytes(16) for _ in range(number))


def checkpoints(folder: Path) -> list[Reader]:
    """last.pt, best.pt and judges.pt: bytes, which have checksums, and parts of what they hold."""
    with contextlib.redirect_stdout(io.StringIO()):
        assert run(*SHORT, *folders(folder)) == 0
    log_dir = folder / "train"
    models = load_models(log_dir, "best")
    generator = saved_generator(models)
    judge = Judge(20, 5, None, Size((2, 3), 4, 4, 2, 0.1)).initialise(stream(1, "judge"))
    save_judges(log_dir / "judges.pt", Judges([judge], 5, None), generator, "best.pt")
    found = []
    for name in ("last.pt", "best.pt", "judges.pt"):
        path = log_dir / name
        data, payload = path.read_bytes(), load_checkpoint(path)

        def read(changed: bytes, path: Path = path, payload: dict = payload) -> bool:
            path.write_bytes(changed)
            return same(load_checkpoint(path), payload)

        found.append(Reader(f"bytes of {name}", (data,), read, ONE_LINE))

    def command(name: str, use: Callable[[], object]) -> Callable[[bytes], bool]:
        path, kept = log_dir / name, (log_dir / name).read_bytes()
        payload = load_checkpoint(path)

        def read(seed: bytes) -> bool:
            path.write_bytes(kept)
            changed, _ = mutated(payload, random.Random(seed))
            torch.save(changed, path)
            try:
                use()
            finally:
                path.write_bytes(kept)
            return True

        return read

    uses = {
        "last.pt": lambda: evaluated(log_dir),
        "best.pt": lambda: saved_generator(load_models(log_dir, "best")),
        "judges.pt": lambda: find_judges(models, generator, None).scores(torch.zeros(2, 5, dtype=torch.int64)),
    }
    rng = random.Random(1)
    found += [Reader(f"parts of {name}", any_input(rng, 50), command(name, use), ONE_LINE) for name, use in uses.items()]
    return found


def evaluated(log_dir: Path) -> None:
    """Evaluate a run's last.pt; raises UserError where the command would end with one line."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        status = call(main.main, "--is_train", "False", "--final_eval_samples", "20", "--log_dir", str(log_dir))
    if status == 2 and err.getvalue().count("\n") == 1:
        raise UserError(err.getvalue())
    assert status == 0, err.getvalue()


def oracles(folder: Path) -> list[Reader]:
    """Oracle files: `.npz` and the authors' pickle."""
    path = folder / "oracle.npz"
    save_oracle(make_oracle(7, 3, 4, "normal", stream(1, "oracle")), path)

    def read(data: bytes) -> bool:
        path.write_bytes(data)
        oracle = load_oracle(path)
        return all(p.isfinite().all() for p in oracle.parameters())

    arrays = (nasty_oracles.oracle_npz(), path.read_bytes(), *(build() for build in nasty_oracles.NPZS.values()))
    order = [np.load(path)[name] for name in NAMES]
    pickles = tuple(pickle.dumps(order, protocol) for protocol in (0, 2, 5))
    pickles += tuple(build() for build in nasty_oracles.PICKLES.values())
    return [Reader("oracle .npz", arrays, read, ONE_LINE), Reader("oracle pickle", pickles, read, ONE_LINE)]


def music_files(folder: Path) -> list[Reader]:
    """MIDI files, zips of them, and the cache of their tokens."""
    source = split_folder(folder / "tunes", train=1, valid=1, test=1)
    packed, song = folder / "tunes.zip", folder / "song.mid"
    shutil.make_archive(str(packed.with_suffix("")), "zip", source)
    expected = music.corpus.load_corpus(source, Grid(), 1)
    (cache,) = cache_path("music").parent.glob("music-*.cache")

    def read_song(data: bytes) -> bool:
        song.write_bytes(data)
        tokens = read_tokens(song, Grid())
        return tokens.dtype == np.uint8 and (not len(tokens) or tokens.max() <= 88)

    def read_zip(data: bytes) -> bool:
        packed.write_bytes(data)
        tunes = music.corpus.load_corpus(packed, Grid(), 1)
        return all(tunes.tunes.values())

    def read_cache(data: bytes) -> bool:
        cache.write_bytes(data)
        tunes = music.corpus.load_corpus(source, Grid(), 1)
        return tunes.names == expected.names and all(
            np.array_equal(a, b) for split in tunes.tunes for a, b in zip(tunes.tunes[split], expected.tunes[split], strict=True)
        )

    songs = (scale(12), tune((60, 0, 1), (64, 0.5, 2)), nasty_files.midi_in_smpte_frames(), nasty_files.midi_without_time())
    songs += tuple(build() for build in nasty_files.REFUSED_MIDIS.values())
    zips = (packed.read_bytes(), *(build() for build in nasty_files.ZIPS.values()))
    caches = (cache.read_bytes(), *(build() for build in nasty_files.CACHES.values()))
    refusals = (*ONE_LINE, MidiError, music.corpus.CorpusError)
    return [
        Reader("MIDI", songs, read_song, refusals),
        Reader("zip of MIDI", zips, read_zip, refusals),
        Reader("cache of tunes", caches, read_cache, ()),
    ]


def text_files(folder: Path) -> list[Reader]:
    """Lines, the vocabulary that a run keeps, and the cache."""
    path = folder / "lines.txt"
    good = "".join(f"the {a} {b} ü\n" for a in ("cat", "dog") for b in "abcdefgh").encode()
    path.write_bytes(good)
    reading = text.corpus.Reading("words", 5)
    expected = text.corpus.load_corpus(path, reading, no_bar)
    (cache,) = cache_path("text").parent.glob("text-*.cache")

    def read_lines(data: bytes) -> bool:
        path.write_bytes(data[1:])
        kind = ("words", "chars", "ids")[data[0] % 3] if data else "words"
        corpus = text.corpus.load_corpus(path, text.corpus.Reading(kind, 5), no_bar)
        return all(lines.shape[1] == 5 and lines.max() < len(corpus.vocabulary) for lines in corpus.lines.values())

    def read_vocabulary(data: bytes) -> bool:
        written = data.decode("utf-8", "surrogatepass")
        return Vocabulary.from_text("words", written).to_text() == written

    def read_cache(data: bytes) -> bool:
        cache.write_bytes(data)
        return text.corpus.load_corpus(path, reading, no_bar).fingerprint() == expected.fingerprint()

    lines = (b"0" + good, b"1" + good, b"2" + b"1 2 3\n4 5 6\n7 8 9\n1 1 1\n" * 3, b"2" + nasty_files.lines_of_large_numbers())
    caches = (cache.read_bytes(), *(build() for build in nasty_files.CACHES.values()))
    vocabulary = expected.vocabulary.to_text().encode()
    return [
        Reader("cache of text", caches, read_cache, ()),
        Reader("vocabulary", (vocabulary,), read_vocabulary, (ValueError,)),
        Reader("text", lines, read_lines, (*ONE_LINE, text.corpus.CorpusError)),
    ]


class _NoBar:
    def update(self, _bytes: int) -> None:
        """Shows nothing."""

    def close(self) -> None:
        """Closes nothing."""


def no_bar(_size: int) -> _NoBar:
    """No progress bar."""
    return _NoBar()


@contextlib.contextmanager
def empty_folder(folder: Path) -> Iterator[Path]:
    """Inside, the working folder is an empty one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


def run_folders(folder: Path) -> Reader:
    """Folders of runs, as report.py reads them."""

    def read(seed: bytes) -> bool:
        with empty_folder(folder / "run") as own:
            return complaint(own, random.Random(seed), curves=0.01) is None

    return Reader("run folder", any_input(random.Random(2), 50), read, ())


def command_lines(folder: Path) -> Reader:
    """Flags of main.py with values of any kind; a run that would begin is not trained."""

    def value_of(flag: object, rng: random.Random) -> str:
        known = flag.type if isinstance(flag.type, tuple) else ("True", "False") if flag.type is boolean else ("1", "2", "0.5")
        return str(rng.choice((*known, rng.choice(STRANGE), flag.default)))

    def read(seed: bytes) -> bool:
        rng = random.Random(seed)
        chosen = rng.sample(FLAGS, rng.randint(1, 5))
        given = [part for flag in chosen for part in (f"--{flag.name}", value_of(flag, rng))]
        if rng.random() < 0.2:
            given = [f"{name}={value}" for name, value in zip(given[::2], given[1::2], strict=True)]
        err, before = io.StringIO(), main.train
        main.train = lambda *_: 0
        try:
            with empty_folder(folder / "cwd") as own, contextlib.redirect_stderr(err):
                status = call(main.main, *TINY, *folders(own), *given)
        finally:
            main.train = before
        return status == 0 or (status == 2 and err.getvalue().count("\n") == 1 and err.getvalue().startswith("error: "))

    return Reader("command line", any_input(random.Random(3), 50), read, ())


def all_readers(folder: Path) -> list[Reader]:
    """Every reader, with files of its own below a folder; XDG_CACHE_HOME must lie there as well."""

    def own(name: str) -> Path:
        path = folder / "readers" / name
        path.mkdir(parents=True)
        return path

    return [
        *checkpoints(own("checkpoints")),
        *oracles(own("oracles")),
        *music_files(own("music")),
        *text_files(own("text")),
        run_folders(own("runs")),
        command_lines(own("command_lines")),
    ]
