"""The scripts of the paper's tables where sweep.py trains their rows: the same runs and the same table."""

import subprocess

import pytest
from helpers.cli import ROOT
from helpers.tables import table_cells

SWEEP = "--cluster debug"  # one after another in one process; how runs go side by side is tested with sweep.py


def installed():
    pytest.importorskip("submitit", reason="submitit is not installed (requirements-sweep.txt)")


def effective(calls):
    """Each run's flags with their values, the last one of each, without the number of threads."""
    found = {name: dict(zip(flags, [*flags[1:], None], strict=True)) for name, flags in calls}
    assert len(found) == len(calls)
    return {name: {k: v for k, v in flags.items() if k.startswith("--") and k != "--threads"} for name, flags in found.items()}


def test_the_same_runs_and_the_same_table_with_and_without_submitit(shell, calls):
    installed()
    pytest.importorskip("matplotlib")
    flags = ["--pretrain_d_epochs", "7", "--d_steps", "9"]  # replaces a row's default; does not change what a row is
    alone = shell("figure3.sh", *flags, SEEDS="3", RUNS="runs")
    expected = effective(calls())
    assert alone.returncode == 0, alone.stderr
    swept = shell("figure3.sh", *flags, SEEDS="3", RUNS="other", SWEEP=SWEEP)
    assert swept.returncode == 0, swept.stderr
    found = effective(calls())
    renamed = {
        name.replace("other", "runs"): {k: v and v.replace("other/", "runs/") for k, v in flags.items()}
        for name, flags in found.items()
    }
    assert renamed == expected
    assert table_cells(swept.stdout) == table_cells(alone.stdout) != []
    again = shell("figure3.sh", *flags, SEEDS="3", RUNS="runs", SWEEP=SWEEP)  # finished without submitit
    assert (again.returncode, calls()) == (0, [])
    assert table_cells(again.stdout) == table_cells(alone.stdout)


def test_an_interrupted_row_stops_the_script_without_a_table_and_goes_on(shell, calls):
    installed()
    stopped = shell("table1.sh", SWEEP=SWEEP, STOP_AT="mle-1")
    assert stopped.returncode == 1 and table_cells(stopped.stdout) == []
    assert {name.rpartition("/")[2] for name, _ in calls()} == {"random-1", "mle-1", "scheduled-1"}
    assert "seqgan-1: not started: logs/table1/mle-1" in stopped.stdout
    done = shell("table1.sh", SWEEP=SWEEP)
    assert done.returncode == 0 and len(table_cells(done.stdout)) == 10
    found = dict(calls())
    assert "--resume" in found.pop("logs/table1/mle-1")
    assert len(found) == 4 and not any("--resume" in flags for flags in found.values())


def test_without_submitit_the_rows_go_one_after_another_as_they_stand(shell, calls, tmp_path):
    (tmp_path / "without").mkdir()
    (tmp_path / "without/submitit.py").write_text("raise ImportError")
    done = shell("table1.sh", PYTHONPATH=str(tmp_path / "without"), SWEEP="")
    assert done.returncode == 0, done.stderr
    assert len(calls()) == 7 and "== logs/table1/mle-1" in done.stdout
    assert not (tmp_path / "cwd/logs/table1/out").exists()


def test_every_script_that_plans_rows_trains_them():
    for path in (ROOT / "experiments").glob("*.sh"):
        text = path.read_text()
        assert text.count("\ntrain_planned\n") == ("  plan " in text and path.name != "rows.sh"), path
        subprocess.run(["bash", "-n", str(path)], check=True)
