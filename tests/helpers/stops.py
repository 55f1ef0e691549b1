"""Runs that are stopped in this process, as Ctrl-C stops them: after an epoch, with everything saved."""

import pytest

from helpers.cli import run
from running.trainer import Trainer

STOPPED = 130  # exit status


def run_until(phase: str, epoch: int, *flags: str) -> int:
    """`helpers.cli.run`, stopped after an epoch of a phase; returns the exit status."""
    whole_epoch = Trainer._epoch

    def stopping(self, name, *rest):
        whole_epoch(self, name, *rest)
        self.stop_requested = (name, self.state.epochs_done[name]) == (phase, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_epoch", stopping)
        return run(*flags)
