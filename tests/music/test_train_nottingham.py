"""train_nottingham.sh: where it finds the tunes, and what it passes on."""

import functools
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile

import pytest
from helpers.cli import ROOT
from helpers.processes import warm_python
from helpers.tunes import scale


def shell(folder, *flags, cwd=None, **variables):
    """train_nottingham.sh in a copy of the project, called from there or from cwd; returns the finished process.

    Its python has loaded the project's modules already, where `PYTHON` names no other one.
    """
    for path in ROOT.iterdir():
        is_room = path.name in ("fast", "music", "residual", "running", "support", "text")
        if path.suffix in (".py", ".sh") or (is_room and not (folder / path.name).exists()):
            (folder / path.name).symlink_to(path) if path.is_dir() else shutil.copy(path, folder)
    environment = {**os.environ, "PYTHON": warm_python(), "NOTTINGHAM_URL": "http://127.0.0.1:9/", **variables}
    environment["NOTTINGHAM_MIRROR"] = "http://127.0.0.1:9/"
    tiny = "--threads 1 --eval_samples 20 --final_eval_samples 20 --pretrain_g_epochs 2 --total_epochs 0 --seq_len 8".split()
    script = "train_nottingham.sh" if cwd is None else os.path.relpath(folder / "train_nottingham.sh", cwd)
    command = ["bash", script, *tiny, *flags]
    return subprocess.run(command, cwd=cwd or folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_script_unpacks_trains_and_can_run_twice(tunes, tmp_path):
    zipped = shutil.make_archive(str(tmp_path / "tunes"), "zip", tunes)
    project = tmp_path / "project"
    project.mkdir()
    first = shell(project, "--run_name", "one", NOTTINGHAM_ZIP=zipped)
    assert first.returncode == 0, first.stderr
    assert len(list((project / "data/Nottingham").rglob("*.mid"))) == 10
    assert "694/173/170" in first.stderr  # these are not the original's numbers of files
    for songs in ("best", "last"):
        assert len(list((project / "logs/train/one/samples" / songs).glob("*.mid"))) == 5
    for path in project.glob("*.py"):
        path.unlink()
    (project / "train_nottingham.sh").unlink()
    (project / "music").unlink()
    second = shell(project, "--run_name", "two")
    assert second.returncode == 0, second.stderr


def test_the_script_fetches_the_archive_where_there_is_none(tunes, tmp_path):
    shutil.make_archive(str(tmp_path / "web/Nottingham"), "zip", tunes)
    project = tmp_path / "project"
    project.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = shell(project, "--run_name", "one", NOTTINGHAM_URL=f"http://127.0.0.1:{server.server_port}/Nottingham.zip")
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (project / "data").iterdir()) == ["Nottingham", "Nottingham.zip"]
    assert len(list((project / "data/Nottingham").rglob("*.mid"))) == 10


def test_the_script_without_network_says_where_the_zip_goes(tmp_path):
    done = shell(tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "data/Nottingham.zip" in done.stderr
    assert not (tmp_path / "data/Nottingham").exists()


def test_the_script_refuses_an_unsafe_zip(tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("train/../../evil.mid", scale())
    (tmp_path / "evil.zip").write_bytes(data.getvalue())
    project = tmp_path / "project"
    project.mkdir()
    done = shell(project, NOTTINGHAM_ZIP=str(tmp_path / "evil.zip"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "not safe" in done.stderr
    assert not list(tmp_path.rglob("evil.mid"))


def data_dir(log_dir):
    """--data_dir in a run's settings."""
    return json.loads((log_dir / "config.json").read_text())["args"]["data_dir"]


def test_the_script_may_be_called_from_another_folder(tunes, tmp_path):
    project, here = tmp_path / "my project", tmp_path / "here"
    project.mkdir()
    here.mkdir()
    shutil.make_archive(str(here / "tunes"), "zip", tunes)
    (here / "main.py").write_text("raise SystemExit('not this one')")  # nor the folder music beside it
    (here / "music").mkdir()
    first = shell(project, "--run_name", "one", cwd=here, NOTTINGHAM_ZIP="tunes.zip", PYTHON=sys.executable)
    assert first.returncode == 0, first.stderr
    assert len(list((project / "data/Nottingham").rglob("*.mid"))) == 10
    assert data_dir(here / "logs/train/one") == str(project / "data/Nottingham")
    assert not (here / "data").exists()
    assert not (project / "logs").exists()
    for flags in (["--data_dir", "tunes.zip", "--run_name", "two"], ["--data_dir=tunes.zip", "--run_name", "three"]):
        done = shell(project, *flags, cwd=here)
        assert done.returncode == 0, done.stderr
        assert data_dir(here / "logs/train" / flags[-1]) == "tunes.zip"
    done = shell(project, "--is_train", "False", "--run_name", "two", cwd=here)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("flags", "resumes"),
    [
        (["--resume"], True),
        (["--resume", "--run_name", "a"], True),
        (["--resume=yes"], True),
        (["--resume", "False"], False),
        (["--resume=false"], False),
        (["--resume", "0"], False),
        (["--resume", "--resume", "no"], False),
        (["--run_name", "a --resume"], False),
        (["--resume", "auto", "--run_name", "a"], False),
        (["--resume=AUTO", "--run_name=a"], False),
    ],
)
def test_the_script_trains_on_the_tunes_unless_it_resumes(tmp_path, flags, resumes):
    project = tmp_path / "project"
    (project / "data/Nottingham").mkdir(parents=True)
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    called = {cwd: shell(project, *flags, cwd=cwd, PYTHON=str(tmp_path / "python")).stdout for cwd in (project, tmp_path)}
    for words in called.values():
        assert words.endswith(f"{' '.join(flags)}\n")
        assert ("--dataset Nottingham" in words) != resumes
    assert "--data_dir" not in called[project]
    assert (f"--data_dir {project}/data/Nottingham" in called[tmp_path]) != resumes


def test_the_same_command_starts_a_run_and_goes_on_with_it(tunes, tmp_path):
    zipped = shutil.make_archive(str(tmp_path / "tunes"), "zip", tunes)
    project, here = tmp_path / "project", tmp_path / "here"
    project.mkdir()
    here.mkdir()
    for flags in (["--run_name", "one", "--resume", "auto"], ["--run_name=one", "--resume=auto", "--pretrain_g_epochs", "3"]):
        run = shell(project, *flags, cwd=here, NOTTINGHAM_ZIP=zipped)
        assert run.returncode == 0, run.stderr
        assert json.loads((here / "logs/train/one/config.json").read_text())["args"]["dataset"] == "Nottingham"
    assert "after 2 epochs of pretrain_g" in run.stdout


@pytest.mark.parametrize("flags", [["--run_name", "a"], ["--log_dir=b"], ["--run_name", "x", "--log_dir", "b"]])
def test_a_run_that_has_begun_goes_on_with_its_own_settings(flags, tmp_path):
    for folder in ("logs/train/a", "b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "last.pt").touch()
    done = shell(tmp_path, *flags, "--resume", "auto", PYTHON="echo")  # without the tunes
    assert done.returncode == 0 and "--dataset" not in done.stdout and "500" not in done.stdout
