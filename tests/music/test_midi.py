"""Tokens to MIDI and back."""

import io
import os
import random
import time

import mido
import numpy as np
import pretty_midi
import pytest
from helpers.limits import at_most
from helpers.nasty_files import REFUSED_MIDIS, SLOW_MIDIS
from helpers.tunes import scale, tune

from music import VOCAB_SIZE, midi
from music.midi import MAX_FRAMES, Grid, Melody, MidiError, decode, encode, midi_bytes, read_tokens

SECONDS, EIGHTH = Grid(), Grid("eighth")


@pytest.mark.parametrize("grid", [SECONDS, EIGHTH, Grid("seconds", 0.1), Grid("seconds", 0.37)])
def test_every_token_sequence_round_trips(grid):
    rng = np.random.default_rng(0)
    cases = [rng.integers(0, high, size).tolist() for high in (2, 3, VOCAB_SIZE) for size in (1, 2, 32, 200) for _ in range(5)]
    cases += [[], [0], [0, 0, 0], [5, 0, 0], [0, 0, 5], [88] * 9, list(range(VOCAB_SIZE))]
    for tokens in cases:
        assert read_tokens(midi_bytes(np.array(tokens, dtype=int), grid), grid).tolist() == tokens


@pytest.mark.parametrize("grid", [SECONDS, EIGHTH])
def test_another_reader_finds_the_same_notes(grid):
    """As mido reads them: notes of the piano, none of length 0, one at a time, and T frames in all."""
    tokens = np.random.default_rng(1).integers(0, VOCAB_SIZE, 32)
    tokens[-3:] = 0
    song = mido.MidiFile(file=io.BytesIO(midi_bytes(tokens, grid)))
    assert song.length == pytest.approx(32 * grid.seconds, abs=0.01)
    now, sounding, notes = 0.0, {}, []
    for message in song:
        now += message.time
        if message.type == "note_on" and message.velocity:
            sounding[message.note] = now
        elif message.type in ("note_on", "note_off"):
            notes.append((message.note, sounding.pop(message.note), now))
    assert not sounding
    assert all(21 <= note <= 108 for note, _, _ in notes)
    assert all(end - start > 0.9 * grid.seconds for _, start, end in notes)
    changes = np.flatnonzero(np.diff(tokens, prepend=-1))
    assert [note - 20 for note, _, _ in sorted(notes, key=lambda n: n[1])] == [t for t in tokens[changes] if t]


def test_repeated_tokens_become_one_held_note():
    notes = decode(np.array([0, 40, 40, 40, 0, 40, 41]), SECONDS).instruments[0].notes
    assert [(n.pitch, round(n.start, 3), round(n.end, 3)) for n in notes] == [(60, 0.4, 1.6), (60, 2.0, 2.4), (61, 2.4, 2.8)]


def test_a_frame_holds_what_sounds_at_its_start():
    data = tune((60, 0.0, 0.39), (62, 0.41, 0.79), (64, 0.9, 1.1), (65, 1.25, 2.0))
    assert read_tokens(data, SECONDS).tolist() == [40, 42, 0, 0, 45]


def test_the_highest_of_several_notes_is_the_melody():
    assert read_tokens(tune((60, 0, 1.2), (72, 0.4, 0.8), (50, 0, 1.2)), SECONDS).tolist() == [40, 52, 40]


def test_notes_off_the_piano_are_rests():
    assert read_tokens(tune((20, 0, 0.4), (21, 0.4, 0.8), (108, 0.8, 1.2), (109, 1.2, 1.6)), SECONDS).tolist() == [0, 1, 88, 0]


def test_eighth_notes_follow_the_tempo():
    midi = pretty_midi.PrettyMIDI(initial_tempo=90)
    piano = pretty_midi.Instrument(0)
    eighth = 60 / 90 / 2
    piano.notes = [pretty_midi.Note(90, 60 + i, i * eighth, (i + 1) * eighth) for i in range(12)]
    midi.instruments.append(piano)
    data = io.BytesIO()
    midi.write(data)
    assert read_tokens(data.getvalue(), EIGHTH).tolist() == [40 + i for i in range(12)]


@pytest.mark.parametrize("tokens", [[-1], [89], [0, 500]])
def test_tokens_that_are_no_notes_are_refused(tokens):
    with pytest.raises(ValueError, match="0 to 88"):
        decode(np.array(tokens), SECONDS)


