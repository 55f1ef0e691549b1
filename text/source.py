"""What --dataset Text declares: its flags."""

from __future__ import annotations

from functools import partial

from support.command_line import Flag, StartFrom, boolean, whole
from support.data_source import DataSource
from text import KINDS, LONG

_flag = partial(Flag, group="data: text (--dataset Text)", start_from=StartFrom.FIXED, requires=("dataset", ("Text",)))
TEXT = DataSource(
    module="text.data_set",
    name="TextData",
    presets={"default": dict(pretrain_d_epochs=300, kl_weight=1.0)},  # as for tunes: D could learn the lines by heart
    flags=(
        _flag(
            name="data_path",
            type=str,
            default=None,
            resumable=True,  # the text may have moved; that it is the same is checked when it is read
            start_from=StartFrom.INHERITED,
            help="a UTF-8 file with a sequence a line, or a folder with train.txt, valid.txt and test.txt (or other .txt files)",
        ),
        _flag(name="tokens", type=KINDS, default="words", help="what a token is: a word between blanks, a character, or a number"),
        _flag(name="min_count", type=whole(1), default=1, help="tokens that occur less often in the training lines are <unk>"),
        _flag(name="max_vocab", type=whole(0), default=0, help="largest vocabulary, <end> and <unk> included; 0: no limit"),
        _flag(name="long", type=LONG, default="cut", help="lines of more than --seq_len tokens: cut, split into several, or drop"),
        _flag(
            name="variable_length",
            type=boolean,
            default=None,
            help="lines shorter than --seq_len end with <end>, after which nothing follows (default: whether there are any)",
        ),
    ),
)
