"""two_sample.json of experiments/judge.py: how well classifiers tell a run's sequences from real ones. Does not load torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from running.paper_tables import Table

CLASSIFIERS = {"recurrent": "AUC, recurrent", "features": "AUC, features"}  # title of each one's column


def table_numbers(entries: dict[str, Any]) -> dict[str, Any]:
    """The AUCs for a table, and those of real training sequences as `real_...`.

    They are those of the last models, which final.json is on; other settings are in the file only.
    """
    of = entries.get("last")
    found = {}
    for name in CLASSIFIERS:
        found[f"auc_{name}"] = _part(_part(of, name), "auc")
        found[f"real_auc_{name}"] = _part(_part(_part(of, "floor"), name), "auc")
    return {name: value for name, value in found.items() if value is not None}


def _part(value: object, name: str) -> Any:
    """An item of a dictionary; None where it has none, or the value is something else."""
    return value.get(name) if isinstance(value, dict) else None


def with_aucs(table: Table, records: Sequence[dict[str, Any] | None]) -> Table:
    """The table with columns for the AUCs that any of the runs has, by their final records."""
    titles = {f"auc_{name}": title for name, title in CLASSIFIERS.items()}
    measured = {name: title for name, title in titles.items() if any(record and name in record for record in records)}
    return dataclasses.replace(table, columns={**table.columns, **measured})
