"""Showing tunes: note names, piano rolls and sound. Tokens are those of `music`."""

from __future__ import annotations

import io
import wave

import numpy as np
import pretty_midi

from music import LOWEST_PITCH, REST
from music.midi import Grid, decode

SAMPLE_RATE = 22_050
PIXELS_A_FRAME, PIXELS_A_KEY = 12, 4
GAP = 6  # pixels between two rolls


def note_names(tokens: np.ndarray) -> str:
    """Frames as note names, a dot for a rest: `G4 G4 . A4`."""
    return " ".join("." if t == REST else pretty_midi.note_number_to_name(int(t) - 1 + LOWEST_PITCH) for t in tokens)


def piano_rolls(tunes: np.ndarray) -> np.ndarray:
    """Tunes (M, T) as a grey image, one below the other, uint8 (height, width).

    Time runs to the right, high keys are on top, C's are shaded; the rolls show the octaves that the tunes use.
    """
    sounding = tunes[tunes != REST].astype(np.int64)
    first = (sounding.min() - 1) // 12 * 12 + 1 if sounding.size else 37  # a token of key A, the first of its octave here
    last = max(sounding.max() + 1, first + 24) if sounding.size else 61
    keys = np.arange(first, last)[:, None]  # tokens, low to high: (keys, 1)
    ground = np.where((keys - 1 + LOWEST_PITCH) % 12 == 0, 215, 250)
    scale = np.ones((PIXELS_A_KEY, PIXELS_A_FRAME))
    rolls = [np.kron(np.where(tune[None].astype(np.int64) == keys, 0, ground)[::-1], scale) for tune in tunes]
    rolls = [np.pad(roll, ((0, GAP), (0, 0)), constant_values=128) for roll in rolls]
    return np.concatenate(rolls)[:-GAP].astype(np.uint8)


def sound(tokens: np.ndarray, grid: Grid) -> np.ndarray:
    """A tune (T,) as sound, float32 in [-1, 1] at SAMPLE_RATE: FluidSynth's piano where it is installed, else sine waves."""
    midi = decode(tokens, grid)
    try:
        samples = midi.fluidsynth(fs=SAMPLE_RATE)
    except ImportError:
        samples = midi.synthesize(fs=SAMPLE_RATE)
    length = round(len(tokens) * grid.seconds * SAMPLE_RATE)
    samples = np.pad(samples[:length], (0, max(0, length - len(samples))))  # keep the rests at the end
    return (samples / max(1.0, np.abs(samples).max(initial=0.0))).astype(np.float32)


def wav_bytes(samples: np.ndarray) -> bytes:
    """Sound in [-1, 1] as a 16-bit mono WAV file."""
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return data.getvalue()
