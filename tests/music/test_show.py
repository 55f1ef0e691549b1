"""Sound, piano rolls and note names."""

import numpy as np
import pytest

from music.midi import Grid
from music.show import SAMPLE_RATE, note_names, piano_rolls, sound

SECONDS, EIGHTH = Grid(), Grid("eighth")


def test_sound_has_the_songs_length_and_pitch():
    wave = sound(np.array([49] * 5 + [0] * 5), SECONDS)  # A4, 2 s, then 2 s of silence
    assert wave.dtype == np.float32
    assert len(wave) == 4 * SAMPLE_RATE
    assert 0.1 < np.abs(wave).max() <= 1
    spectrum = np.abs(np.fft.rfft(wave[: 2 * SAMPLE_RATE]))
    assert spectrum.argmax() / 2 == pytest.approx(440, abs=3)
    assert np.abs(wave[int(2.5 * SAMPLE_RATE) :]).max() < 0.02
    assert not sound(np.zeros(3, int), SECONDS).any()


def test_piano_rolls_show_each_note_where_it_belongs():
    image = piano_rolls(np.array([[0, 60, 37], [49, 49, 49]]))
    assert image.shape == (2 * 24 * 4 + 6, 3 * 12)  # two tunes, two octaves from token 37 on
    assert (image[:4, 12:24] == 0).all()  # token 60 in frame 2, on top
    assert (image[92:96, 24:] == 0).all()  # token 37 in frame 3, at the bottom
    assert (image[:96, :12] > 200).all()  # a rest
    assert (image[102 + 44 : 102 + 48] == 0).all()  # token 49, held
    assert piano_rolls(np.zeros((1, 4), int)).min() > 200


def test_note_names_are_those_of_the_pitches():
    assert note_names(np.array([40, 0, 1, 88])) == "C4 . A0 C8"
