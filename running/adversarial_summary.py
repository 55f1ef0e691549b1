"""What the adversarial phase did to the generator, from the evaluations of a run. Does not load torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from running.runs import Record, best_evaluation, number

COLUMNS = {
    **{"nll_oracle": "NLL_oracle", "nll_test": "NLL_test", "entropy_g": "H(G)"},
    **{"bleu2": "BLEU-2", "bleu4": "BLEU-4", "distinct_tokens": "distinct tokens"},
}
IN_THE_SENTENCE = ("nll_oracle", "nll_test", "bleu2", "bleu4")
LAST = 5  # evaluations at the end, whose mean the sentence compares with the start


def adversarial_summary(evaluations: list[Record]) -> list[str]:
    """A table of the generator before the adversarial phase, at its best epoch and at the end, and a sentence on the change.

    Args:
        evaluations: the objects of metrics.jsonl.

    Returns:
        Its lines; none where there was no adversarial epoch, or no evaluation before it.
    """
    before = [row for row in evaluations if row["phase"] == "pretrain_g"][-1:]
    phase = [row for row in evaluations if row["phase"] == "adversarial"]
    if not before or not phase:
        return []
    best = best_evaluation(phase)
    table = {"before": before[0], f"best (epoch {best['epoch']})": best, f"end (epoch {phase[-1]['epoch']})": phase[-1]}
    names = [name for name in COLUMNS if name in before[0]]
    lines = [["adversarial phase", *(COLUMNS[name] for name in names)]]
    lines += [[title, *(_cell(name, number(row, name)) for name in names)] for title, row in table.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    told = [_change(name, before[0], phase[-LAST:]) for name in IN_THE_SENTENCE if name in names]
    return [
        *("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines),
        f"adversarial training: {', '.join(told)} (mean of the last {len(phase[-LAST:])} evaluations, less that before)",
    ]


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if name == "distinct_tokens" else f"{value:.3f}"


def _change(name: str, before: Record, after: Sequence[Record]) -> str:
    """The mean of a number over `after` less that before, and its standard error where samples are drawn anew each time."""
    values, errors = ([number(row, key) for row in (before, *after)] for key in (name, f"{name}_error"))
    if None in values:
        return f"{COLUMNS[name]} is no longer a number"
    change = math.fsum(values[1:]) / len(after) - values[0]
    sign = "−" if change < 0 else "+"
    text = f"{COLUMNS[name]} {sign}{abs(change):.3f}"
    if name != "nll_oracle" or None in errors:  # NLL_test is of the same sequences each time
        return text
    return f"{text} ± {math.hypot(errors[0], math.hypot(*errors[1:]) / len(after)):.3f}"
