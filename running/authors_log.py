"""A run's NLL_oracle as the authors' code logs it. Does not load torch."""

from __future__ import annotations

from pathlib import Path

from running.runs import Run, number
from support.files import write_atomically

AUTHORS_TITLES = {"pretrain_g": "pre-training...", "adversarial": "adversarial training..."}


def authors_log(run: Run) -> str:
    """A run's NLL_oracle in the format of the authors' `save/experiment-log.txt`, with this program's count of epochs.

    Epochs count from 0 in each phase. Ours are finished epochs: 0 stands before the first. The authors' epoch 0 is after it.
    """
    lines = []
    for phase, title in AUTHORS_TITLES.items():
        rows = [(row["epoch"], number(row, "nll_oracle")) for row in run.evaluations if row["phase"] == phase]
        measured = [f"epoch:\t{epoch}\tnll:\t{value:.6g}" for epoch, value in rows if value is not None]
        if measured:
            lines += [title, *measured]
    return "".join(f"{line}\n" for line in lines)


def write_authors_logs(runs: list[Run], folder: Path) -> None:
    """One file a run, `RUN-experiment-log.txt`; raises OSError."""
    by_folder = {run.folder.resolve(): run for run in runs}
    names = [path.name for path in by_folder]
    folder.mkdir(parents=True, exist_ok=True)
    for path, run in by_folder.items():
        name = path.name if names.count(path.name) == 1 else "-".join(path.parts[1:])
        write_atomically(folder / f"{name}-experiment-log.txt", lambda file, run=run: file.write(authors_log(run).encode()))
