"""sweep.py on a cluster: the batch file, jobs in the queue, requeueing, several runs on a GPU. Slurm's commands are stand-ins."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.cli import ROOT, assert_one_line_error, call
from helpers.fake_slurm import make_slurm
from helpers.stub_python import begun, make_stub, most_at_a_time, read_calls

import sweep
from running import sweep_clusters

PLACES = ("--name", "mine", "--report", "False")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed (requirements-sweep.txt)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_clusters, "ASK_EVERY", 0.1)


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    folder = make_slurm(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return folder


def run(*words):
    return call(sweep.main, *PLACES, "--python", make_stub(Path.cwd()), *words)


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_batch_file_is_shown_without_a_slurm(capsys):
    words = ("--cluster", "slurm", "--seeds", "1-4", "--per_device", "2", "--slurm", "partition=gpu", "time=600", "mem=8GB")
    assert call(sweep.main, *PLACES, *words, "--threads_per_run", "3", "--dry_run") == 0
    out = capsys.readouterr().out
    assert out.count("main.py") == 4
    for line in (
        "gpus-per-node=1",
        "cpus-per-task=6",
        "partition=gpu",
        "time=600",
        "mem=8GB",
        "job-name=mine",
        "signal=USR2@90",
        "array=0-1%2",
    ):
        assert f"#SBATCH --{line}\n" in out
    assert re.search(r"\nsrun .* -u -m submitit.core._submit .*/logs/mine/out/submitit\n", out)
    assert not Path("logs").exists()
    assert call(sweep.main, *PLACES, "--cluster", "slurm", "--seeds", "1", "--slurm", "cpus_per_task=8", "--dry_run") == 0
    out = capsys.readouterr().out
    assert "--threads 8 " in out and "gpus-per-node" not in out
    assert call(sweep.main, *PLACES, "--cluster", "slurm", "--seeds", "1", "--slurm", "partitoin=gpu", "--dry_run") == 2
    assert_one_line_error(capsys, "partitoin")


def test_without_slurm_and_with_a_partition_that_it_lacks_there_is_one_line(jobs, capsys, monkeypatch):
    assert run("--seeds", "1", "--slurm", "partition=nobody") == 2
    assert_one_line_error(capsys, "sbatch")
    assert run("--seeds", "1", "--slurm", "partitoin=gpu") == 2
    assert_one_line_error(capsys, "partitoin")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert run("--cluster", "slurm", "--seeds", "1") == 2
    assert_one_line_error(capsys, "srun")


def test_runs_that_share_a_gpu_are_one_job_and_each_has_its_own_end(jobs, monkeypatch, capsys):
    monkeypatch.setenv("FAIL_AT", "mine-2")
    assert run("--seeds", "1-3", "--per_device", "2") == 1
    assert len(list(jobs.iterdir())) == 2
    calls = read_calls()
    assert set(begun(calls)) == {"mine-1", "mine-2", "mine-3"}
    out = capsys.readouterr().out
    assert "mine-1: submitted as job 100_0" in out and "mine-3: submitted as job 100_1" in out
    assert "mine-2: failed (exit 2): error: it failed on purpose" in out and "2 of 3 runs are finished" in out
    assert "#SBATCH --array=0-1" in Path("batch.sh").read_text()


def test_a_job_that_is_preempted_goes_on_with_its_run_and_a_later_call_takes_it_over(jobs, monkeypatch, capsys):
    monkeypatch.setenv("SLOW_AT", "mine-1")
    process = subprocess.Popen([sys.executable, str(ROOT / "sweep.py"), *PLACES, "--python", make_stub(Path.cwd()), "--seeds", "1"])
    wait_for(lambda: "epoch 1" in log() and Path("logs/mine/out/mine-1.job").exists())
    process.kill()  # its job goes on
    process.wait()
    (job,) = jobs.iterdir()
    number = int(job.read_text())
    stub = Path("stub-python")
    stub.write_text(stub.read_text().replace("time.sleep(60", "time.sleep(0.5"))
    for name in (signal.SIGTERM, signal.SIGUSR2):  # as Slurm preempts
        os.kill(number, name)
    assert call(sweep.main, *PLACES, "--python", str(stub.resolve()), "--seeds", "1") == 0
    calls = read_calls()
    assert ["--resume" in each["flags"] for each in calls if "flags" in each] == [False, True]
    assert [each["status"] for each in calls if "status" in each] == [130, 0]
    assert most_at_a_time(calls) == 1 and len(list(jobs.iterdir())) == 1
    out = capsys.readouterr().out
    assert "in the queue since an earlier call, as job 100" in out and "mine-1: finished in" in out


def log():
    path = Path("logs/mine/out/mine-1.txt")
    return path.read_text() if path.exists() else ""


def test_a_job_that_slurm_ends_without_a_word_is_a_failed_run(jobs, monkeypatch, capsys):
    monkeypatch.setenv("SLOW_AT", "mine-1")
    ask = sweep_clusters.in_queue

    def kill_once_it_works():
        if "epoch 1" in log():
            (call,) = read_calls() or [None]
            for number in [] if call is None else [int(next(jobs.iterdir()).read_text()), call["pid"]]:
                os.kill(number, signal.SIGKILL)
        return ask()

    monkeypatch.setattr(sweep_clusters, "in_queue", kill_once_it_works)
    assert run("--seeds", "1") == 1
    assert "mine-1: failed: its job ended without a result: epoch 1" in capsys.readouterr().out
