"""Small MIDI files, and folders of them."""

import io

import pretty_midi


def tune(*notes, program=0, drum=False):
    """A MIDI file of (pitch, start, end) notes in seconds."""
    midi = pretty_midi.PrettyMIDI()
    instrument = pretty_midi.Instrument(program, is_drum=drum)
    instrument.notes = [pretty_midi.Note(90, pitch, start, end) for pitch, start, end in notes]
    midi.instruments.append(instrument)
    data = io.BytesIO()
    midi.write(data)
    return data.getvalue()


def scale(num=40, lowest=60):
    """A rising scale, a note each 0.4 s."""
    return tune(*[(lowest + i % 12, 0.4 * i, 0.4 * i + 0.4) for i in range(num)])


def split_folder(root, train=3, valid=1, test=2):
    """A folder with a split; returns it."""
    for split, number in (("train", train), ("valid", valid), ("test", test)):
        (root / split).mkdir(parents=True)
        for i in range(number):
            (root / split / f"{split}_{i}.mid").write_bytes(scale(40 + i, 55 + i))
    return root
