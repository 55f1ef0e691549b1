"""rows.sh: runs that are finished are skipped, interrupted ones go on."""

import os
import subprocess

import pytest
from helpers.cli import ROOT


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


def test_a_run_is_finished_when_the_judges_that_it_is_to_have_are_trained(tmp_path):
    """The last --judges counts."""
    command = 'experiment=x; given=("$@"); set --; . "$0"; finished run ${given[@]+"${given[@]}"}'
    (tmp_path / "run").mkdir()

    def finished(*flags):
        words = ["bash", "-euc", command, str(ROOT / "experiments/rows.sh"), *flags]
        return subprocess.run(words, cwd=tmp_path, env={**os.environ, "SWEEP": "no"}, check=False).returncode == 0

    assert not finished()
    (tmp_path / "run/final.json").touch()
    assert finished() and finished("--judges", "2", "--judges", "0") and finished("--judges=0")
    assert not finished("--judges", "2") and not finished("--judges", "0", "--judges=1")
    (tmp_path / "run/judges.json").touch()
    assert finished("--judges", "2")
