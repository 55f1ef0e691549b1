"""Shell scripts of experiments/ with a stub for python."""

import json
import os
import stat
import subprocess
import sys

import pytest
from helpers.cli import ROOT, flag_value
from helpers.processes import warm_python

# Stands for python: main.py's runs are written as the flags ask for, judges.py's numbers are made up, report.py is the real one.
# STOP_AT names a run that is interrupted: its folder keeps a checkpoint, or (STOP_EARLY) not even that.
STUB = f"""#!{sys.executable}
import json, os, pathlib, subprocess, sys
sys.path[:0] = [{str(ROOT / "tests")!r}]
from helpers.fake_runs import evaluation, write_run
script, flags = sys.argv[1], sys.argv[2:]
if script.endswith("judges.py"):
    (pathlib.Path(flags[0]) / "judges.json").write_text(json.dumps({{"resampled": evaluation(125, 9.9, 7.5)}}))
    sys.exit(0)
if not script.endswith("main.py"):
    python = os.environ["WARM_PYTHON"] if script.endswith("report.py") else sys.executable
    sys.exit(subprocess.run([python, script, *flags]).returncode)
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


@pytest.fixture
def shell(tmp_path):
    """Runs a script of experiments/ in an empty folder, with the stub for python; gives the process that ended."""
    stub = tmp_path / "stub"
    stub.write_text(STUB)
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "cwd").mkdir()

    def run(script, *flags, python=str(stub), **environment):
        names = ("SEEDS", "RUNS", "ORACLE", "STOP_AT", "STOP_EARLY")
        clean = {k: v for k, v in os.environ.items() if k not in names} | {"SWEEP": "no"}
        return subprocess.run(
            ["bash", str(ROOT / "experiments" / script), *flags],
            cwd=tmp_path / "cwd",
            env={**clean, "PYTHON": python, "WARM_PYTHON": warm_python(), **environment},
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
        return [(flag_value(flags, "--log_dir"), flags) for flags in found]

    return read
