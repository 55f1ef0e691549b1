"""Folders as runs leave them, with chosen numbers."""

import json
from pathlib import Path

ARGS = {"preset": "paper", "seed": 1, "oracle_seed": 1, "dataset": "LSTM", "vocab_size": 5000, "seq_len": 20}


def evaluation(step: int, oracle: float, test: float, pretrained: int = 120, **more) -> dict:
    """A line of metrics.jsonl; steps after `pretrained` are of the adversarial phase."""
    late = step > pretrained
    where = {"phase": "adversarial" if late else "pretrain_g", "epoch": step - pretrained if late else step, "step": step}
    return {**where, "nll_oracle": oracle, "nll_test": test, "nll_oracle_error": 0.01, **more}


def write_run(folder: Path, rows: list[dict], final: dict | None = None, **args) -> Path:
    """A run's folder with these evaluations; `final` is its final.json (None: unfinished)."""
    folder.mkdir(parents=True)
    settings = {**ARGS, "pretrain_g_epochs": 120, "total_epochs": 0, "log_dir": str(folder), **args}
    (folder / "config.json").write_text(json.dumps({"args": settings, "versions": {}}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if final is not None:
        (folder / "final.json").write_text(json.dumps(final))
    return folder
