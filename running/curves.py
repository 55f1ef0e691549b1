"""The learning curves of runs as a picture, with matplotlib where it is installed. Does not load torch."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from running.paper_tables import ORACLE
from running.runs import Run, number
from support.errors import UserError
from support.files import write_atomically

LONGEST_NAME = 80  # characters of a row's name; there is no room for more


def import_pyplot() -> Any:
    """Matplotlib's pyplot, which writes to files only; raises UserError where it is not installed."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise UserError("curves need matplotlib: python -m pip install -r requirements-dev.txt") from error
    return pyplot


def curve(runs: list[Run], name: str) -> list[tuple[int, float, float, float]]:
    """(step, median, smallest, largest) of a number over runs, at the steps at which all of them were evaluated."""
    points = [{row["step"]: value for row in run.evaluations if (value := number(row, name)) is not None} for run in runs]
    shared = sorted(set.intersection(*(set(each) for each in points)))
    columns = [(step, [each[step] for each in points]) for step in shared]
    return [(step, statistics.median(values), min(values), max(values)) for step, values in columns]


def drawable(name: str) -> str:
    """A row's name as matplotlib can draw it: it takes text between dollars for a formula, and fails on what is not UTF-8."""
    shown = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return shown.encode(errors="backslashreplace").decode().replace("$", r"\$")


def cut_off(axis: Any, low: float, top: float, high: float) -> str:
    """Show an axis from `low` to `top`; returns what the title says of values up to `high`."""
    axis.set_ylim(low - 0.05 * (top - low), top + 0.05 * (top - low))
    return f" (peaks to {high:.3g} cut off)" if high > top else ""


def draw_curves(rows: list[tuple[str, list[Run]]], path: Path) -> None:
    """Both NLLs of every row against the epochs of G, as a PNG.

    Args:
        rows: name and runs of each.
        path: where the picture goes.

    Raises:
        UserError: matplotlib is missing.
        OSError: the file can't be written.
    """
    pyplot = import_pyplot()
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), sharex=True, layout="constrained")
    # the epoch of G at which the adversarial phase begins
    starts = {e["step"] - e["epoch"] for _, runs in rows for run in runs for e in run.evaluations if e["phase"] == "adversarial"}
    for axis, (name, title) in zip(axes, list(ORACLE.columns.items())[:2], strict=True):
        curves = {row: points for row, runs in rows if (points := curve(runs, name))}
        for label, points in curves.items():
            steps, medians, low, high = zip(*points, strict=True)
            (line,) = axis.plot(steps, medians, label=drawable(label), linewidth=1.4)
            axis.fill_between(steps, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
        for start in sorted(starts):
            axis.axvline(start, color="grey", linewidth=0.8, linestyle="--")
        # A run that collapses would flatten all others: medians and lowest values are shown, what lies far above them is cut off.
        if curves:
            low = min(low for points in curves.values() for _, _, low, _ in points)
            high = max(high for points in curves.values() for _, _, _, high in points)
            medians = sorted(median for points in curves.values() for _, median, _, _ in points)
            top = medians[int(0.985 * (len(medians) - 1))]
            title += cut_off(axis, low, top, high) if high - top > top - low > 0 else ""
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epochs of G")
        axis.set_ylabel("nats per token")
        axis.grid(alpha=0.3)
    if axes[1].get_legend_handles_labels()[1]:
        axes[1].legend(fontsize=8)
    try:
        write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=130))
    finally:
        pyplot.close(figure)
