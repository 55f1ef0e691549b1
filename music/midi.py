"""A melody as tokens, one per frame, and back.

A frame has the pitch that sounds at its start. Decoding merges equal neighbours into one held note, so
`encode(decode(tokens)) == tokens` for every token sequence.
"""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pretty_midi

from music import LOWEST_PITCH, NUM_PITCHES, REST, VOCAB_SIZE
from music.bounds import MAX_FILE_BYTES, UNREADABLE, MidiError, check_bounds
from support.files import read_regular

EIGHTH_SECONDS = 0.25  # an eighth note at the 120 beats per minute at which songs are written

TICKS_A_QUARTER, BEATS_A_MINUTE = 480, 120.0
# A note that begins up to this share of a frame late counts as beginning with the frame: files round times to ticks.
TOLERANCE = 1 / 16
# A MIDI file ends with its last note; this text event marks the end of the rests after it.
END_MARK = "end of tokens"
MAX_FRAMES = 1_000_000  # the length in a corrupt file may be years


class Grid(NamedTuple):
    """Frames of a fixed number of seconds, or of an eighth note whatever the tempo."""

    kind: str = "seconds"
    frame_seconds: float = 0.4

    @property
    def seconds(self) -> float:
        """Length of a frame in songs that are written."""
        return EIGHTH_SECONDS if self.kind == "eighth" else self.frame_seconds


class Melody(NamedTuple):
    """Notes in units of frames: onsets, ends and pitches, (N,) each, and the length of the whole."""

    starts: np.ndarray
    ends: np.ndarray
    pitches: np.ndarray
    length: float


def read_midi(source: Path | bytes) -> pretty_midi.PrettyMIDI:
    """Parse a MIDI file.

    Raises:
        MidiError: it is no MIDI file, a broken one, or one that would take the parser long.
        OSError: it can't be read.
    """
    data = source if isinstance(source, bytes) else read_regular(source, MAX_FILE_BYTES)
    check_bounds(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tempo events outside the first track, which are common and harmless
            return pretty_midi.PrettyMIDI(io.BytesIO(data))
    except MemoryError:
        raise
    except Exception as error:  # a broken file can make the parser raise anything
        raise MidiError(UNREADABLE) from error


def melody_of(midi: pretty_midi.PrettyMIDI, grid: Grid) -> Melody:
    """The notes of the first instrument that is no drum, in frames.

    Raises:
        MidiError: there is no such note, or the tune is absurdly long.
    """
    marks = [event.time for event in midi.text_events if event.text == END_MARK]
    tuned = [instrument for instrument in midi.instruments if not instrument.is_drum and instrument.notes]
    if not tuned and not marks:
        raise MidiError("drums only" if any(i.notes for i in midi.instruments) else "no notes")
    notes = tuned[0].notes if tuned else []

    def frames(seconds: float) -> float:
        if grid.kind == "eighth":
            return midi.time_to_tick(seconds) / midi.resolution * 2
        return seconds / grid.frame_seconds

    starts, ends = (np.array([frames(getattr(note, side)) for note in notes], dtype=np.float64) for side in ("start", "end"))
    pitches = np.array([note.pitch for note in notes], dtype=np.int64)
    length = max([*ends.tolist(), *map(frames, marks)])
    if not length < MAX_FRAMES:
        raise MidiError(f"longer than {MAX_FRAMES} frames")
    return Melody(starts, ends, pitches, length)


def encode(melody: Melody) -> np.ndarray:
    """Tokens of a melody, uint8 (frames,): the highest piano key that sounds at each whole frame's start."""
    num_frames = math.floor(melody.length + TOLERANCE)
    tokens = np.zeros(num_frames, dtype=np.uint8)
    keys = melody.pitches - LOWEST_PITCH + 1
    previous, reached = 0, 0  # a key, and the frame up to which it is filled: thousands of its notes may sound at once
    for key, start, end in sorted(zip(keys.tolist(), melody.starts.tolist(), melody.ends.tolist(), strict=True)):
        if 1 <= key <= NUM_PITCHES:  # ascending, so that the highest of several notes is kept
            first, after = max(0, math.ceil(start - TOLERANCE)), max(0, math.ceil(end - TOLERANCE))
            if key != previous:
                previous, reached = key, 0
            tokens[max(first, reached) : after] = key
            reached = max(reached, after)
    return tokens


def read_tokens(source: Path | bytes, grid: Grid) -> np.ndarray:
    """Tokens of a MIDI file's melody, uint8 (frames,); raises MidiError or OSError."""
    midi = read_midi(source)
    try:
        return encode(melody_of(midi, grid))
    except (MidiError, MemoryError):
        raise
    except Exception as error:  # the times of a broken file can be any numbers
        raise MidiError("a melody at times that are none") from error


def decode(tokens: np.ndarray, grid: Grid) -> pretty_midi.PrettyMIDI:
    """A song of tokens (frames,), frames × frame length long, on a piano.

    Raises:
        ValueError: a token is outside 0..88, or a frame is too short for MIDI's ticks.
    """
    tokens = np.asarray(tokens, dtype=np.int64)
    if tokens.size and (tokens.min() < 0 or tokens.max() >= VOCAB_SIZE):
        raise ValueError(f"tokens must be 0 to {NUM_PITCHES}")
    ticks_a_second = TICKS_A_QUARTER * BEATS_A_MINUTE / 60
    if grid.seconds * ticks_a_second * TOLERANCE < 1:
        raise ValueError(f"frames of {grid.seconds} s are too short: MIDI rounds times to {1 / ticks_a_second:.4f} s")
    midi = pretty_midi.PrettyMIDI(resolution=TICKS_A_QUARTER, initial_tempo=BEATS_A_MINUTE)
    piano = pretty_midi.Instrument(program=0, name="melody")
    edges = np.flatnonzero(np.diff(tokens, prepend=-1, append=-1))  # where a run of equal tokens begins; the last edge is the end
    for first, after in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if tokens[first] != REST:
            pitch = int(tokens[first]) - 1 + LOWEST_PITCH
            piano.notes.append(pretty_midi.Note(100, pitch, first * grid.seconds, after * grid.seconds))
    midi.instruments.append(piano)
    midi.text_events.append(pretty_midi.Text(END_MARK, len(tokens) * grid.seconds))
    return midi


def midi_bytes(tokens: np.ndarray, grid: Grid) -> bytes:
    """The MIDI file of tokens (frames,); raises ValueError as `decode` does."""
    data = io.BytesIO()
    decode(tokens, grid).write(data)
    return data.getvalue()
