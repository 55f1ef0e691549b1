"""How much of a collection's melodies each frame grid keeps: `python experiments/nottingham_grids.py data/Nottingham`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from music.corpus import CorpusError, folder_members
from music.midi import TOLERANCE, Grid, Melody, MidiError, encode, melody_of, read_midi
from support.command_line import Parser
from support.errors import UserError, exit_with_one_line, must_have_output

GRIDS = (Grid("seconds", 0.4), Grid("seconds", 0.25), Grid("eighth"), Grid("seconds", 0.125))


def kept(melody: Melody) -> np.ndarray:
    """Of a melody: notes; those that begin on a frame; those that any frame holds; those whose onset decoding gives back."""
    tokens = encode(melody).astype(np.int64)
    begins = set(np.flatnonzero(np.diff(tokens, prepend=-1)).tolist())  # frames at which decoding begins a note
    counts = np.zeros(4, dtype=np.int64)
    for start, end, pitch in zip(melody.starts, melody.ends, melody.pitches, strict=True):
        first, after = (int(np.ceil(x - TOLERANCE)) for x in (start, end))
        on_frame = abs(start - round(start)) <= TOLERANCE
        heard = bool((tokens[first:after] == pitch - 20).any())
        counts += [1, on_frame, heard, on_frame and heard and first in begins and tokens[first] == pitch - 20]
    return counts


@exit_with_one_line
def main(argv: list[str] | None = None) -> int:
    """The command; prints a table. Returns the exit status."""
    parser = Parser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="a folder of MIDI files")
    folder = parser.parse_args(argv).folder
    must_have_output()
    if not folder.is_dir():
        raise UserError(f"no folder {folder}")
    totals = {grid: np.zeros(4, dtype=np.int64) for grid in GRIDS}
    for member in folder_members(folder):
        try:
            midi = read_midi(member.read())
            for grid, total in totals.items():
                total += kept(melody_of(midi, grid))
        except (MidiError, CorpusError) as error:
            print(f"{member.name}: {error}", file=sys.stderr)
    print("| grid | notes | begin on a frame | held by a frame | onset given back |\n|---|---|---|---|---|")
    for grid, (notes, on_frame, heard, back) in totals.items():
        name = "eighth note" if grid.kind == "eighth" else f"{grid.frame_seconds} s"
        shares = " | ".join(f"{100 * count / max(1, notes):.1f} %" for count in (on_frame, heard, back))
        print(f"| {name} | {notes} | {shares} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
