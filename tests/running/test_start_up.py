"""What happens in a process before any work: imports, threads, denormals."""

import json
import os
import subprocess
import sys

import pytest
from helpers.cli import ROOT, TINY, call, folders, snapshot

import judges
import main
import sample


def test_importing_writes_nothing_and_loads_nothing_optional(tmp_path):
    code = "import main, sample, train, sys; assert not {'matplotlib', 'pretty_midi'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert snapshot(tmp_path) == {}


UNTIL_TORCH_IS_LOADED = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))
            sys.exit()
sys.meta_path.insert(0, Watch())
import {command}
"""


@pytest.mark.parametrize(
    ("command", "given", "expected"),
    [
        ("main", {}, "10000"),
        ("sample", {}, "10000"),
        ("main", {"GOMP_SPINCOUNT": "7"}, "7"),
        ("main", {"OMP_WAIT_POLICY": "passive"}, "None"),
    ],
)
def test_patience_of_threads_is_set_before_torch_is_loaded_unless_the_user_chose_it(command, given, expected):
    others = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = UNTIL_TORCH_IS_LOADED.format(command=command)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**others, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [expected]


MULTIPLIES_SMALL_NUMBERS = """
import main, torch
from support.threads import run_all, set_up
set_up(4)
small, cpu = torch.full((2000, 2000), 2e-38), torch.device("cpu")
results = [small * 0.25, torch.mm(small, torch.full((2000, 300), 1e-6)), *run_all([lambda: small[:50] * 0.25] * 8, cpu)]
print([int(result.count_nonzero()) for result in results])
"""


def test_denormals_are_flushed_to_zero_on_all_threads():
    done = subprocess.run([sys.executable, "-c", MULTIPLIES_SMALL_NUMBERS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == {0}


@pytest.mark.parametrize(("module", "first_work"), [(main, "make_state"), (sample, "load_models"), (judges, "load_models")])
def test_the_process_is_set_up_before_any_work(module, first_work, monkeypatch, tmp_path):
    """A thread that has started keeps its own setting for denormals."""
    calls = []

    def stop(*_, **__):
        calls.append("work")
        raise enough

    enough = main.UserError("far enough")
    monkeypatch.setattr(module, "set_up", lambda *_, **__: calls.append("set up"))
    monkeypatch.setattr(module, first_work, stop)
    flags = [str(tmp_path)] if module in (sample, judges) else [*TINY, *folders(tmp_path)]
    assert call(module.main, *flags) == 2
    assert calls == ["set up", "work"]
