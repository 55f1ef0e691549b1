"""Small MIDI files, folders and zips of them, and the flags of tiny runs on them."""

import io
import zipfile

import pretty_midi

MUSIC = "--dataset Nottingham --vocab_size 89 --seq_len 8 --eval_every 2 --sample_every 3 --save_every 2".split()
SHORT = "--pretrain_g_epochs 5 --pretrain_d_epochs 2 --total_epochs 4".split()


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


def damage_zip(path, name, kind):
    """Overwrite a member of a zip (kind `bytes`), or mark it as encrypted or as of an unknown compression."""
    with zipfile.ZipFile(path) as file:
        info, start_of_list = file.getinfo(name), file.start_dir
    data = bytearray(path.read_bytes())
    entry = next(
        i for i in range(start_of_list, len(data)) if data[i : i + 4] == b"PK\1\2" and data[i + 46 :].startswith(name.encode())
    )
    if kind == "bytes":
        first = info.header_offset + 30 + len(name)
        data[first : first + info.compress_size] = b"\xff" * info.compress_size
    elif kind == "encrypted":
        data[entry + 8] |= 1
        data[info.header_offset + 6] |= 1
    elif kind == "compression":
        data[entry + 10] = data[info.header_offset + 8] = 97
    path.write_bytes(data)
