"""Sentences as lines of words: `python experiments/sentences.py SPEECHES [SPEECHES ...] --out sentences.txt`.

Reads text files, or all .txt files of folders. A sentence ends at a full stop, a question or an exclamation mark before a blank, or
at an empty line. Sentences of more than --max_words words or fewer than --min_words are left out, and counted. With --installed it
reads the documentation and licences of the Python packages that are installed, which every machine has.
"""

from __future__ import annotations

import ast
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from poems import check_out, read, text_files

from support.command_line import Parser, whole
from support.errors import UserError, exit_with_one_line
from support.files import write_text

DOCUMENTED = ("numpy", "torch/nn", "torch/optim", "torch/distributed", "tensorboard", "matplotlib", "nltk")  # where installed
ENDS = re.compile(r"(?<=[.!?])\s+|\n\s*\n")


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, with single blanks between words."""
    for sentence in ENDS.split(text):
        if words := sentence.split():
            yield " ".join(words)


def installed_texts() -> Iterator[str]:
    """Documentation strings of the standard library and of large packages, and the licences of all."""
    stdlib, packages = (Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib"))
    for folder in (stdlib, *(packages / name for name in DOCUMENTED)):
        for path in sorted(folder.rglob("*.py")):
            if not {"test", "tests", "site-packages"} & set(path.relative_to(folder).parts):
                yield from docstrings(path)
    for path in sorted(packages.glob("*.dist-info/**/*")):
        if path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING")) and path.is_file():
            yield path.read_text(encoding="utf-8", errors="ignore")


def docstrings(path: Path) -> Iterator[str]:
    """The documentation strings of a Python file; none where it can't be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_text(encoding="utf-8", errors="ignore"))
    except (SyntaxError, ValueError, OSError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (
            text := ast.get_docstring(node)
        ):
            yield text


def is_prose(sentence: str) -> bool:
    """Whether a sentence from documentation is plain English: letters and little punctuation, from a capital to a full stop."""
    return re.fullmatch(r"[A-Z][A-Za-z ,;:'()-]*[.!?]", sentence) is not None


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("texts", nargs="*", metavar="FILE_OR_FOLDER", help="text files")
    parser.add_argument("--installed", action="store_true", help="read what installed Python packages say of themselves")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.txt", help="where the lines go")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE.txt")
    parser.add_argument("--max_words", type=whole(1), default=20, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--min_words", type=whole(1), default=3, metavar="N", help="(default: %(default)s)")
    args = parser.parse_args(argv)
    if args.installed == bool(args.texts):
        raise UserError("give text files, or --installed")
    check_out(args.out, args.texts, args.overwrite)
    if args.installed:
        found = dict.fromkeys(s for text in installed_texts() for s in sentences(text) if is_prose(s))
    else:
        found = [s for path in text_files(args.texts) for s in sentences(read(path))]
    kept = [sentence for sentence in found if args.min_words <= sentence.count(" ") + 1 <= args.max_words]
    if not kept:
        raise UserError(f"no sentence has {args.min_words} to {args.max_words} words")
    write_text(args.out, "".join(f"{sentence}\n" for sentence in kept))
    print(
        f"{args.out}: {len(kept)} sentences of {args.min_words} to {args.max_words} words; {len(found) - len(kept)} others left out"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
