"""figure3.sh: its runs, the table and the curves."""

import pytest
from helpers.cli import flag_value
from helpers.tables import table_cells

FIGURE3 = {"g100-d1-k10": ("100", "1", "10", "15"), "g30-d1-k30": ("30", "1", "30", "5"), "g1-d1-k10": ("1", "1", "10", "15")}


FIGURE3 |= {"g1-d5-k3": ("1", "5", "3", "50")}


def test_figure3_trains_each_setting_from_the_same_mle_run(shell, calls, tmp_path):
    pytest.importorskip("matplotlib")
    done = shell("figure3.sh", SEEDS="2")
    assert done.returncode == 0, done.stderr
    found = dict(calls())
    assert list(found) == ["logs/figure3/mle-2", *(f"logs/figure3/{name}-2" for name in FIGURE3)]
    assert flag_value(found["logs/figure3/mle-2"], "--total_epochs") == "0"
    for name, steps in FIGURE3.items():
        flags = found[f"logs/figure3/{name}-2"]
        assert tuple(flag_value(flags, flag) for flag in ("--g_steps", "--d_steps", "--d_epochs", "--pretrain_d_epochs")) == steps
        assert int(steps[2]) * int(steps[3]) == 150  # D's passes before the adversarial phase
        assert flag_value(flags, "--start_from") == "logs/figure3/mle-2"
        assert flag_value(flags, "--total_epochs") is None
    assert {row[0]: row[-2] for row in table_cells(done.stdout)[2:]} == {
        **{"MLE": "9.038", "g 100, d 1, k 10": "8.940", "g 30, d 1, k 30": "8.890", "g 1, d 1, k 10": "8.810"},
        "g 1, d 5, k 3": "8.730",
    }
    assert "g 100, d 1, k 10: unstable in the paper" in done.stdout
    assert (tmp_path / "cwd/logs/figure3/curves.png").read_bytes().startswith(b"\x89PNG")


def test_figure3_says_at_once_that_matplotlib_is_missing(shell, calls, tmp_path):
    (tmp_path / "without").mkdir()
    (tmp_path / "without/matplotlib.py").write_text("raise ImportError")
    done = shell("figure3.sh", PYTHONPATH=str(tmp_path / "without"))
    assert (done.returncode, calls()) == (2, [])
    assert done.stderr.count("\n") == 1
    assert "requirements-dev.txt" in done.stderr
