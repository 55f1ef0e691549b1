"""A command that stands for `python` in a sweep: `STUB main.py FLAGS...` is a run of a fraction of a second, without torch."""

import json
import stat
import sys
from pathlib import Path

# FAIL_AT names a run that fails, DIE_AT one that is killed once it has a checkpoint, SLOW_AT one (or all) that work until stopped.
# MEET=N has each run wait until N have begun. calls.jsonl gets a line when a run begins and one when it ends.
STUB = """#!{python} -IS
import json, os, pathlib, signal, sys, time
flags = sys.argv[2:]
given = dict(zip(flags, flags[1:]))
folder = pathlib.Path(given["--log_dir"])
def note(**values):
    line = dict(name=folder.name, time=time.time(), pid=os.getpid(), **values)
    with open("calls.jsonl", "a") as file:
        file.write(json.dumps(line) + "\\n")
deaf = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # then it can't be stopped before it has a handler of its own
note(flags=flags, device=os.environ.get("CUDA_VISIBLE_DEVICES"), deaf=deaf)
def stop(*_):
    if (folder / "saved").exists():
        os._exit(99)  # the second time main.py stops without saving
    (folder / "saved").touch()
    time.sleep(0.1)
    note(status=130)
    print("stopped; everything is saved", flush=True)
    os._exit(130)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
if "--start_from" in given and "--resume" not in flags:
    source = pathlib.Path(given["--start_from"])
    assert (source / "final.json").exists(), source
if os.environ.get("FAIL_AT") == folder.name:
    print("epoch 1\\nerror: it failed on purpose", file=sys.stderr)
    sys.exit(2)
assert ("--resume" in flags) == (folder / "last.pt").exists()
folder.mkdir(parents=True, exist_ok=True)
seed = int(folder.name.rpartition("-")[2])
settings = dict(preset="paper", seed=seed, oracle_seed=1, dataset="LSTM", vocab_size=5000, seq_len=20, pretrain_g_epochs=1)
(folder / "config.json").write_text(json.dumps(dict(args=dict(settings, total_epochs=0), versions={{}})))
(folder / "last.pt").touch()
if os.environ.get("DIE_AT") == folder.name:
    os.kill(os.getpid(), signal.SIGKILL)
print("epoch 1", flush=True)
(folder / "saved").unlink(missing_ok=True)
pathlib.Path("begun-" + folder.name).touch()
end = time.monotonic() + 10
while len(list(pathlib.Path().glob("begun-*"))) < int(os.environ.get("MEET", 0)) and time.monotonic() < end:
    time.sleep(0.02)
time.sleep(60 if os.environ.get("SLOW_AT") in (folder.name, "all") else 0.05)
row = dict(phase="pretrain_g", epoch=1, step=1, nll_oracle=9 + seed, nll_test=8)
(folder / "metrics.jsonl").write_text(json.dumps(row) + "\\n")
(folder / "final.json").write_text(json.dumps(row))
note(status=0)
"""


def make_stub(folder: Path) -> str:
    """Write the command into a folder; returns its path."""
    path = folder / "stub-python"
    path.write_text(STUB.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def read_calls(folder: Path = Path()) -> list[dict]:
    """The lines of calls.jsonl in a folder, which are then forgotten."""
    path = folder / "calls.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [json.loads(line) for line in lines]


def begun(calls: list[dict]) -> dict[str, list[str]]:
    """The flags of each run that has begun, by its name; a run that has begun twice is an error."""
    found = [call for call in calls if "flags" in call]
    assert len({call["name"] for call in found}) == len(found), [call["name"] for call in found]
    return {call["name"]: call["flags"] for call in found}


def most_at_a_time(calls: list[dict]) -> int:
    """How many runs were at work at the same time, not counting those that failed."""
    ended = {call["pid"] for call in calls if "status" in call}
    steps = sorted((call["time"], 1 if "flags" in call else -1) for call in calls if call["pid"] in ended)
    now = most = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most
