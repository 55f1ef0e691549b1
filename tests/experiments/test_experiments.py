"""The scripts that reproduce the paper's tables and figures."""

import importlib
import json
import os
import stat
import subprocess
import sys

import pytest
from helpers.cli import ROOT, assert_one_line_error, call
from helpers.fake_runs import evaluation, write_run

from running.flags import FLAGS

# Stands for python: main.py's runs are written as the flags ask for, report.py is the real one. STOP_AT names a run that is
# interrupted: its folder keeps a checkpoint, or (STOP_EARLY) not even that.
STUB = f"""#!{sys.executable}
import json, os, pathlib, subprocess, sys
sys.path[:0] = [{str(ROOT / "tests")!r}]
from helpers.fake_runs import evaluation, write_run
script, flags = sys.argv[1], sys.argv[2:]
if not script.endswith("main.py"):
    sys.exit(subprocess.run([sys.executable, script, *flags]).returncode)
with open("calls.jsonl", "a") as file:
    file.write(json.dumps(flags) + "\\n")
given = {{flag: value for flag, value in zip(flags, flags[1:])}}  # later flags win
folder = pathlib.Path(given["--log_dir"])
if "--start_from" in given:
    assert (pathlib.Path(given["--start_from"]) / "final.json").is_file(), given["--start_from"]
if "--resume" in flags:
    assert (folder / "last.pt").is_file()
    (folder / "final.json").write_text("{{}}")
    sys.exit(0)
if folder.exists():
    assert "--overwrite" in flags and not (folder / "last.pt").exists()
    (folder / "metrics.jsonl").unlink()
    (folder / "config.json").unlink()
    folder.rmdir()
stop = os.environ.get("STOP_AT") == folder.name
rows = [evaluation(0, 10.0 + int(given["--seed"]) / 10, 8.0), evaluation(125, 9.0 + int(given["--seed"]) / 10, 8.5)]
write_run(folder, rows, None if stop else {{}}, seed=int(given["--seed"]))
if not (stop and "STOP_EARLY" in os.environ):
    (folder / "last.pt").touch()
sys.exit(130 if stop else 0)
"""
START = [flag.name for flag in FLAGS if flag.name == "start_from"]


@pytest.fixture
def shell(tmp_path):
    """Runs a script of experiments/ in an empty folder, with the stub for python; gives the process that ended."""
    stub = tmp_path / "stub"
    stub.write_text(STUB)
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "cwd").mkdir()

    def run(script, *flags, python=str(stub), **environment):
        names = ("SEEDS", "RUNS", "ORACLE", "STOP_AT", "STOP_EARLY")
        clean = {k: v for k, v in os.environ.items() if k not in names}
        return subprocess.run(
            ["bash", str(ROOT / "experiments" / script), *flags],
            cwd=tmp_path / "cwd",
            env={**clean, "PYTHON": python, **environment},
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def calls(tmp_path):
    """The flags of main.py's calls so far, which are then forgotten: a list of (run's name, flags)."""

    def read():
        path = tmp_path / "cwd/calls.jsonl"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        return [(value(flags, "--log_dir"), flags) for flags in found]

    return read


def value(flags, name):
    """The value of a flag: the last one wins."""
    return flags[len(flags) - flags[::-1].index(name)] if name in flags else None


TABLE1 = {
    "random": {"--pretrain_g_epochs": "0", "--total_epochs": "0"},
    "mle": {"--total_epochs": "0"},
    "scheduled": {"--scheduled_sampling": "0.002", "--total_epochs": "0"},
    "pg-bleu": {"--reward": "bleu", "--start_from": "logs/table1/mle-{}"},
    "seqgan": {"--start_from": "logs/table1/mle-{}"},
    "reward-constant": {"--reward": "constant", "--start_from": "logs/table1/mle-{}"},
    "reward-random": {"--reward": "random", "--start_from": "logs/table1/mle-{}"},
}
OF_A_ROW = (*"--scheduled_sampling --reward --start_from --pretrain_g_epochs --total_epochs --pretrain_d_epochs".split(),)


def test_table1_trains_each_row_once_a_seed(shell, calls):
    done = shell("table1.sh", SEEDS="1 3")
    assert done.returncode == 0, done.stderr
    found = calls()
    assert [name for name, _ in found] == [f"logs/table1/{row}-{seed}" for seed in (1, 3) for row in TABLE1]
    for name, flags in found:
        row, seed = name.removeprefix("logs/table1/").rsplit("-", 1)
        assert {k: value(flags, k) for k in OF_A_ROW if k in flags} == {k: v.format(seed) for k, v in TABLE1[row].items()}
        assert (value(flags, "--preset"), value(flags, "--seed"), value(flags, "--oracle_seed")) == ("paper", seed, "1")
        assert value(flags, "--eval_log_dir") == f"logs/table1/eval/{row}-{seed}"
        assert "--oracle_params" not in flags and "--resume" not in flags and "--overwrite" not in flags


def test_table1_prints_the_paper_beside_and_tests_against_seqgan(shell):
    one = shell("table1.sh").stdout
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in one.splitlines() if line.startswith("|")]
    papers = {row[0]: row[-2] for row in rows[2:]}
    assert papers == {
        **{"Random": "10.310", "MLE": "9.038", "MLE, early-stopped": "–", "Scheduled sampling": "8.985", "PG-BLEU": "8.946"},
        **{"SeqGAN": "8.736", "constant reward": "–", "random reward": "–"},
    }
    assert rows[3][2] == "9.100" and rows[4][2] == "10.100"  # MLE at the end, and where NLL_test was lowest
    assert "Welch" not in one
    two = shell("table1.sh", SEEDS="2").stdout
    assert "| SeqGAN | 2 | 9.150 ± 0.635" in two  # both seeds are in the folder
    three = shell("table1.sh", SEEDS="1 2").stdout
    assert three.count("Welch's t-test") == 6
    assert "MLE, early-stopped against SeqGAN: difference +1.000" in three


