"""Poems of one length as lines of characters: `python experiments/poems.py POEMS [POEMS ...] --out quatrains.txt`.

Reads text files, or all .txt files of folders, with a poem a line. Punctuation and blanks are left out. Poems of any other number
of characters than --characters are left out as well, and counted.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.command_line import Parser
from support.errors import UserError, exit_with_one_line
from support.files import write_text


def text_files(sources: Iterable[str]) -> Iterator[Path]:
    """The files that are given, and the .txt files of folders; raises UserError where there are none."""
    for source in map(Path, sources):
        files = sorted(source.rglob("*.txt")) if source.is_dir() else [source]
        if not files or not all(path.is_file() for path in files):
            raise UserError(f"{source}: no text file")
        yield from files


def read(path: Path) -> str:
    """A file's text; raises UserError where it is not UTF-8, OSError where it can't be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: byte {error.start}") from None


def check_out(out: Path, sources: Iterable[str], overwrite: bool) -> None:
    """Raises UserError where the lines would replace a file that is not to be replaced, or one of those that are read."""
    if out.exists() and any(out.samefile(path) for path in text_files(sources)):
        raise UserError(f"--out {out} is one of the texts that are read: choose another name or folder")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists: choose another name, or --overwrite")


def letters(poem: str) -> str:
    """The characters of a poem that are letters."""
    return "".join(character for character in poem if unicodedata.category(character).startswith("L"))


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("poems", nargs="+", metavar="FILE_OR_FOLDER", help="text files with a poem a line")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.txt", help="where the lines go")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE.txt")
    parser.add_argument("--characters", type=int, choices=(20, 28), default=20, help="of a quatrain: 4 × 5 or 4 × 7")
    args = parser.parse_args(argv)
    check_out(args.out, args.poems, args.overwrite)
    poems = [letters(line) for path in text_files(args.poems) for line in read(path).split("\n")]
    kept = [poem for poem in poems if len(poem) == args.characters]
    if not kept:
        raise UserError(f"no poem has {args.characters} characters")
    write_text(args.out, "".join(f"{poem}\n" for poem in kept))
    others = sum(bool(poem) for poem in poems) - len(kept)
    print(f"{args.out}: {len(kept)} poems of {args.characters} characters; {others} of other lengths left out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
