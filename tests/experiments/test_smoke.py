"""The scripts with --smoke, also with the real main.py."""

import pytest
from helpers.cli import flag_value
from helpers.processes import warm_python
from helpers.tables import table_cells


@pytest.mark.parametrize(("script", "folder"), [("table1.sh", "logs/table1-smoke"), ("figure3.sh", "logs/figure3-smoke")])
def test_smoke_has_folders_of_its_own(shell, calls, script, folder):
    assert shell(script, "--smoke", "--threads", "1", ORACLE="oracle.npz").returncode == 0
    found = calls()
    assert {name.rpartition("/")[0] for name, _ in found} == {folder}
    for _, flags in found:
        assert (flag_value(flags, "--preset"), flag_value(flags, "--threads")) == ("smoke", "1")
        assert "--oracle_params" not in flags and "--smoke" not in flags
    assert shell(script, "--smoke", RUNS="mine").returncode == 0
    assert {name.rpartition("/")[0] for name, _ in calls()} == {"mine-smoke"}


@pytest.mark.parametrize("script", ["table1.sh", "figure3.sh"])
def test_a_flag_that_main_refuses_stops_the_script(script, shell):
    done = shell(script, "--smoke", "--no_such_flag", "1", python=warm_python())
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "--no_such_flag" in done.stderr


SMALLER = "--pretrain_g_epochs 2 --total_epochs 1 --train_size 32 --eval_samples 20 --final_eval_samples 20 --rollout_num 1".split()


@pytest.mark.parametrize(("script", "rows"), [("table1.sh", 8), ("figure3.sh", 5), ("original_figure.sh", 5)])
def test_smoke_trains_every_row_with_the_real_main(script, rows, shell):
    """The preset at its own sizes is run by the tests of the presets."""
    pytest.importorskip("matplotlib")
    done = shell(script, "--smoke", *SMALLER, python=warm_python())
    assert done.returncode == 0, done.stderr
    assert len(table_cells(done.stdout)) == rows + 2
    assert "unfinished" not in done.stdout
    again = shell(script, "--smoke", *SMALLER, python=warm_python())
    assert again.returncode == 0
    runs = rows + {"table1.sh": -1, "original_figure.sh": 1}.get(script, 0)  # early stopping is no run, the MLE run no row
    assert again.stdout.count("is finished") == runs
