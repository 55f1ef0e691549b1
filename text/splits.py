"""Which lines of a text are trained on, and which are held out: none is in two of train, valid and test.

Lines are compared as they are in the file. What unknown tokens, or cutting long lines into pieces, makes equal to training
sequences is left out of valid and test as well, unless that is a large part of them.

Shapes: N lines, T tokens each.
"""

from __future__ import annotations

import numpy as np

from text.measures import line_hashes

SPLITS = ("train", "valid", "test")
SHARES = (0.8, 0.1, 0.1)
MOST_COPIES = 0.1  # of valid or test that are left out


class CorpusError(ValueError):
    """A file or folder without usable text; the text says in one line what is wrong."""


def random_split(hashes: np.ndarray, seed: int, source: str) -> tuple[np.ndarray, list[str]]:
    """Splits the different lines 80/10/10, at least one each: the split of each line, (N,)."""
    _, group, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
    if len(sizes) < len(SPLITS):
        raise CorpusError(f"{source}: {len(sizes)} different lines; a split into train, valid and test needs at least 3")
    order = np.random.default_rng(seed).permutation(len(sizes))
    held_out = [max(1, round(share * len(sizes))) for share in SHARES[1:]]
    split_of_group = np.zeros(len(sizes), dtype=np.int8)
    split_of_group[order[: held_out[0]]] = 1
    split_of_group[order[held_out[0] : sum(held_out)]] = 2
    copies = len(hashes) - len(sizes)
    return split_of_group[group.ravel()], [f"{copies} lines occur before: copies are in the split of the first"] if copies else []


def without_copies(split_of: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Takes out of train what valid or test has as well, and out of valid what test has: the split of each line, −1 for none."""
    notes = []
    for split, others in ((0, "valid or test"), (1, "test")):
        copied = (split_of == split) & np.isin(hashes, hashes[split_of > split])
        if copied.any():
            notes.append(f"{int(copied.sum())} lines of {SPLITS[split]} left out, as {others} has them too")
            split_of = np.where(copied, -1, split_of)
    return split_of, notes


def leave_out_copies(lines: dict[str, np.ndarray]) -> list[str]:
    """Leave out sequences of valid and test that only unknown tokens, or pieces of lines, make equal to training ones.

    Not the training ones, which are the most frequent patterns of the text. Where they are more than MOST_COPIES of a split they
    stay: sequences so short, or of so few tokens, repeat each other, and what is left would be the unusual ones.

    Args:
        lines: the sequences of each split, (N, T); changed.

    Returns:
        Notes for the user.
    """
    train, notes = line_hashes(lines["train"]), []
    for split in SPLITS[1:]:
        copied = np.isin(line_hashes(lines[split]), train)
        number, share = int(copied.sum()), float(copied.mean())
        if share > MOST_COPIES:
            notes.append(f"{100 * share:.0f} % of {split} are training sequences too, being short or of few tokens; they stay")
        elif number:
            notes.append(f"{number} sequences of {split} left out, as with <unk> or as pieces they are training sequences")
            lines[split] = lines[split][~copied]
    return notes
