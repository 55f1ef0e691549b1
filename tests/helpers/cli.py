"""Tiny runs of the command line, and readers of what they leave."""

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import main

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "--preset original --vocab_size 20 --seq_len 5 --batch_size 4 --d_filters 1x4,2x4 --g_emb_dim 4 --g_hidden_dim 4 --d_emb_dim 4 "
    "--oracle_emb_dim 4 --oracle_hidden_dim 4 --rollout_num 2 --d_steps 1 --eval_samples 20 --final_eval_samples 50 --threads 1"
).split()


def run(*flags: str) -> int:
    """`python main.py` at a tiny size, in this process; later flags win. Returns the exit status."""
    return call(main.main, *TINY, *flags)


def call(command, *flags: str) -> int:
    """A command's main function; returns the exit status, argparse's own included."""
    try:
        return command(list(flags))
    except SystemExit as stop:
        return stop.code


def folders(folder: Path) -> list[str]:
    """Flags for the log folders below a folder."""
    return ["--log_dir", str(folder / "train"), "--eval_log_dir", str(folder / "eval")]


def flag_value(flags: list[str], name: str) -> str | None:
    """The value of a flag in a command line: the last one wins."""
    return flags[len(flags) - flags[::-1].index(name)] if name in flags else None


def assert_one_line_error(capsys: pytest.CaptureFixture, *words: str) -> None:
    """Stderr holds one line, with these words in it."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1, text
    assert text.startswith("error: ")
    assert "Traceback" not in text
    for word in words:
        assert word in text


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def json_lines(path: Path) -> list[dict]:
    """The objects of a .jsonl file, without what depends on the clock."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.endswith("_per_second")} for row in rows]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar point in a folder's event files as it stands there, purged or not, without what depends on the clock."""
    points: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars" and not value.tag.endswith("_per_second"):
                    points.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    return {tag: sorted(values) for tag, values in points.items()}


def same(a, b) -> bool:
    """Whether two checkpoints' contents are equal, bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def trained_state(log_dir: Path) -> dict:
    """All that a checkpoint says of the training, without the clock."""
    payload = torch.load(log_dir / "last.pt", weights_only=True)
    state = {k: v for k, v in payload["state"].items() if k != "seconds"}
    return {"state": state, "data": payload["data"]}
