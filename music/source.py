"""What --dataset Nottingham declares: its flags and the settings that music fixes."""

from __future__ import annotations

from functools import partial

from music import GRIDS, VOCAB_SIZE
from support.command_line import Flag, StartFrom, real
from support.data_source import DataSource

_flag = partial(
    Flag, group="data: MIDI files (--dataset Nottingham)", start_from=StartFrom.FIXED, requires=("dataset", ("Nottingham",))
)
TUNES = DataSource(
    module="music.data_set",
    name="TuneData",
    settings={"seq_len": 32},
    # D, which could learn the few tunes by heart, learns less, and G stays closer to maximum likelihood.
    presets={"default": dict(pretrain_g_epochs=500, total_epochs=500, pretrain_d_epochs=300, kl_weight=1.0)},
    fixed={"vocab_size": (VOCAB_SIZE, f"music has {VOCAB_SIZE} tokens, a rest and the piano's keys")},
    flags=(
        _flag(
            name="data_dir",
            type=str,
            default="data/Nottingham",
            resumable=True,  # the data may have moved; that they are the same is checked when they are read
            start_from=StartFrom.INHERITED,
            help="folder or zip of MIDI files",
        ),
        _flag(name="grid", type=GRIDS, default="seconds", help="frames of MIDI: --frame_seconds long, or an eighth note"),
        _flag(name="frame_seconds", type=real(0.02), default=0.4, help="length of a frame on the grid of seconds"),
    ),
)
