"""What a job of a sweep does with its runs; without submitit."""

import fcntl
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.cli import ROOT, flag_value
from helpers.stub_python import begun, make_stub, most_at_a_time, read_calls

from running.sweep import Sweep, make_task
from running.sweep_job import SweepJob, is_locked, write_note
from running.sweep_plan import parse_rows, plan_runs


def tasks(*seeds):
    """Tasks of runs in this folder, with the stub for python."""
    stub = make_stub(Path.cwd())
    Path("out").mkdir(exist_ok=True)
    (row,) = parse_rows("mine", [], ["--g_steps", "2"])
    return [make_task(run, Path("out"), [stub, "main.py"], 1) for run in plan_runs([row], seeds, Path())]


def note(task):
    return json.loads(task.note.read_text())


def test_the_runs_of_a_job_go_side_by_side_and_end_each_in_its_own_way(monkeypatch):
    one, two, three = tasks(1, 2, 3)
    monkeypatch.setenv("FAIL_AT", "mine-2")
    monkeypatch.setenv("DIE_AT", "mine-3")
    SweepJob([one, two, three], {})()
    assert [note(task)["status"] for task in (one, two, three)] == [0, 2, -signal.SIGKILL]
    assert one.log.read_text().splitlines()[1:] == ["epoch 1"]
    assert two.log.read_text().splitlines()[1:] == ["epoch 1", "error: it failed on purpose"]
    assert one.log.read_text().startswith("== ") and "--seed 1" in one.log.read_text()
    read_calls()
    monkeypatch.setenv("MEET", "2")
    for path in Path().glob("begun-*"):
        path.unlink()
    SweepJob(tasks(4, 5), {})()
    assert most_at_a_time(read_calls()) == 2


def test_a_finished_run_is_left_alone_an_interrupted_one_resumed_and_an_empty_one_begun_anew(monkeypatch):
    finished, interrupted, begun_only, partial, others = tasks(1, 2, 3, 4, 5)
    for task, name in (
        (finished, "final.json"),
        (interrupted, "last.pt"),
        (begun_only, "metrics.jsonl"),
        (others, "metrics.jsonl"),
    ):
        task.checkpoint.parent.mkdir()
        (task.checkpoint.parent / name).write_text("as it was")
    partial.checkpoint.parent.mkdir()
    (partial.checkpoint.parent / ".last.pt.partial").touch()
    (others.checkpoint.parent / "best.pt").touch()
    SweepJob([finished, interrupted, begun_only, partial, others], {})()
    flags = begun(read_calls())
    assert list(flags).count("mine-1") == 0 and note(finished)["status"] == 0
    assert finished.results[0].read_text() == "as it was"
    assert "--resume" in flags["mine-2"] and "--overwrite" not in flags["mine-2"] and "--seed" not in flags["mine-2"]
    assert (flag_value(flags["mine-2"], "--log_dir"), flag_value(flags["mine-2"], "--g_steps")) == ("mine-2", "2")
    for name in ("mine-3", "mine-4"):
        assert "--overwrite" in flags[name] and "--resume" not in flags[name]
    assert "--overwrite" not in flags["mine-5"]  # a checkpoint of the user's is there