def test_flags_and_oracle_are_passed_on_but_do_not_change_what_a_row_is(shell, calls):
    flags = ["--pretrain_g_epochs", "20", "--total_epochs", "30", "--seed", "9", "--device", "cpu", "--log_dir", "mine"]
    assert shell("table1.sh", *flags, ORACLE="my oracle.npz", RUNS="my runs").returncode == 0
    found = dict(calls())
    assert list(found) == [f"my runs/{row}-1" for row in TABLE1]
    for flags in found.values():
        given = (value(flags, name) for name in ("--oracle_params", "--seed", "--device"))
        assert tuple(given) == ("my oracle.npz", "1", "cpu")
        assert "--oracle_seed" not in flags
    epochs = {name[8:-2]: (value(f, "--pretrain_g_epochs"), value(f, "--total_epochs")) for name, f in found.items()}
    assert epochs.pop("random") == ("0", "0")
    assert epochs.pop("mle") == epochs.pop("scheduled") == ("20", "0")
    assert set(epochs.values()) == {("20", "30")}


@pytest.mark.parametrize("script", ["table1.sh", "figure3.sh"])
def test_a_second_time_trains_nothing(shell, calls, script, tmp_path):
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
    assert [name for name, _ in found] == [f"logs/table1/{row}-1" for row in list(TABLE1)[3:]]
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


FIGURE3 = {"g100-d1-k10": ("100", "1", "10", "15"), "g30-d1-k30": ("30", "1", "30", "5"), "g1-d1-k10": ("1", "1", "10", "15")}
FIGURE3 |= {"g1-d5-k3": ("1", "5", "3", "50")}


