"""The data sets that --dataset knows. A new one is a folder and one line in SOURCES. Loads neither torch nor a data set."""

from __future__ import annotations

from functools import partial
from typing import Any

from music.source import TUNES
from support.command_line import LARGEST_SEED, Flag, StartFrom, whole
from support.data_source import DataSource
from text.source import TEXT

_flag = partial(Flag, group="data: the oracle (--dataset LSTM)", start_from=StartFrom.FIXED)
ORACLE = DataSource(
    module="data_loader",
    name="OracleData",
    has_oracle=True,
    presets={"tuned": dict(g_emb_dropout=0.0, g_dropout=0.0)},  # fresh batches cannot be overfitted; with --train_size, set both
    flags=(
        _flag(
            name="oracle_seed",
            type=whole(0, LARGEST_SEED),
            default=None,
            compared=False,
            help="seed of the oracle's weights (default: --seed)",
        ),
        _flag(name="oracle_emb_dim", type=whole(1), default=20, help="the oracle's embedding size"),
        _flag(name="oracle_hidden_dim", type=whole(1), default=50, help="the oracle's hidden units"),
        _flag(
            name="oracle_init",
            type=("glorot", "normal"),
            default="glorot",
            help="the oracle's LSTM weights: Glorot uniform, or all N(0, 1)",
        ),
        _flag(
            name="oracle_params",
            type=str,
            default=None,
            requires=("dataset", ("LSTM",)),
            help="the oracle from a file: .npz or the authors' pickle; its sizes are the file's",
        ),
        _flag(
            name="save_oracle",
            type=str,
            default=None,
            resumable=True,
            compared=False,
            start_from=StartFrom.OWN,
            requires=("dataset", ("LSTM",)),
            help="write the oracle to this .npz file, for --oracle_params",
        ),
    ),
)
SOURCES: dict[str, DataSource] = {
    "LSTM": ORACLE,
    "Nottingham": TUNES,
    "Text": TEXT,
}


def fixed_settings(dataset: str) -> dict[str, Any]:
    """The settings that a data set can have in one way only."""
    return {name: value for name, (value, _) in SOURCES[dataset].fixed.items()}
