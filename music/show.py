"""Tunes for the eye and the ear: note names, piano rolls and sound. Tokens are those of `music`."""

from __future__ import annotations

import numpy as np
import pretty_midi

from music import LOWEST_PITCH, NUM_PITCHES, REST
from music.midi import Grid, decode

SAMPLE_RATE = 22_050
PIXELS_A_FRAME, PIXELS_A_KEY = 8, 3
GAP = 6  # pixels between two rolls


def note_names(tokens: np.ndarray) -> str:
    """Frames as note names, a dot for a rest: `G4 G4 . A4`."""
    return " ".join("." if t == REST else pretty_midi.note_number_to_name(int(t) - 1 + LOWEST_PITCH) for t in tokens)


def piano_roll(tokens: np.ndarray) -> np.ndarray:
    """One tune (T,) as a grey image, uint8 (88 keys · 3, T frames · 8): time to the right, high keys on top, C's shaded."""
    keys = np.arange(NUM_PITCHES)[:, None]  # (88, 1), A0 first
    ground = np.where((keys + LOWEST_PITCH) % 12 == 0, 225, 250)
    roll = np.where(tokens[None].astype(np.int64) == keys + 1, 0, ground)[::-1]  # (88, T)
    return np.kron(roll, np.ones((PIXELS_A_KEY, PIXELS_A_FRAME))).astype(np.uint8)


def piano_rolls(tunes: np.ndarray) -> np.ndarray:
    """Tunes (M, T) side by side, uint8 (height, width)."""
    rolls = [np.pad(piano_roll(tune), ((0, 0), (0, GAP)), constant_values=128) for tune in tunes]
    return np.concatenate(rolls, axis=1)[:, :-GAP]


def sound(tokens: np.ndarray, grid: Grid) -> np.ndarray:
    """A tune (T,) as sound, float32 in [-1, 1] at SAMPLE_RATE: FluidSynth's piano where it is installed, else sine waves."""
    midi = decode(tokens, grid)
    try:
        wave = midi.fluidsynth(fs=SAMPLE_RATE)
    except ImportError:
        wave = midi.synthesize(fs=SAMPLE_RATE)
    length = round(len(tokens) * grid.seconds * SAMPLE_RATE)
    wave = np.pad(wave[:length], (0, max(0, length - len(wave))))  # rests at the end count too
    return (wave / max(1.0, np.abs(wave).max(initial=0.0))).astype(np.float32)
