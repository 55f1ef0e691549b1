"""sweep.py: many runs on one machine. What it does with a real submitit is tested where submitit is installed."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.cli import ROOT, assert_one_line_error, call, flag_value, snapshot
from helpers.stub_python import begun, make_stub, most_at_a_time, read_calls
from helpers.tables import table_cells

import sweep

PLACES = ("--cluster", "local", "--name", "mine")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(sweep, "count_cores", lambda: 2)


@pytest.fixture
def submitit():
    return pytest.importorskip("submitit", reason="submitit is not installed (requirements-sweep.txt)")


def run(*words):
    """sweep.py on this machine, with the stub for python."""
    return call(sweep.main, *PLACES, "--python", make_stub(Path.cwd()), *words)


def test_help_and_a_dry_run_load_neither_torch_nor_submitit():
    code = "import sweep, sys; sweep.main(['--name', 'a', '--seeds', '1', '--dry_run', '--cluster', 'local']); "
    code += "assert not {'torch', 'submitit', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, stdout=subprocess.DEVNULL)


def test_without_submitit_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    before = snapshot(Path())
    assert call(sweep.main, *PLACES, "--seeds", "1") == 2
    assert_one_line_error(capsys, "pip install -r requirements-sweep.txt")
    assert snapshot(Path()) == before
    assert "submitit" in (ROOT / "requirements-sweep.txt").read_text()


def test_a_dry_run_prints_a_command_for_each_run_that_is_not_finished(capsys):
    Path("logs/mine/reward-bleu-2").mkdir(parents=True)
    Path("logs/mine/reward-bleu-2/final.json").touch()
    Path("logs/mine/reward-constant-2").mkdir()
    Path("logs/mine/reward-constant-2/last.pt").touch()
    before = snapshot(Path())
    words = (
        "--seeds",
        "1-2",
        "--set",
        "reward=bleu,constant",
        "--start_from",
        "other/mle-{seed}",
        "--dry_run",
        "--",
        "--g_steps",
        "2",
    )
    Path("other/mle-1").mkdir(parents=True)
    assert call(sweep.main, *PLACES, *words) == 0
    first, second, third, fourth = capsys.readouterr().out.splitlines()
    start = f"{sys.executable} {ROOT}/main.py --start_from 'other/mle-{{seed}}' --g_steps 2 --reward=bleu"
    start += " --start_from other/mle-1 --threads 1"
    assert first == f"{start} --seed 1 --log_dir logs/mine/reward-bleu-1 --eval_log_dir logs/mine/eval/reward-bleu-1"
    assert "--reward=constant" in second and "--overwrite" not in first
    assert third == "# reward-bleu-2 is finished"
    assert "--resume" in fourth and fourth.endswith("--log_dir logs/mine/reward-constant-2")
    assert snapshot(Path()) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--seeds"),
        (["--seeds", "2-1"], "empty range"),
        (["--seeds", "1", "--", "--no_such", "1"], "--no_such 1 (see python main.py --help)"),
        (["--seeds", "1", "--set", "reward=nonsense"], "nonsense"),
        (["--seeds", "1", "--name", "a/b"], "--name"),
        (["--seeds", "1", "--name", "file", "--folder", "x"], "not allowed"),
        (["--seeds", "1", "--start_from", "nowhere"], "no such run"),
        (["--seeds", "1", "--per_device", "2", "--", "--device", "cpu"], "no CUDA device"),
        (["--seeds", "1", "--threads_per_run", "2", "--", "--threads", "1"], "--threads_per_run 2"),
        (["--seeds", "1", "--cluster", "slurm", "--slurm", "time"], "KEY=VALUE"),
        (["--seeds", "1", "--cluster", "slurm", "--slurm", "time=1:00"], "minutes"),
        (["--seeds", "1", "--cluster", "slurm", "--slurm", "gpus_per_node=2"], "--per_device"),
        (["--seeds", "1", "--jobs", "0"], "--jobs"),
    ],
)
def test_a_mistake_ends_with_one_line_before_anything_is_written(words, told, capsys):
    before = snapshot(Path())
    assert call(sweep.main, "--cluster", "local", *([] if "--name" in words else ["--name", "mine"]), *words) == 2
    assert_one_line_error(capsys, told)
    assert snapshot(Path()) == before and not Path("logs").exists()


def commands(capsys, *words):
    """The flags that a dry run shows, one list a run."""
    assert call(sweep.main, *PLACES, "--dry_run", *words) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_threads_are_shared_out_among_the_runs_that_go_at_a_time(monkeypatch, capsys):
    monkeypatch.setattr(sweep, "count_cores", lambda: 12)
    for words, expected in (
        (["--seeds", "1-3"], "4"),
        (["--seeds", "1-50"], "1"),
        (["--seeds", "1-50", "--jobs", "5"], "2"),
        (["--seeds", "1", "--jobs", "5"], "12"),
        (["--seeds", "1-3", "--threads_per_run", "2"], "2"),
        (["--seeds", "1-3", "--", "--threads", "3"], "3"),
        (["--seeds", "1-3", "--", "--preset", "smoke"], "1"),  # the preset's own number: tiny sizes gain nothing from more
    ):
        assert {flag_value(flags, "--threads") for flags in commands(capsys, *words)} == {expected}, words


def slots(*words, runs=50):
    args = sweep.build_parser().parse_args(["--name", "a", "--seeds", "1", *words])
    return [slot["CUDA_VISIBLE_DEVICES"] for slot in sweep.local_slots(args, sweep.parse_rows("a", [], []), runs)]


def test_runs_are_shared_out_over_devices(monkeypatch):
    monkeypatch.setattr(sweep, "count_cores", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert slots() == ["3", "GPU-5"]
    assert slots("--per_device", "2") == ["3", "GPU-5", "3", "GPU-5"]
    assert slots("--per_device", "2", "--jobs", "3") == ["3", "GPU-5", "3"]
    assert slots("--per_device", "2", runs=1) == ["3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden: they stay so
    assert slots() == [""] * 8
    assert slots("--jobs", "3") == [""] * 3
    assert slots("--threads_per_run", "3") == [""] * 2
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    smi = Path("bin/nvidia-smi")
    smi.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\necho '  MIG 1g'\necho 'GPU 1: NVIDIA H100 (UUID: GPU-2)'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path('bin').resolve()}:{os.environ['PATH']}")
    assert slots("--per_device", "3") == ["0", "1"] * 3
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert slots() == [None] * 8


def test_runs_go_side_by_side_a_failed_one_stops_nothing_and_the_second_call_does_what_is_missing(submitit, monkeypatch, capsys):
    monkeypatch.setenv("FAIL_AT", "reward-bleu-2")
    monkeypatch.setenv("DIE_AT", "reward-constant-1")
    words = ("--seeds", "1-2", "--set", "reward=bleu,constant")
    assert run(*words) == 1
    calls = read_calls()
    assert len(begun(calls)) == 4
    assert {call["device"] for call in calls if "device" in call} == {None}  # not hidden by submitit
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert "reward-bleu-2: failed (exit 2): error: it failed on purpose" in lines
    assert [line for line in lines if line.startswith("reward-constant-1: failed (signal SIGKILL): no output")]
    assert [line for line in lines if line.startswith("reward-bleu-1: finished in ")]
    assert "2 of 4 runs are finished" in lines
    assert {row[0]: row[1] for row in table_cells(out)[2:]} == {"reward bleu": "1", "reward constant": "1"}
    assert Path("logs/mine/out/reward-bleu-2.txt").read_text().endswith("error: it failed on purpose\n")
    assert not list(Path("logs/mine/out").glob("submitit*"))

    monkeypatch.delenv("FAIL_AT")
    monkeypatch.delenv("DIE_AT")
    finished = snapshot(Path("logs/mine/reward-bleu-1"))
    assert run(*words) == 0
    flags = begun(read_calls())
    assert list(flags) == ["reward-constant-1", "reward-bleu-2"] or list(flags) == ["reward-bleu-2", "reward-constant-1"]
    assert "--resume" in flags["reward-constant-1"] and "--resume" not in flags["reward-bleu-2"]
    assert snapshot(Path("logs/mine/reward-bleu-1")) == finished
    out = capsys.readouterr().out
    assert "reward-bleu-1: finished before" in out and "reward-constant-1: resumed" in out and "4 of 4 runs are finished" in out
    assert {row[0]: row[1] for row in table_cells(out)[2:]} == {"reward bleu": "2", "reward constant": "2"}
    assert run(*words, "--report", "False") == 0 and read_calls() == []
    assert "|" not in capsys.readouterr().out


def test_a_run_waits_for_the_one_that_it_starts_from_and_is_not_started_where_that_fails(submitit, monkeypatch, capsys):
    monkeypatch.setenv("FAIL_AT", "mle-2")
    rows = "--row late --start_from logs/mine/mle-{seed} --row mle".split()
    assert run("--cluster", "debug", "--seeds", "1-2", "--report", "False", "--", *rows) == 1
    calls = read_calls()
    assert set(begun(calls)) == {"mle-1", "mle-2", "late-1"}
    out = capsys.readouterr().out
    assert "late-2: not started: logs/mine/mle-2, from which it begins, is not finished" in out
    assert "late-1: finished in" in out  # the stub refuses to start before its source is finished


def test_as_many_runs_as_jobs_go_at_a_time_and_those_on_a_device_are_no_more_than_may_share_it(submitit, monkeypatch):
    monkeypatch.setenv("MEET", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert run("--seeds", "1-4", "--per_device", "2", "--jobs", "3", "--report", "False") == 0
    calls = read_calls()
    assert most_at_a_time(calls) == 3
    names = {device: {call["name"] for call in calls if call.get("device") == device} for device in ("3", "5")}
    assert set.union(*names.values()) == {f"mine-{seed}" for seed in range(1, 5)}
    assert all(1 <= most_at_a_time([call for call in calls if call["name"] in found]) <= 2 for found in names.values())


def start_sweep(*words, runs, **environment):
    """sweep.py as a process of its own, once so many runs are at work."""
    python = [sys.executable, str(ROOT / "sweep.py"), *PLACES, "--python", make_stub(Path.cwd()), "--jobs", "2"]
    process = subprocess.Popen(
        [*python, *words],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    wait_for(lambda: len(list(Path("logs/mine").glob("*/last.pt"))) == runs, process)
    return process


def wait_for(condition, process=None):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end and (process is None or process.poll() is None)
        time.sleep(0.02)


def test_ctrl_c_saves_the_runs_and_a_second_one_ends_them_at_once(submitit):
    process = start_sweep("--seeds", "1-3", runs=2, SLOW_AT="all")
    os.killpg(process.pid, signal.SIGINT)  # as the terminal sends it, to the jobs as well
    out, err = process.communicate(timeout=10)
    calls = read_calls()
    assert process.returncode == 130, (out, err)
    assert "0 of 3 runs are finished; the same command goes on" in out and "|" not in out
    assert out.count("stopped after") == 2 and err == ""
    assert [call["status"] for call in calls if "status" in call] == [130, 130]  # asked once each: 99 otherwise
    assert len(begun(calls)) == 2


def test_a_second_ctrl_c_ends_the_runs_at_once(submitit, monkeypatch, capsys):
    monkeypatch.setenv("SLOW_AT", "all")
    monkeypatch.setattr("running.sweep.SAME_REQUEST", 0.0)
    stub = Path(make_stub(Path.cwd()))
    deaf = Path("deaf")
    deaf.write_text(stub.read_text().replace("def stop(*_):", "def stop(*_):\n    return"))  # in a long epoch
    deaf.chmod(0o755)

    def press_twice():
        for _ in range(2):
            wait_for(lambda: len(list(Path("logs/mine").glob("*/last.pt"))) == 1)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    threading.Thread(target=press_twice).start()
    assert run("--seeds", "1", "--python", str(deaf.resolve())) == 130
    assert "stopping" in capsys.readouterr().out
    wait_for(lambda: not any(map(is_alive, read_pids())))


def test_on_a_file_system_without_locks_the_runs_do_not_take_their_sweep_for_gone(submitit, monkeypatch):
    monkeypatch.setattr("running.sweep_job.fcntl.flock", no_locks)
    folder = Path("out").resolve()
    folder.mkdir()
    assert sweep.Local(submitit, folder, [{}])._owner is None
    monkeypatch.undo()
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    local = sweep.Local(submitit, folder, [{}])
    assert local._owner is not None
    assert local._executor.parameters["timeout_min"] > 60 * 24 * 30  # submitit's own default is two minutes
    os.close(handle)


def no_locks(*_):
    raise OSError(errno.ENOLCK, "No locks available")


def read_pids():
    path = Path("calls.jsonl")
    return [json.loads(line)["pid"] for line in path.read_text().splitlines()] if path.exists() else []


def is_alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and " Z " not in stat.read_text()


def test_a_killed_sweep_has_its_runs_saved_and_the_next_one_goes_on(submitit, monkeypatch, capsys):
    process = start_sweep("--seeds", "1", runs=1, SLOW_AT="all")
    assert call(sweep.main, *PLACES, "--seeds", "1") == 2  # two at once are refused
    assert_one_line_error(capsys, "another sweep.py")
    process.kill()
    process.communicate()
    assert run("--seeds", "1") == 0  # though the old job has written that the run was stopped
    assert "mine-1: resumed\nmine-1: finished" in capsys.readouterr().out
    calls = read_calls()
    assert ["--resume" in call["flags"] for call in calls if "flags" in call] == [False, True]
    assert [call["status"] for call in calls if "status" in call] == [130, 0]
    assert most_at_a_time(calls) == 1  # the new job waits for the run of the old one


def test_the_debug_cluster_runs_one_after_another_in_this_process(submitit, monkeypatch, capsys):
    monkeypatch.setenv("FAIL_AT", "mine-2")
    assert run("--cluster", "debug", "--seeds", "1-3", "--report", "False") == 1
    calls = read_calls()
    assert list(begun(calls)) == ["mine-1", "mine-2", "mine-3"]
    assert most_at_a_time([call for call in calls if call["name"] != "mine-2"]) == 1
    assert "mine-2: failed (exit 2)" in capsys.readouterr().out
