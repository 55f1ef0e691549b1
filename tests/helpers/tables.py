"""What `python report.py` prints."""

import json

import pytest

import report
from helpers.cli import call


def table(capsys: pytest.CaptureFixture, *flags: str) -> dict[str, dict[str, str]]:
    """The printed table: name of the row -> column -> cell."""
    assert call(report.main, *flags) == 0
    cells = table_cells(capsys.readouterr().out)
    assert {len(row) for row in cells if not row[0].startswith("---")} == {len(cells[0])}
    return {row[0]: dict(zip(cells[0][1:], row[1:], strict=True)) for row in cells[2:]}


def table_cells(text: str) -> list[list[str]]:
    """The rows of a table in Markdown, the header and the line below it first."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")]


def as_json(capsys: pytest.CaptureFixture, *flags: str) -> dict:
    """The numbers that --json prints."""
    assert call(report.main, *flags, "--json") == 0
    return json.loads(capsys.readouterr().out)
