"""A run with every phase, long enough that evaluations and checkpoints fall on different epochs."""

import json
from pathlib import Path

from helpers.cli import json_lines, same, scalars, trained_state

EPOCHS = {"pretrain_g": 40, "pretrain_d": 12, "adversarial": 20}
WHOLE = (
    f"--pretrain_g_epochs {EPOCHS['pretrain_g']} --pretrain_d_epochs {EPOCHS['pretrain_d']} --total_epochs {EPOCHS['adversarial']} "
    "--eval_every 7 --save_every 9"
).split()


def assert_same_run(one: Path, two: Path) -> None:
    """Two runs ended with the same weights, random streams and log points, bit for bit and none twice."""
    assert same(trained_state(one / "train"), trained_state(two / "train"))
    for name in ("metrics.jsonl", "training.jsonl"):
        assert json_lines(one / "train" / name) == json_lines(two / "train" / name)
    for name in ("train", "eval"):
        assert scalars(one / name) == scalars(two / name)
    assert json.loads((one / "train/final.json").read_text()) == json.loads((two / "train/final.json").read_text())