def test_figure3_trains_each_setting_from_the_same_mle_run(shell, calls, tmp_path):
    pytest.importorskip("matplotlib")
    done = shell("figure3.sh", SEEDS="2")
    assert done.returncode == 0, done.stderr
    found = dict(calls())
    assert list(found) == ["logs/figure3/mle-2", *(f"logs/figure3/{name}-2" for name in FIGURE3)]
    assert value(found["logs/figure3/mle-2"], "--total_epochs") == "0"
    for name, steps in FIGURE3.items():
        flags = found[f"logs/figure3/{name}-2"]
        assert tuple(value(flags, flag) for flag in ("--g_steps", "--d_steps", "--d_epochs", "--pretrain_d_epochs")) == steps
        assert int(steps[2]) * int(steps[3]) == 150  # D's passes before the adversarial phase
        assert value(flags, "--start_from") == "logs/figure3/mle-2"
        assert value(flags, "--total_epochs") is None
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in done.stdout.splitlines() if line.startswith("|")]
    assert {row[0]: row[-2] for row in rows[2:]} == {
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


@pytest.mark.parametrize(("script", "folder"), [("table1.sh", "logs/table1-smoke"), ("figure3.sh", "logs/figure3-smoke")])
def test_smoke_has_folders_of_its_own(shell, calls, script, folder):
    assert shell(script, "--smoke", "--threads", "1", ORACLE="oracle.npz").returncode == 0
    found = calls()
    assert {name.rpartition("/")[0] for name, _ in found} == {folder}
    for _, flags in found:
        assert (value(flags, "--preset"), value(flags, "--threads")) == ("smoke", "1")
        assert "--oracle_params" not in flags and "--smoke" not in flags
    assert shell(script, "--smoke", RUNS="mine").returncode == 0
    assert {name.rpartition("/")[0] for name, _ in calls()} == {"mine-smoke"}


@pytest.mark.parametrize("script", ["table1.sh", "figure3.sh"])
def test_what_main_refuses_stops_the_script(script, tmp_path, shell):
    done = shell(script, "--smoke", "--no_such_flag", "1", python=sys.executable)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "--no_such_flag" in done.stderr


@pytest.mark.skipif(not START, reason="main.py has no --start_from")
@pytest.mark.parametrize(("script", "rows"), [("table1.sh", 8), ("figure3.sh", 5)])
def test_smoke_runs_for_real(script, rows, shell, tmp_path):
    pytest.importorskip("matplotlib")
    done = shell(script, "--smoke", python=sys.executable, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.startswith("|")]) == rows + 2
    assert "unfinished" not in done.stdout
    again = shell(script, "--smoke", python=sys.executable, OMP_NUM_THREADS="1")
    assert again.returncode == 0
    assert again.stdout.count("is finished") == rows - (script == "table1.sh")  # early stopping is no run


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The main function of a script of experiments/, by name; the folder is empty."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    return lambda name: importlib.import_module(name).main


@pytest.mark.parametrize(
    ("script", "flags", "words"),
    [
        ("plot_nll", [], "RUN"),
        ("plot_nll", ["x", "--nosuch"], "--nosuch"),
        ("plot_nll", ["x", "--ou", "a.png"], "--ou"),
        ("plot_nll", ["x", "--out", "a.jpg"], ".png"),
        ("plot_nll", ["x"], "metrics.jsonl"),
        ("plot_nll", ["broken"], "line 1"),
        ("plot_nll", ["tunes"], "no run against the oracle"),
        ("nottingham_grids", [], "folder"),
        ("nottingham_grids", ["x", "--nosuch"], "--nosuch"),
        ("nottingham_grids", ["x"], "no folder x"),
        ("nottingham_table", [], "NAME=PATTERN"),
        ("nottingham_table", ["a=b", "--nosuch"], "--nosuch"),
        ("nottingham_table", ["tunes"], "'tunes': a row is NAME=PATTERN"),
        ("nottingham_table", ["MLE=x"], "no finished run"),
        ("nottingham_table", ["MLE=broken"], "final.json is not a JSON object"),
    ],
)
def test_bad_input_of_the_other_scripts_ends_with_one_line(script, flags, words, command, tmp_path, capsys):
    tune = evaluation(0, 0.0, 2.0)
    del tune["nll_oracle"]
    write_run(tmp_path / "tunes", [tune])
    (write_run(tmp_path / "broken", [], {}) / "metrics.jsonl").write_text("{\n")
    (tmp_path / "broken/final.json").write_text("[")
    assert call(command(script), *flags) == 2
    assert_one_line_error(capsys, words)


def test_curves_of_runs_are_drawn(command, tmp_path):
    pytest.importorskip("matplotlib")
    write_run(tmp_path / "mle", [evaluation(step, 9.0, 8.0, oracle_entropy=7.0) for step in (0, 10, 130)])
    assert call(command("plot_nll"), "mle", "--out", "c.png") == 0
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_table_over_tunes_gives_means_and_half_ranges(command, tmp_path, capsys):
    for seed, bleu in enumerate((0.80, 0.90), start=1):
        write_run(tmp_path / f"mle-{seed}", [], {"bleu4": bleu, "mse": 40.0 + seed, "real_bleu4": 0.9})
    write_run(tmp_path / "mle-3", [])
    assert call(command("nottingham_table"), "MLE=mle-*") == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[2].startswith("| MLE | 2 | 0.850 ± 0.050 | 41.50 ± 0.50 | – |")
    assert rows[3].startswith("| real training windows | | 0.900 ± 0.000 | – |")
