"""rows.sh: runs that are finished are skipped, interrupted ones go on."""

import pytest


@pytest.mark.parametrize("script", ["table1.sh", "figure3.sh"])
def test_a_second_call_trains_nothing(shell, calls, script):
    first = shell(script)
    assert calls()
    again = shell(script)
    assert (again.returncode, calls()) == (0, [])
    table = [line for line in first.stdout.splitlines() if not line.startswith("==")]
    assert table
    assert [line for line in again.stdout.splitlines() if not line.startswith("==")] == table


def test_an_interrupted_run_goes_on(shell, calls):
    stopped = shell("table1.sh", STOP_AT="pg-bleu-1")
    assert stopped.returncode == 130
    assert "| " not in stopped.stdout
    assert calls()[-1][0] == "logs/table1/pg-bleu-1"
    done = shell("table1.sh", "--threads", "2")
    assert done.returncode == 0
    found = calls()
    rest = ("pg-bleu", "seqgan", "reward-constant", "reward-random")
    assert [name for name, _ in found] == [f"logs/table1/{row}-1" for row in rest]
    expected = ["--resume", "--threads", "2", "--reward", "bleu", "--log_dir", "logs/table1/pg-bleu-1"]
    assert found[0][1] == expected
    assert "unfinished" not in done.stdout


def test_a_run_interrupted_before_its_first_checkpoint_begins_anew(shell, calls):
    assert shell("table1.sh", STOP_AT="mle-1", STOP_EARLY="1").returncode == 130
    calls()
    assert shell("table1.sh").returncode == 0
    found = dict(calls())
    assert "--overwrite" in found.pop("logs/table1/mle-1")
    assert not [flags for flags in found.values() if "--overwrite" in flags or "--resume" in flags]