def test_frames_too_short_for_midi_are_refused():
    with pytest.raises(ValueError, match="too short"):
        decode(np.array([1]), Grid("seconds", 0.001))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a readable"),
        (b"La la la, a song in words\n" * 20, "not a readable"),
        (scale()[:60], "not a readable"),
        (tune(), "no notes"),
        (tune((40, 0, 1), drum=True), "drums only"),
    ],
)
def test_files_without_a_melody_are_refused_with_a_reason(data, reason):
    with pytest.raises(MidiError, match=reason):
        read_tokens(data, SECONDS)


@pytest.mark.parametrize("name", REFUSED_MIDIS)
def test_files_that_would_take_the_parser_long_are_refused_before_it_begins(name, monkeypatch):
    data = REFUSED_MIDIS[name]()
    monkeypatch.setattr(pretty_midi, "PrettyMIDI", lambda _: 1 / 0)  # whose error would read "not a readable MIDI file"
    with at_most(seconds=5), pytest.raises(MidiError) as caught:
        read_tokens(data, SECONDS)
    assert not isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("grid", [SECONDS, EIGHTH])
@pytest.mark.parametrize("name", SLOW_MIDIS)
def test_the_slowest_files_within_the_bounds_take_seconds(name, grid):
    small = {"midi_of_tracks": 3000, "midi_of_one_message": 50_000, "midi_with_a_late_note": 2_000_000}
    data = SLOW_MIDIS[name](small.get(name, 15_000))
    with at_most(seconds=10):
        assert len(read_tokens(data, grid)) < MAX_FRAMES


def test_notes_that_sound_at_once_are_filled_in_once():
    """Each note by itself: 50,000 times a million frames."""
    num, seconds = 50_000, {}
    for name, last in (("one after the other", 0), ("at once", MAX_FRAMES)):
        starts = np.arange(num, dtype=np.float64)
        melody = Melody(starts, np.maximum(starts + 1, last), np.full(num, 60), float(MAX_FRAMES))
        begin = time.process_time()
        assert np.count_nonzero(encode(melody)) == max(num, last)
        seconds[name] = time.process_time() - begin
    assert seconds["at once"] < 5 * seconds["one after the other"]


def test_overlapping_notes_sound_as_if_each_was_filled_in():
    rng = np.random.default_rng(0)
    for _ in range(200):
        starts, pitches = rng.uniform(-3, 30, 12), rng.integers(58, 62, 12)
        ends = starts + rng.exponential(4, 12)
        expected = np.zeros(40, dtype=int)
        for pitch, start, end in sorted(zip(pitches, starts, ends, strict=True)):
            expected[max(0, int(np.ceil(start - 1 / 16))) : max(0, int(np.ceil(end - 1 / 16)))] = pitch - 20
        assert encode(Melody(starts, ends, pitches, 40.0)).tolist() == expected.tolist()


def test_what_breaks_while_a_melody_is_made_is_named(monkeypatch):
    monkeypatch.setattr(midi, "encode", lambda _: [][0])
    with pytest.raises(MidiError, match="at times that are none"):
        read_tokens(scale(), SECONDS)


def test_a_pipe_is_no_tune(tmp_path):
    os.mkfifo(tmp_path / "pipe.mid")
    with at_most(seconds=5), pytest.raises(OSError, match="not a regular file"):
        read_tokens(tmp_path / "pipe.mid", SECONDS)


def test_500_corruptions_never_end_in_a_traceback():
    rng = random.Random(0)
    originals = [scale(), tune((60, 0, 1), (64, 1, 2)), midi_bytes(np.arange(30), EIGHTH)]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(500):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.choice([1, 2, 5, 20])):
            kind, place = rng.randrange(4), rng.randrange(len(data))
            if kind == 0:
                data[place] = rng.randrange(256)
            elif kind == 1:
                del data[max(1, place) : place + rng.randrange(1, 9)]
            elif kind == 2:
                data[place:place] = rng.randbytes(rng.randrange(1, 9))
            else:
                data = data[: max(30, place)]
        try:
            tokens = read_tokens(bytes(data), rng.choice([SECONDS, EIGHTH]))
            assert tokens.max(initial=0) < VOCAB_SIZE
            outcomes["read"] += 1
        except MidiError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 5  # the corruptions are neither all harmless nor all fatal
