"""Unpack the Nottingham zip: `python -m music.archive Nottingham.zip data/Nottingham`.

Every tune is parsed before anything is put in place, and only MIDI files below train, valid and test are unpacked.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from music.corpus import LIST_BYTES, SPLITS, CorpusError, folder_split, zip_members
from music.midi import Grid, MidiError, read_tokens
from support.command_line import Parser
from support.errors import UserError, exit_with_one_line
from support.zips import open_zip

NOTTINGHAM = {"train": 694, "valid": 173, "test": 170}  # files of the original archive


def unpack(archive: Path, target: Path) -> dict[str, int]:
    """Unpack the tunes of a zip into target/{train,valid,test}; returns how many each holds.

    Raises:
        UserError: the target exists, the zip is broken or unsafe or lacks a part of the split, or a tune can't be parsed. The
            target is then left as it was.
        OSError: a file can't be read or written.
    """
    if target.exists():
        raise UserError(f"{target} exists already")
    target.parent.mkdir(parents=True, exist_ok=True)
    private = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))  # only its owner may read this folder
    partial = private / target.name  # a folder in it has the permissions of the umask, and becomes the target
    counts = dict.fromkeys(SPLITS, 0)
    try:
        partial.mkdir()
        with open_zip(archive, LIST_BYTES) as file:
            for member in list(zip_members(file)):  # refused as a whole before anything is parsed
                split, below = folder_split(member.name)
                if split is None:
                    continue
                data = member.read()
                read_tokens(data, Grid())
                path = partial / split / below
                if path.exists():
                    raise UserError(f"{archive} holds two files for {path.relative_to(partial)}, one of them {member.name}")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                counts[split] += 1
        empty = [split for split, number in counts.items() if not number]
        if empty:  # once the target exists, the right zip would be refused
            raise UserError(f"{archive} holds no MIDI file in a folder {' or '.join(empty)}")
        try:
            os.replace(partial, target)
        except OSError:
            if not target.is_dir():  # another process may have unpacked the same zip meanwhile
                raise
    except MidiError as error:
        raise UserError(f"{archive}: {member.name}: {error}") from error
    except (CorpusError, zipfile.BadZipFile) as error:
        raise UserError(str(error) if isinstance(error, CorpusError) else f"{archive} is not a readable zip: {error}") from error
    finally:
        shutil.rmtree(private, ignore_errors=True)
    return counts


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = Parser(description="Unpack the Nottingham zip into a folder.", allow_abbrev=False)
    parser.add_argument("archive", type=Path, help="the zip")
    parser.add_argument("target", type=Path, help="the folder to make")
    args = parser.parse_args(argv)
    counts = unpack(args.archive, args.target)
    print(f"{args.archive} -> {args.target}: " + ", ".join(f"{number} {split}" for split, number in counts.items()))
    if counts != NOTTINGHAM:
        expected = "/".join(map(str, NOTTINGHAM.values()))
        print(f"note: the original Nottingham archive holds {expected} files", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
