"""Files of lines, read as corpora."""

from text.corpus import Reading, load_corpus


class NoBar:
    """A progress bar that shows nothing."""

    def __init__(self, _):
        self.total = 0

    def update(self, number):
        """Counts."""
        self.total += number

    def close(self):
        """Nothing to close."""


def write(path, lines, end="\n"):
    path.write_bytes(end.join([*lines, ""]).encode())
    return path


def load(path, **changes):
    return load_corpus(path, Reading(**{"kind": "words", "seq_len": 6, **changes}), NoBar)


def decoded(found, split):
    return [found.vocabulary.decode(row) for row in found.lines[split].tolist()]


LETTERS = [f"{a} {b} {c}" for a in "abcdefgh" for b in "ijklm" for c in "nop"]  # 120 different lines