def test_the_environment_is_changed_for_the_runs_and_a_python_that_is_not_there_is_an_error_of_the_run(monkeypatch):
    one, two, three = tasks(1, 2, 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # as submitit sets it
    SweepJob([one], {"CUDA_VISIBLE_DEVICES": "GPU-7"})()
    SweepJob([two], {"CUDA_VISIBLE_DEVICES": None})()
    assert {call["name"]: call["device"] for call in read_calls() if "flags" in call} == {"mine-1": "GPU-7", "mine-2": None}
    missing = type(three)(**{**vars(three), "start": ("no-such-python", "main.py")})
    SweepJob([missing], {})()
    assert note(missing)["status"] == 127
    assert missing.log.read_text().splitlines()[-1] == "error: No such file or directory: no-such-python"


JOB = """
import fcntl, os, pickle, signal, sys
sys.path.insert(0, {root!r})
from running.sweep_job import SweepJob
task, options = pickle.loads(sys.stdin.buffer.read())
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGINT}})
job = SweepJob([task], {{}}, **options)
job()
"""


def start_job(task, **options):
    """A job in a process of its own, with SIGINT blocked and ignored, once its run is at work."""
    process = subprocess.Popen([sys.executable, "-c", JOB.format(root=str(ROOT))], stdin=subprocess.PIPE)
    process.stdin.write(pickle.dumps((task, options)))
    process.stdin.close()
    wait_for(lambda: task.log.exists() and "epoch 1" in task.log.read_text())
    return process


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_job_that_is_told_to_stop_asks_its_run_once(monkeypatch):
    """The stub, like main.py, does not save when it is asked twice."""
    monkeypatch.setenv("SLOW_AT", "all")
    (task,) = tasks(1)
    process = start_job(task, stop_signals=(signal.SIGTERM,))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert note(task)["status"] == 130
    assert task.log.read_text().splitlines()[-1] == "stopped; everything is saved"


def test_the_run_is_saved_when_its_sweep_is_gone_and_killed_when_it_was_told_to_stop_before(monkeypatch):
    monkeypatch.setenv("SLOW_AT", "all")
    one, two = tasks(1, 2)
    owner = os.open("out", os.O_RDONLY)
    fcntl.flock(owner, fcntl.LOCK_EX)
    assert is_locked(Path("out"))
    process = start_job(one, owner=Path("out"), stop_signals=(signal.SIGTERM,))
    assert process.poll() is None
    os.close(owner)
    assert process.wait(10) == 0
    assert note(one)["status"] == 130 and not is_locked(Path("out"))

    owner = os.open("out", os.O_RDONLY)
    fcntl.flock(owner, fcntl.LOCK_EX)
    stub = Path("stub-python")
    stub.write_text(stub.read_text().replace('(folder / "saved").touch()', "return"))  # a long epoch
    process = start_job(two, owner=Path("out"), stop_signals=(signal.SIGTERM,))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    os.close(owner)
    assert process.wait(10) == 0
    assert note(two)["status"] == -signal.SIGKILL


def test_two_jobs_of_one_run_work_one_after_another(monkeypatch):
    """As after a sweep that was killed, whose run still saves."""
    (task,) = tasks(1)
    monkeypatch.setenv("MEET", "2")
    process = start_job(task)
    threading.Timer(0.4, Path("begun-another").touch).start()  # the run works until then
    SweepJob([task], {})()
    assert process.wait(10) == 0
    calls = read_calls()
    assert list(begun(calls)) == ["mine-1"] and calls[-1]["status"] == 0
    assert note(task)["status"] == 0


def test_signals_of_slurm_do_not_reach_the_run_and_sigint_of_the_job_does_not_kill_it(monkeypatch):
    monkeypatch.setenv("SLOW_AT", "all")
    (task,) = tasks(1)
    process = start_job(task, shielded=(signal.SIGTERM, signal.SIGUSR2), stop_signals=(signal.SIGTERM,))
    (call,) = read_calls()
    assert not call["deaf"]
    for number in (signal.SIGTERM, signal.SIGUSR2):
        os.kill(call["pid"], number)
    time.sleep(0.2)
    os.kill(call["pid"], 0)
    assert os.getpgid(call["pid"]) != os.getpgid(process.pid)  # Ctrl-C in the terminal is not for it
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert note(task)["status"] == 130


class Stale:
    """A cluster on which the job of an earlier call writes its note before the new one's begins."""

    group = 1

    def room(self):
        return 1

    def submit(self, groups):
        ((self.task,),) = groups
        write_note(self.task.note, token="of an earlier call", status=130, seconds=1.0)
        self.asked = 0
        return [self]

    def ended(self, job, _runs_ended):
        self.asked += 1
        if self.asked > 1:
            SweepJob([self.task], {})()
        return self.asked > 1

    def close(self):
        pass


def test_the_note_of_an_earlier_job_is_not_taken_for_the_new_ones():
    (task,) = tasks(1)
    (row,) = parse_rows("mine", [], [])
    lines = []
    assert Sweep([(plan_runs([row], [1], Path())[0], task)], Stale(), lines.append).run() == 0
    assert [line.rpartition(" in ")[0] or line for line in lines] == ["mine-1: finished", "1 of 1 runs are finished"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_job_that_ends_by_an_exception_leaves_no_run_behind(kind, monkeypatch):
    monkeypatch.setenv("SLOW_AT", "all")
    (task,) = tasks(1)

    def raise_once_it_works(self):
        if task.log.exists() and "epoch 1" in task.log.read_text():
            raise kind

    monkeypatch.setattr(SweepJob, "_follow_owner", raise_once_it_works)
    with pytest.raises(kind):
        SweepJob([task], {})()
    (call,) = read_calls()
    wait_for(lambda: not Path(f"/proc/{call['pid']}").exists() or "Z" in Path(f"/proc/{call['pid']}/stat").read_text())
