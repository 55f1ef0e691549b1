"""The data of a finished run, read again where they are now: for commands that need them after the training."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from data_loader import make_data
from data_set import DataSet
from data_sources import SOURCES
from running.checkpoint import load_run, must_fit
from running.run_folder import LAST
from support.errors import UserError

PLACES = ("data_dir", "data_path")  # flags that say where a data set's files are


def add_place_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where a run's data are now."""
    for name in PLACES:
        parser.add_argument(
            f"--{name}", metavar="PATH", help="where the run's data are now, as for main.py (default: where it read them)"
        )


def data_of_run(folder: Path, settings: argparse.Namespace, given: argparse.Namespace, device: torch.device) -> DataSet:
    """The data of a run; the data set itself checks that they are those that the run began with.

    Args:
        folder: the run's.
        settings: the run's.
        given: a command line with the flags of `add_place_flags`.
        device: where tokens go.

    Raises:
        UserError: the data are missing or others, the run's data set has no files at a place that is given, or its checkpoint is
            missing or broken.
        OSError: a file can't be read.
    """
    places = {name: value for name in PLACES if (value := getattr(given, name)) is not None}
    with must_fit():
        known = {flag.name for flag in SOURCES[settings.dataset].flags}
        for name in places.keys() - known:
            raise UserError(f"--{name} has no effect on {folder}, a run with --dataset {settings.dataset}")
        return make_data(argparse.Namespace(**{**vars(settings), **places}), device, load_run(folder / LAST)["data"])
